using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Dispatch;

/// <summary>
/// The circuits of all lanes that were sent over lately, shared with the other nodes through the database; raises the conditions of those
/// that are open. Thread-safe.
/// </summary>
internal sealed class LaneCircuits : IHealthCheck
{
    private static readonly TimeSpan ShareEvery = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ReadLanesEvery = TimeSpan.FromMinutes(1);

    private readonly ConcurrentDictionary<Lane, LaneCircuit> circuits = new();
    private readonly IDbContextFactory<RelayDb> databases;
    private readonly PushNetworks networks;
    private readonly Permits permits;
    private readonly WorkSignal signal;
    private readonly DatabaseClock clock;
    private readonly TimeProvider timers;
    private readonly Conditions conditions;
    private readonly ProbeChoice probes = new();

    // lanes that have accepted at least one alert; the value: it is stored in the database
    private readonly ConcurrentDictionary<Lane, bool> accepting = new();
    private readonly int concurrency;
    private long? sharedAt;
    private long? readLanesAt;

    public LaneCircuits(
        IDbContextFactory<RelayDb> databases,
        PushNetworks networks,
        Permits permits,
        WorkSignal signal,
        DatabaseClock clock,
        TimeProvider timers,
        Conditions conditions,
        IOptions<DispatchOptions> dispatch,
        IMeterFactory meters
    )
    {
        (this.databases, this.networks, this.permits, this.signal) = (databases, networks, permits, signal);
        (this.clock, this.timers, this.conditions) = (clock, timers, conditions);
        concurrency = dispatch.Value.Concurrency;
        meters
            .Create(RelayMetrics.MeterName)
            .CreateObservableGauge(
                "pushrelay.provider.circuit.open",
                OpenByNetwork,
                description: "lanes of this app and push network that do not send: credentials are refused, or the network is away"
            );
    }

    /// <summary>Changes the lane's circuit by an answer.</summary>
    /// <param name="owner">The lane that it came over.</param>
    /// <param name="result">The answer.</param>
    /// <param name="token">The device whose token it refuses without a time; null: none.</param>
    /// <returns>The answer, corrected where a refused token is a fault of the settings.</returns>
    public PushResult Observe(LaneOwner owner, PushResult result, RefusedToken? token)
    {
        if (!networks.Reachable.Contains((owner.App, owner.Platform)))
        {
            return result;
        }

        if (result is PushResult.Accepted)
        {
            accepting.TryAdd(owner.Lane, false);
        }

        // until the lanes that have accepted are read, no lane counts as new
        var hasAccepted = readLanesAt is null || accepting.ContainsKey(owner.Lane);
        while (true)
        {
            var circuit = Of(owner);
            var before = circuit.Opening;
            if (!circuit.TryObserve(ref result, token, hasAccepted))
            {
                circuits.TryRemove(new(owner.Lane, circuit));
                continue;
            }

            if (!ReferenceEquals(before, circuit.Opening))
            {
                ShowConditions(owner);
                signal.Wake();
            }

            return result;
        }
    }

    /// <summary>The lane's circuit opened after this alert was claimed: it waits like the others.</summary>
    public bool HasOpenedSince(ClaimedAlert alert) =>
        circuits.TryGetValue(alert.Lane, out var circuit) && circuit.HasOpenedSince(alert.ClaimedAt);

    /// <summary>Writes this node's changes and reads those of the others. Tries to take the next probe of each open circuit.</summary>
    public async Task ShareAsync(CancellationToken cancellationToken)
    {
        if (sharedAt is { } last && timers.GetElapsedTime(last) < ShareEvery && circuits.All(c => c.Value.Pending == PendingWrite.None))
        {
            return;
        }

        sharedAt = timers.GetTimestamp();
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await ShareLanesAsync(db, cancellationToken);
        var stored = (await CircuitTable.AllAsync(db, cancellationToken)).ToDictionary(c => c.Lane);
        foreach (var open in stored.Values)
        {
            if (networks.Reachable.Contains((open.App, open.Platform)))
            {
                Of(open.Owner);
            }
        }

        DateTimeOffset? now = null;
        foreach (var circuit in circuits.Values)
        {
            if (stored.Count > 0 || circuit.Opening is not null || circuit.Pending != PendingWrite.None)
            {
                now ??= await clock.NowAsync(db, cancellationToken);
                await ShareAsync(db, circuit, stored.GetValueOrDefault(circuit.Owner.Lane), now.Value, cancellationToken);
            }

            if (circuit.TryRetire())
            {
                circuits.TryRemove(new(circuit.Owner.Lane, circuit));
                probes.Forget(circuit.Owner.Lane);
            }
        }
    }

    /// <summary>Which lanes have accepted something: written once for each, and read from time to time.</summary>
    private async Task ShareLanesAsync(RelayDb db, CancellationToken cancellationToken)
    {
        foreach (var lane in accepting.Where(lane => !lane.Value).Select(lane => lane.Key).ToList())
        {
            await AcceptingLane.AddAsync(db, lane, await clock.NowAsync(db, cancellationToken), cancellationToken);
            accepting[lane] = true;
        }

        if (readLanesAt is not { } read || timers.GetElapsedTime(read) >= ReadLanesEvery)
        {
            var known = await db.Set<AcceptingLane>().Select(l => l.Lane).ToHashSetAsync(cancellationToken);
            foreach (var lane in known)
            {
                accepting[lane] = true;
            }

            // housekeeping has forgotten them
            foreach (var gone in accepting.Where(lane => lane.Value && !known.Contains(lane.Key)))
            {
                accepting.TryRemove(gone);
            }

            readLanesAt = timers.GetTimestamp();
        }
    }

    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default) =>
        Task.FromResult(conditions.Health("every app may send", ConditionKind.CircuitOpen, ConditionKind.TokensRefused));

    private async Task ShareAsync(
        RelayDb db,
        LaneCircuit circuit,
        OpenCircuit? stored,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var owner = circuit.Owner;
        var (write, opening) = (circuit.Pending, circuit.Opening);
        if (write == PendingWrite.Open && stored is null && opening is not null)
        {
            stored = await CircuitTable.OpenAsync(db, owner, opening, now, cancellationToken);
        }
        else if (write == PendingWrite.Close && stored is not null)
        {
            await CircuitTable.CloseAsync(db, owner.Lane, cancellationToken);
            stored = null;
        }

        circuit.Written(write);
        if (circuit.Follow(stored) && await CircuitTable.TryTakeProbeAsync(db, stored!, now, cancellationToken))
        {
            if (stored!.Fault == Fault.Credentials)
            {
                await probes.BringForwardAsync(db, owner.Lane, now, cancellationToken);
            }

            circuit.Probe();
        }

        if (!ReferenceEquals(opening, circuit.Opening))
        {
            ShowConditions(owner);
        }
    }

    private LaneCircuit Of(LaneOwner owner) =>
        circuits.TryGetValue(owner.Lane, out var circuit)
            ? circuit
            : circuits.GetOrAdd(owner.Lane, _ => new LaneCircuit(owner, permits, concurrency, timers));

    /// <summary>One condition for all lanes of an app and network: refused, where one of them is.</summary>
    private void ShowConditions(LaneOwner changed)
    {
        var open = circuits
            .Values.Where(c => c.Owner.App == changed.App && c.Owner.Platform == changed.Platform)
            .Select(c => (c.Owner.Lane, c.Opening))
            .Where(c => c.Opening is not null)
            .OrderBy(c => c.Lane.Id, StringComparer.Ordinal)
            .ToLookup(c => c.Opening!.Fault == Fault.Credentials, c => (c.Lane, c.Opening!.Code));
        var subject = $"{changed.App}/{changed.Platform}";
        Show(ConditionKind.TokensRefused, open[true]);
        Show(ConditionKind.CircuitOpen, open[false]);

        void Show(ConditionKind kind, IEnumerable<(Lane Lane, string Code)> lanes)
        {
            var details = lanes.Select(lane => Describe(changed.Platform, lane.Lane, lane.Code)).ToList();
            if (details.Count == 0)
            {
                conditions.Clear(kind, subject);
            }
            else
            {
                conditions.Raise(kind, subject, string.Join("; ", details));
            }
        }
    }

    private string Describe(string platform, Lane lane, string code) =>
        networks.TryGet(platform, out var network) && network.Cure(code) is { } cure ? $"{lane}: {code} ({cure})" : $"{lane}: {code}";

    private IEnumerable<Measurement<int>> OpenByNetwork()
    {
        var open = circuits.Values.Where(c => c.Opening is not null).ToLookup(c => (c.Owner.App, c.Owner.Platform));
        return networks.Reachable.Select(of => new Measurement<int>(open[of].Count(), new("app", of.App), new("platform", of.Platform)));
    }
}
