using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Forgets expired tokens, used keys and old audit records, once an hour; any number of nodes may. At the start it says which
/// settings are new.</summary>
internal sealed partial class AccessUpkeep(
    AccountTokens tokens,
    Idempotency idempotency,
    AuditTrail audit,
    SettingsAudit settings,
    IOptions<RetentionOptions> retention,
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
            await ToldAsync(() => settings.NoteAsync(stoppingToken));
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

    internal Task RunOnceAsync(CancellationToken cancellationToken) =>
        ToldAsync(async () =>
        {
            await tokens.PruneAsync(cancellationToken);
            await idempotency.PruneAsync(cancellationToken);
            await audit.PruneAsync(retention.Value.Audit, cancellationToken);
        });

    /// <summary>A database that is away ends nothing here.</summary>
    private async Task ToldAsync(Func<Task> work)
    {
        try
        {
            await work();
        }
        catch (Exception exception) when (DatabaseErrors.Is(exception))
        {
            Failed(exception.GetBaseException().Message);
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The audit lacks what this start changed, or what has expired could not be forgotten yet: {Problem}"
    )]
    private partial void Failed(string problem);
}
