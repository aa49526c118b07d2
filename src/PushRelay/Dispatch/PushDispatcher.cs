using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Faults;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// Sends what is due: new rows straight from the ingest, everything else by claiming it. What a stop interrupts is handed back.
/// </summary>
internal sealed partial class PushDispatcher(
    OutboxQueue outbox,
    OutboxUpkeep upkeep,
    ReadyQueue ready,
    Permits permits,
    WorkSignal signal,
    PushNetworks networks,
    LaneCircuits circuits,
    AlertSender sender,
    SettlementWriter settlements,
    DeviceRegistry registry,
    DatabaseFailures failures,
    IOptions<DispatchOptions> options,
    TimeProvider clock,
    ILogger<PushDispatcher> logger
) : BackgroundService
{
    private const int TakenTogetherMax = 500;
    private const string Claims = "claims";

    // rows of other nodes, retries and due times send no signal, so this node polls; rows that become due before the next poll are claimed
    // now
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan Drain = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan HandBackMax = TimeSpan.FromSeconds(2);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var sending = new CancellationTokenSource();
        var settling = settlements.RunAsync();
        await RecoverAfterCrashAsync();
        permits.Open(new DispatchCapacity(options.Value.Concurrency, networks.Reachable, networks.LaneMax, options.Value.LeaseDuration));
        var claiming = ClaimAsync(sending.Token, stoppingToken);
        try
        {
            while (await ready.Reader.WaitToReadAsync(stoppingToken))
            {
                await SendReadyAsync(sending.Token);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // what is claimed is sent or handed back
        }

        permits.Close();
        ready.Complete();
        await claiming;
        await SendReadyAsync(sending.Token);
        if (!await permits.WhenIdleAsync(Drain, clock))
        {
            await sending.CancelAsync();
            await permits.WhenIdleAsync(HandBackMax, clock);
        }

        settlements.Complete();
        await settling;
    }

    private async Task RecoverAfterCrashAsync()
    {
        try
        {
            await upkeep.RecoverAfterCrashAsync(options.Value.MaxAttempts, options.Value.LeaseDuration, CancellationToken.None);
        }
        catch (Exception exception)
        {
            NotRecovered(exception);
        }
    }

    private async Task ClaimAsync(CancellationToken sending, CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await circuits.ShareAsync(CancellationToken.None);
                var isMore = await ClaimDueAsync(sending);
                failures.Remove(Claims);
                if (!isMore)
                {
                    await signal.WaitAsync(Poll, stoppingToken);
                }
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
            catch (Exception exception)
            {
                // rows wait in the database; claimed rows come back when their leases end
                failures.Add(Claims, exception);
                await Task.WhenAny(
                    Task.Delay(Poll, clock, CancellationToken.None),
                    Task.Delay(Timeout.InfiniteTimeSpan, clock, stoppingToken)
                );
            }
        }
    }

    /// <returns>There may be more, and permits for it.</returns>
    private async Task<bool> ClaimDueAsync(CancellationToken sending)
    {
        if (!permits.AnyFree())
        {
            return false;
        }

        var waiting = await outbox.WaitingLanesAsync(CancellationToken.None);
        if (waiting.Count == 0 || permits.Claimable(waiting, TakenTogetherMax) is not { Count: > 0 } lanes)
        {
            return false;
        }

        // not cut short by a stop: what is claimed is sent or handed back
        var claimed = await outbox.ClaimAsync(lanes, options.Value.LeaseDuration, Poll, CancellationToken.None);
        var isMore = claimed.GroupBy(a => a.Lane).Any(g => g.Count() == lanes[g.Key]);
        await SendAsync(claimed, sending);
        return isMore;
    }

    private async Task SendReadyAsync(CancellationToken sending)
    {
        var alerts = new List<ClaimedAlert>();
        do
        {
            alerts.Clear();
            while (alerts.Count < TakenTogetherMax && ready.Reader.TryRead(out var alert))
            {
                alerts.Add(alert);
            }

            await SendAsync(alerts, sending);
        } while (alerts.Count > 0);
    }

    private async Task SendAsync(IReadOnlyList<ClaimedAlert> alerts, CancellationToken sending)
    {
        if (alerts.Count == 0)
        {
            return;
        }

        Failpoint.Reach("after_claim");
        IReadOnlyDictionary<Guid, Device>? devices = null;
        try
        {
            devices = await registry.GetAsync([.. alerts.Select(a => a.Head.DeviceKey).Distinct()], CancellationToken.None);
        }
        catch (Exception exception)
        {
            DevicesNotRead(exception, alerts.Count);
        }

        foreach (var alert in alerts)
        {
            if (devices is null)
            {
                settlements.Add(new SettledAlert(alert, new Settlement.HandBack(), null));
            }
            else
            {
                _ = sender.SendAsync(alert, devices.GetValueOrDefault(alert.Head.DeviceKey), sending);
            }
        }
    }

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "What the previous process had in flight could not be returned at the start; it returns when its leases end"
    )]
    private partial void NotRecovered(Exception exception);

    [LoggerMessage(Level = LogLevel.Error, Message = "The devices of {Count} claimed alerts could not be read; the alerts wait again")]
    private partial void DevicesNotRead(Exception exception, int count);
}
