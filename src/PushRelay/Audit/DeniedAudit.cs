using System.Net;
using PushRelay.Limits;
using PushRelay.Storage;

namespace PushRelay.Audit;

/// <summary>
/// Audits who was refused. A flood of refusals must not fill the database: at most one record a minute for each source (an address; over
/// XMPP an account served here, or another server's domain), and at most ten a second in all, for each of REST and XMPP.
/// </summary>
internal sealed partial class DeniedAudit(AuditTrail audit, TimeProvider clock, ILogger<DeniedAudit> logger)
{
    // separate counts: a flood of refusals over REST does not hide refusals over XMPP, and the reverse
    private readonly Limits overHttp = new(clock);
    private readonly Limits overXmpp = new(clock);

    /// <summary>A credential that is unknown or expired.</summary>
    public Task RecordCredentialAsync(IPAddress? address, CancellationToken cancellationToken) =>
        RecordOverHttpAsync(
            address,
            new Actor("unknown", address?.ToString()),
            AuditActions.CredentialRefused,
            null,
            null,
            "unauthorized",
            cancellationToken
        );

    /// <summary>An account asked for a route that is the operator's.</summary>
    public Task RecordRouteAsync(IPAddress? address, Actor actor, string? account, string? route, CancellationToken cancellationToken) =>
        RecordOverHttpAsync(address, actor, AuditActions.RouteRefused, account, route, "forbidden", cancellationToken);

    /// <summary>Counts a command refused to <paramref name="source"/>. True: call <see cref="RecordCommandAsync"/>.</summary>
    /// <param name="source">An account served here, or another server's domain.</param>
    public bool TakesCommandOf(string source) => overXmpp.TryTake(source);

    /// <summary>A command over XMPP that is refused.</summary>
    /// <param name="source">As in <see cref="TakesCommandOf"/>.</param>
    /// <param name="account">Null: not served here.</param>
    /// <param name="node">The command's; null where there is no such command.</param>
    /// <param name="reason">The condition that is sent to the caller.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    public Task RecordCommandAsync(string source, string? account, string? node, string reason, CancellationToken cancellationToken) =>
        RecordAsync(new Actor("xmpp", source), AuditActions.CommandRefused, account, node, reason, cancellationToken);

    private Task RecordOverHttpAsync(
        IPAddress? address,
        Actor actor,
        string action,
        string? account,
        string? target,
        string result,
        CancellationToken cancellationToken
    ) =>
        overHttp.TryTake(RateLimit.KeyOf(address))
            ? RecordAsync(actor, action, account, target, result, cancellationToken)
            : Task.CompletedTask;

    private async Task RecordAsync(
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
        catch (Exception exception) when (DatabaseErrors.IsOutage(exception))
        {
            // the caller is refused in any case
            NotRecorded(action, exception.GetBaseException().Message);
        }
    }

    private sealed class Limits(TimeProvider clock)
    {
        private readonly RateLimit perSource = new(1, TimeSpan.FromMinutes(1), 1, clock);
        private readonly RateLimit together = new(10, TimeSpan.FromSeconds(1), 10, clock);

        public bool TryTake(string source) => perSource.TryTake(source, out _) && together.TryTake("all", out _);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Could not write the audit record of {Action}: {Problem}")]
    private partial void NotRecorded(string action, string problem);
}
