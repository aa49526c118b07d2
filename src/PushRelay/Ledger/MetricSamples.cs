using System.Diagnostics.Metrics;
using Microsoft.EntityFrameworkCore;
using PushRelay.Api;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Ledger;

/// <summary>
/// Gauges that are read from the database, at most once in <see cref="Age"/> and only at a scrape, so a relay without scrapes has no cost.
/// While the database is away they are absent. Thread-safe.
/// </summary>
internal sealed class MetricSamples : IDisposable
{
    /// <summary>How old a sample may be.</summary>
    public static readonly TimeSpan Age = TimeSpan.FromSeconds(5);

    /// <summary>So long a scrape waits for the database.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);

    private readonly IDbContextFactory<RelayDb> databases;
    private readonly DatabaseClock databaseClock;
    private readonly TimeProvider clock;
    private readonly SemaphoreSlim reading = new(1);
    private volatile Sample? sample;

    public MetricSamples(
        IDbContextFactory<RelayDb> databases,
        DatabaseClock databaseClock,
        PresenceTracker presence,
        IMeterFactory meters,
        TimeProvider clock
    )
    {
        (this.databases, this.databaseClock, this.clock) = (databases, databaseClock, clock);
        var meter = meters.Create(RelayMetrics.MeterName);
        meter.CreateObservableGauge("pushrelay.outbox.pending", () => Of<int>(s => [new(s.Pending)]), null, "Deliveries that wait.");
        meter.CreateObservableGauge(
            "pushrelay.outbox.oldest_pending",
            () => Of<double>(s => [new(s.OldestPending.TotalSeconds)]),
            "s",
            "For how long the oldest of them has been due."
        );
        meter.CreateObservableGauge(
            "pushrelay.devices",
            () =>
                Of(s =>
                    s.Devices.Select(d => new Measurement<int>(
                        d.Count,
                        new("app", d.App),
                        new("platform", d.Platform),
                        new("status", d.Status)
                    ))
                ),
            null,
            "Registered devices."
        );
        meter.CreateObservableGauge(
            "pushrelay.sessions",
            () =>
                presence
                    .SessionCounts()
                    .Select(c => new Measurement<int>(c.Count, new("server", c.Server), new("state", PresenceNames.Of(c.State)))),
            null,
            "Sessions that the servers' modules have reported."
        );
        meter.CreateObservableCounter(
            "pushrelay.bridge.gaps",
            () => presence.Dropped().Select(d => new Measurement<long>(d.Count, new KeyValuePair<string, object?>("server", d.Server))),
            null,
            "Events that a server's module dropped before the relay had them, since the module was loaded."
        );
    }

    public void Dispose() => reading.Dispose();

    /// <summary>Reads again what is too old. Never throws.</summary>
    public async Task RefreshAsync(CancellationToken cancellationToken)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(Patience);
        try
        {
            await reading.WaitAsync(patience.Token);
            try
            {
                if (sample is { } last && clock.GetElapsedTime(last.At) < Age)
                {
                    return;
                }

                sample = null;
                sample = await ReadAsync(patience.Token);
            }
            finally
            {
                reading.Release();
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.IsOutage(exception))
        {
            // absent until the database is back; the condition says why
        }
    }

    private async Task<Sample> ReadAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await databaseClock.NowAsync(db, cancellationToken);
        var pending = db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending);
        var oldest = await pending
            .Where(d => d.DueAt <= now)
            .OrderBy(d => d.DueAt)
            .Select(d => (DateTimeOffset?)d.DueAt)
            .FirstOrDefaultAsync(cancellationToken);
        var devices = await db.Set<Device>()
            .GroupBy(d => new
            {
                d.App,
                d.Platform,
                d.Status,
            })
            .Select(same => new { same.Key, Count = same.Count() })
            .ToListAsync(cancellationToken);
        return new Sample(
            clock.GetTimestamp(),
            await pending.CountAsync(cancellationToken),
            oldest is { } due ? now - due : TimeSpan.Zero,
            [.. devices.Select(d => (d.Key.App, d.Key.Platform, EnumName.Of(d.Key.Status), d.Count))]
        );
    }

    private IEnumerable<Measurement<T>> Of<T>(Func<Sample, IEnumerable<Measurement<T>>> read)
        where T : struct => sample is { } last ? read(last) : [];

    private sealed record Sample(
        long At,
        int Pending,
        TimeSpan OldestPending,
        IReadOnlyList<(string App, string Platform, string Status, int Count)> Devices
    );
}
