namespace PushRelay.Telemetry;

/// <summary>Looks from time to time at something that no event reports, and raises or clears its conditions.</summary>
internal interface IWatch
{
    /// <summary>One look. May fail: what it watches is then as it was.</summary>
    Task LookAsync(CancellationToken cancellationToken);
}

/// <summary>Lets every watch of this node look, one after the other.</summary>
internal sealed partial class Watches(IEnumerable<IWatch> watches, TimeProvider clock, ILogger<Watches> logger) : BackgroundService
{
    public static readonly TimeSpan Every = TimeSpan.FromSeconds(4);

    /// <summary>A look that takes longer is given up, so that one watch holds up no other.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);

    private readonly List<IWatch> all = [.. watches];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Every, clock);
        try
        {
            do
            {
                foreach (var watch in all)
                {
                    await LookAsync(watch, stoppingToken);
                }
            } while (await timer.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // the conditions end with the process
        }
    }

    private async Task LookAsync(IWatch watch, CancellationToken stoppingToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
        patience.CancelAfter(Patience);
        try
        {
            await watch.LookAsync(patience.Token);
        }
        catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
        {
            // a database that is away is a condition of its own
            NotLooked(exception, watch);
        }
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "{Watch} could not look")]
    private partial void NotLooked(Exception exception, IWatch watch);
}

internal static class WatchServices
{
    public static IServiceCollection AddWatch<T>(this IServiceCollection services)
        where T : class, IWatch => services.AddSingleton<T>().AddSingleton<IWatch>(provider => provider.GetRequiredService<T>());
}
