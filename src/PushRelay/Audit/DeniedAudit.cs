using PushRelay.Access;
using PushRelay.Storage;

namespace PushRelay.Audit;

/// <summary>
/// Tells the audit who was refused: of one address, or one XMPP account or server, at most once a minute, and of all together ten times a
/// second over REST and ten over XMPP, since whoever knocks must not fill the database.
/// </summary>
internal sealed partial class DeniedAudit(AuditTrail audit, TimeProvider clock, ILogger<DeniedAudit> logger)
{
    // who floods the one way in does not hide who knocks at the other
    private readonly Limits overHttp = new(clock);
    private readonly Limits overXmpp = new(clock);

    /// <summary>A credential that is none, or none any more.</summary>
    public Task CredentialAsync(HttpContext context) =>
        NoteAsync(
            context,
            new Actor("unknown", context.Connection.RemoteIpAddress?.ToString()),
            "credential.refused",
            null,
            null,
            "unauthorized"
        );

    /// <summary>An account on a route that is the operator's.</summary>
    public Task RouteAsync(HttpContext context)
    {
        var caller = ApiCaller.Of(context);
        return NoteAsync(
            context,
            caller.ActorOf(context),
            "route.refused",
            caller.Account,
            (context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText?.TrimEnd('/'),
            "forbidden"
        );
    }

    /// <summary>Whether a command refused to <paramref name="source"/> is to be told now, which the caller then does.</summary>
    /// <param name="source">An account served here, or a stranger's domain.</param>
    public bool TellsCommandOf(string source) => overXmpp.TryTake(source);

    /// <summary>A command over XMPP that is not done.</summary>
    /// <param name="source">As in <see cref="TellsCommandOf"/>.</param>
    /// <param name="account">Where it is one served here.</param>
    /// <param name="node">The command's; null where there is no such command.</param>
    /// <param name="reason">As who asked is told it.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    public Task CommandAsync(string source, string? account, string? node, string reason, CancellationToken cancellationToken) =>
        WriteAsync(new Actor("xmpp", source), "command.refused", account, node, reason, cancellationToken);

    private Task NoteAsync(HttpContext context, Actor actor, string action, string? account, string? target, string result) =>
        overHttp.TryTake(RateLimit.KeyOf(context.Connection.RemoteIpAddress))
            ? WriteAsync(actor, action, account, target, result, context.RequestAborted)
            : Task.CompletedTask;

    private async Task WriteAsync(
        Actor actor,
        string action,
        string? account,
        string? target,
        string result,
        CancellationToken cancellationToken
    )
    {
        try
        {
            await audit.WriteAsync(actor, action, account, target, result, cancellationToken);
        }
        catch (Exception exception) when (DatabaseErrors.Is(exception))
        {
            // refused all the same
            NotNoted(action, exception.GetBaseException().Message);
        }
    }

    private sealed class Limits(TimeProvider clock)
    {
        private readonly RateLimit perSource = new(1, TimeSpan.FromMinutes(1), 1, clock);
        private readonly RateLimit together = new(10, TimeSpan.FromSeconds(1), 10, clock);

        public bool TryTake(string source) => perSource.TryTake(source, out _) && together.TryTake("everybody", out _);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The audit lacks a record of {Action}: {Problem}")]
    private partial void NotNoted(string action, string problem);
}
