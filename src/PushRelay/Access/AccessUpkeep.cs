using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Forgets expired tokens, used keys and old audit records, once an hour; any number of nodes may. At the start it says which
/// settings are new.</summary>
internal sealed partial class AccessUpkeep(
    AccountTokens tokens,
    Idempotency idempotency,
    AuditTrail audit,
    SettingsAudit settings,
    IConfiguration configuration,
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
            await audit.PruneAsync(retention.Audit, cancellationToken);
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

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The audit lacks what this start changed, or what has expired could not be forgotten yet: {Problem}"
    )]
    private partial void Failed(string problem);
}
