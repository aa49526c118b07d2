using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Forgets expired tokens, used keys and old audit records, once an hour; any number of nodes may.</summary>
internal sealed partial class AccessUpkeep(
    AccountTokens tokens, Idempotency idempotency, AuditTrail audit, IConfiguration configuration, TimeProvider clock, ILogger<AccessUpkeep> logger) : BackgroundService
{
    private static readonly TimeSpan Every = TimeSpan.FromHours(1);

    private readonly RetentionOptions retention = Retention(configuration);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Every, clock);
        try
        {
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
        catch (Exception exception) when (DatabaseOutage.Is(exception))
        {
            Failed(exception.GetBaseException().Message);
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

    [LoggerMessage(Level = LogLevel.Warning, Message = "What has expired could not be forgotten yet: {Problem}")]
    private partial void Failed(string problem);
}
