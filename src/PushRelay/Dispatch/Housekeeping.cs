using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>Returns the rows of dead nodes, expires stale rows, deletes old ones. Any number of nodes may run it at once.</summary>
internal sealed partial class Housekeeping(
    OutboxUpkeep upkeep,
    SettlementWriter settlements,
    DeviceRegistry registry,
    IOptions<DevicesOptions> devices,
    IDbContextFactory<RelayDb> databases,
    WriteGate turns,
    DatabaseClock databaseClock,
    IOptions<DispatchOptions> dispatch,
    IOptions<RetentionOptions> retention,
    PushNetworks networks,
    DatabaseFailures failures,
    WorkSignal signal,
    TimeProvider clock,
    ILogger<Housekeeping> logger
) : BackgroundService
{
    private const string Work = "housekeeping";
    private const int PruneMax = 1000;

    // with the pauses between them, ten times what one node takes in
    private const int RoundsMax = 100;
    private static readonly TimeSpan Every = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan PruneEvery = TimeSpan.FromMinutes(10);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Every, clock);
        var pruned = clock.GetTimestamp() - (long)(PruneEvery.TotalSeconds * clock.TimestampFrequency);
        do
        {
            try
            {
                await SweepAsync(stoppingToken);
                if (clock.GetElapsedTime(pruned) >= PruneEvery)
                {
                    foreach (var ((app, platform), count) in await OrphansAsync(stoppingToken))
                    {
                        Orphaned(count, app, platform);
                    }

                    while (await registry.InvalidateOldAsync(devices.Value.MaxAge, PruneMax, stoppingToken) == PruneMax)
                    {
                        // each device its own transaction
                    }

                    await ForgetUnusedLanesAsync(stoppingToken);
                    var rounds = 0;
                    while (await PruneAsync(stoppingToken) == PruneMax && ++rounds < RoundsMax)
                    {
                        // each its own transaction
                    }

                    // while there is more, go on at the next tick
                    if (rounds < RoundsMax)
                    {
                        pruned = clock.GetTimestamp();
                    }
                }

                failures.Remove(Work);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception exception) when (DatabaseErrors.IsOutage(exception) || DatabaseErrors.IsClash(exception))
            {
                failures.Add(Work, exception);
            }
            catch (Exception exception)
            {
                Failed(exception);
            }
        } while (await NextAsync(timer, stoppingToken));
    }

    internal async Task SweepAsync(CancellationToken cancellationToken)
    {
        // this process may still have their results: it settles those first
        var released = settlements.IsBehind ? 0 : await upkeep.ReleaseExpiredAsync(dispatch.Value.MaxAttempts, cancellationToken);
        int expired = 0,
            round;
        do
        {
            expired += round = await upkeep.ExpireAsync(cancellationToken);
        } while (round == OutboxUpkeep.ExpireMax && expired < RoundsMax * OutboxUpkeep.ExpireMax);

        if (released > 0)
        {
            Released(released);
        }

        if (expired > 0)
        {
            Expired(expired);
        }

        if (released + expired > 0)
        {
            signal.Wake();
        }
    }

    /// <returns>How many deliveries were deleted.</returns>
    internal async Task<int> PruneAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.EnterAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var before = await databaseClock.NowAsync(db, cancellationToken) - retention.Value.Deliveries;
        await DeviceRegistry.RecordLastAcceptedAsync(db, OutboxQueue.LastAcceptedOfOldest(db, before, PruneMax), cancellationToken);
        var pruned = await OutboxUpkeep.PruneAsync(db, before, PruneMax, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return pruned;
    }

    /// <returns>How many lanes were forgotten.</returns>
    internal async Task<int> ForgetUnusedLanesAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.EnterAsync(cancellationToken);
        return await CircuitTable.ForgetUnusedAsync(db, cancellationToken);
    }

    /// <summary>How many deliveries wait for an app or a push network that is not configured any more, until they expire.</summary>
    internal async Task<Dictionary<(string App, string Platform), int>> OrphansAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var waiting = await db.Set<Delivery>()
            .Where(d => d.State == DeliveryState.Pending)
            .GroupBy(d => new { d.App, d.Platform })
            .Select(g => new
            {
                g.Key.App,
                g.Key.Platform,
                Count = g.Count(),
            })
            .ToListAsync(cancellationToken);
        return waiting
            .Where(w => !networks.Reachable.Contains((w.App!, w.Platform!)))
            .ToDictionary(w => (w.App!, w.Platform!), w => w.Count);
    }

    private static async Task<bool> NextAsync(PeriodicTimer timer, CancellationToken stoppingToken)
    {
        try
        {
            return await timer.WaitForNextTickAsync(stoppingToken);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "{Count} deliveries came back from leases that ran out: a node died or stalled while it sent them"
    )]
    private partial void Released(int count);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Count} deliveries expired: they could not be sent within their time to live")]
    private partial void Expired(int count);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "{Count} deliveries wait for app {App} on {Platform}, which setting Apps does not have: configure it, or they expire"
    )]
    private partial void Orphaned(int count, string app, string platform);

    [LoggerMessage(Level = LogLevel.Error, Message = "Housekeeping failed; it is tried again in a second")]
    private partial void Failed(Exception exception);
}
