using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Deletes expired tokens, used idempotency keys and old audit records, once an hour; any number of nodes may. At the start it
/// audits which settings changed.</summary>
internal sealed partial class AccessUpkeep(
    AccountTokens tokens,
    Idempotency idempotency,
    AuditTrail audit,
    SettingsAudit settings,
    IOptions<RetentionOptions> retention,
    IOptions<ApiOptions> api,
    TimeProvider clock,
    ILogger<AccessUpkeep> logger
) : BackgroundService
{
    private static readonly TimeSpan Every = TimeSpan.FromHours(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Every, clock);
        try
        {
            await RecordSettingsAsync(stoppingToken);
            while (await timer.WaitForNextTickAsync(stoppingToken))
            {
                await RunOnceAsync(stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // stopping
        }
    }

    internal async Task RunOnceAsync(CancellationToken cancellationToken)
    {
        try
        {
            await tokens.PruneAsync(cancellationToken);
            await idempotency.PruneAsync(cancellationToken);
            await audit.PruneAsync(retention.Value.Audit, cancellationToken);
        }
        catch (Exception exception) when (DatabaseErrors.IsOutage(exception))
        {
            NotPruned(exception.GetBaseException().Message);
        }
    }

    internal async Task RecordSettingsAsync(CancellationToken cancellationToken)
    {
        try
        {
            await settings.RecordAsync(api.Value.OperatorKeys.Select(key => (key.Name, key.Hash())), cancellationToken);
        }
        catch (Exception exception) when (DatabaseErrors.IsOutage(exception))
        {
            SettingsNotRecorded(exception.GetBaseException().Message);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Could not audit which settings changed: {Problem}")]
    private partial void SettingsNotRecorded(string problem);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Could not delete expired tokens and old audit records, next try in an hour: {Problem}"
    )]
    private partial void NotPruned(string problem);
}
