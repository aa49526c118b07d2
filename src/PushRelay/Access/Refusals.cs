using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>
/// Tells the audit who was refused: of one address at most once a minute, and of all together ten times a second, since whoever knocks
/// must not fill the database.
/// </summary>
internal sealed partial class Refusals(AuditTrail audit, TimeProvider clock, ILogger<Refusals> logger)
{
    private const string Everybody = "everybody";

    private readonly RateLimit perAddress = new(1, TimeSpan.FromMinutes(1), 1, clock);
    private readonly RateLimit together = new(10, TimeSpan.FromSeconds(1), 10, clock);

    /// <summary>A credential that is none, or none any more.</summary>
    public Task CredentialAsync(HttpContext context) => NoteAsync(
        context, new Actor("unknown", context.Connection.RemoteIpAddress?.ToString()), "credential.refused", null, null, "unauthorized");

    /// <summary>An account on a route that is the operator's.</summary>
    public Task RouteAsync(HttpContext context)
    {
        var caller = ApiCaller.Of(context);
        return NoteAsync(context, caller.ActorOf(context), "route.refused", caller.Account, (context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText?.TrimEnd('/'), "forbidden");
    }

    private async Task NoteAsync(HttpContext context, Actor actor, string action, string? account, string? target, string result)
    {
        if (!perAddress.TryTake(RateLimit.KeyOf(context.Connection.RemoteIpAddress), out _) || !together.TryTake(Everybody, out _))
        {
            return;
        }

        try
        {
            await audit.WriteAsync(actor, action, account, target, result, context.RequestAborted);
        }
        catch (Exception exception) when (DatabaseOutage.Is(exception))
        {
            // refused all the same
            NotNoted(action, exception.GetBaseException().Message);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "The audit lacks a record of {Action}: {Problem}")]
    private partial void NotNoted(string action, string problem);
}
