using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Deletes expired tokens, used idempotency keys and old audit records, once an hour; any number of nodes may. At the start it
/// audits which settings changed.</summary>
internal sealed partial class AccessUpkeep(
    AccountTokens tokens,
    Idempotency idempotency,
    AuditTrail audit,
    SettingsAudit settings,
    IConfiguration configuration,
    IOptions<ApiOptions> api,
    TimeProvider clock,
    ILogger<AccessUpkeep> logger
) : BackgroundService
{
    private static readonly TimeSpan Every = TimeSpan.FromHours(1);

    private readonly RetentionOptions retention = Retention(configuration);

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
            await audit.PruneAsync(retention.Audit, cancellationToken);
        }
        catch (Exception exception) when (DatabaseErrors.Is(exception))
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
        catch (Exception exception) when (DatabaseErrors.Is(exception))
        {
            SettingsNotRecorded(exception.GetBaseException().Message);
        }
    }

    private static RetentionOptions Retention(IConfiguration configuration)
    {
        var options = new RetentionOptions();
        SettingsReader.Bind(configuration, "Retention", options);
        SettingsReader.Require("Retention:Audit", options.Audit, TimeSpan.FromDays(1), TimeSpan.FromDays(36500));
        return options;
    }

    /// <summary>The part of settings <c>Retention</c> that is kept here.</summary>
    private sealed class RetentionOptions
    {
        /// <summary>1 day to 100 years.</summary>
        public TimeSpan Audit { get; set; } = TimeSpan.FromDays(365);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Could not audit which settings changed: {Problem}")]
    private partial void SettingsNotRecorded(string problem);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Could not delete expired tokens and old audit records, next try in an hour: {Problem}"
    )]
    private partial void NotPruned(string problem);
}
