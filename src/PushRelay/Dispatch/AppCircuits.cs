using System.Diagnostics.Metrics;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using PushRelay.Apps;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// How much each app may send. A lane (an app in one environment of its push network) whose credentials are refused, or whose push network
/// is
/// away, opens its circuit: its deliveries wait as they are, one is tried after each delay, and once that succeeds the flow comes back by
/// and
/// by. Apps do not hold each other up: half of <c>Dispatch:Concurrency</c> is divided among them, the other half is for whoever needs it.
/// Nodes share the open circuits through the database, so that an outage sees one probe at a time.
/// </summary>
internal sealed partial class AppCircuits : IHealthCheck
{
    /// <summary>Outages in a row, without an answer in between, before the circuit opens.</summary>
    public const int FailuresMax = 5;

    /// <summary>Refused tokens within <see cref="TokenWindow"/> that make the tokens look right and the setting wrong.</summary>
    public const int RefusedTokensMax = 20;

    private const int RampStart = 8;
    private const int QueueFactor = 2;
    private const int WorthClaiming = 8;
    private const int RefusedTokensPercent = 20;
    private static readonly TimeSpan ShareEvery = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan TokenWindow = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan OutageDelay = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan OutageDelayMax = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan MisconfiguredDelay = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan MisconfiguredDelayMax = TimeSpan.FromMinutes(5);

    private readonly List<AppState> apps;
    private readonly Dictionary<Lane, LaneState> lanes;
    private readonly IDbContextFactory<RelayDb> databases;
    private readonly OutboxQueue outbox;
    private readonly DatabaseClock clock;
    private readonly TimeProvider timers;
    private readonly ILogger<AppCircuits> logger;
    private readonly Lock sync = new();
    private readonly int concurrency;
    private readonly int share;

    // one app has nobody to hold up: what waits for its turn here need not be written and read as waiting
    private readonly int queue;
    private int inFlight;
    private long? sharedAt;

    public AppCircuits(
        AppCatalog catalog,
        IOptions<DispatchOptions> dispatch,
        IDbContextFactory<RelayDb> databases,
        OutboxQueue outbox,
        DatabaseClock clock,
        TimeProvider timers,
        IMeterFactory meters,
        ILogger<AppCircuits> logger
    )
    {
        (this.databases, this.outbox, this.clock, this.timers, this.logger) = (databases, outbox, clock, timers, logger);
        concurrency = dispatch.Value.Concurrency;
        // rows of an app that is not configured any more wait for it to be, until they expire
        apps = [.. catalog.Apps.Select(a => new AppState(a.Id))];
        lanes = apps.SelectMany(NewLanes).ToDictionary(l => l.Name);
        share = apps.Count > 1 ? Math.Max(1, concurrency / 2 / apps.Count) : concurrency;
        queue = apps.Count > 1 ? 0 : QueueFactor * concurrency;
        meters
            .Create("PushRelay")
            .CreateObservableGauge(
                "pushrelay_provider_circuit_open",
                () =>
                    Each(lane => (App: lane.App.Id, Open: lane.Open is not null))
                        .GroupBy(l => l.App, l => l.Open)
                        .Select(app => new Measurement<int>(
                            app.Any(open => open) ? 1 : 0,
                            new("app", app.Key),
                            new("platform", ApnsNetwork.Platform)
                        )),
                description: "1: deliveries of this app wait, because its credentials are refused or its push network is away"
            );
    }

    public int InFlight => Volatile.Read(ref inFlight);

    private enum Wish
    {
        None,
        Open,
        Close,
    }

    private sealed class AppState(string id)
    {
        public string Id { get; } = id;

        public int InFlight { get; set; }
    }

    private sealed class LaneState(Lane name, AppState app, int limit)
    {
        public Lane Name { get; } = name;

        public AppState App { get; } = app;

        public int InFlight { get; set; }

        /// <summary>Grows back after a circuit closed.</summary>
        public int Limit { get; set; } = limit;

        public int Failures { get; set; }

        public OpenCircuit? Open { get; set; }

        public long OpenedAt { get; set; }

        /// <summary>This node may send one.</summary>
        public bool MayProbe { get; set; }

        /// <summary>It is under way, and the push network has not been asked yet.</summary>
        public bool Probing { get; set; }

        /// <summary>What the database does not know yet.</summary>
        public Wish Wish { get; set; }

        public long TokensSince { get; set; }

        public int Tokens { get; set; }

        public int TokensRefused { get; set; }

        /// <summary>So many tokens were refused that none is believed to be dead, until one is accepted.</summary>
        public bool TokensDoubted { get; set; }
    }

    /// <summary>
    /// Lanes that may send now, and how many alerts each: both of an app the same places, so that at most as many again wait their turn. A
    /// few
    /// places that became free are not worth a claim while the others are busy.
    /// </summary>
    public Dictionary<Lane, int> Rooms()
    {
        lock (sync)
        {
            // more than an insert may take: what waits has its turn also while new rows fill every place
            return lanes
                .Values.Select(l => (Lane: l, Room: Room(l) + (HasQueue(l) ? queue + Math.Max(1, share / 4) : 0)))
                .Where(l =>
                    l.Room > 0
                    && (l.Lane.Open is not null || l.Lane.App.InFlight == 0 || l.Room >= Math.Min(share, l.Lane.Limit) / WorthClaiming)
                )
                .ToDictionary(l => l.Lane.Name, l => l.Room);
        }
    }

    /// <summary>Takes a place for one alert of this lane, if there is one; <see cref="Leave"/> gives it back.</summary>
    public bool TryEnter(Lane name)
    {
        lock (sync)
        {
            if (!lanes.TryGetValue(name, out var lane) || Room(lane) + (HasQueue(lane) ? queue : 0) <= 0)
            {
                return false;
            }

            Enter(lane);
            return true;
        }
    }

    /// <summary>Takes places for claimed alerts, whose rooms <see cref="Rooms"/> gave.</summary>
    public void Enter(IEnumerable<Lane> claimed)
    {
        lock (sync)
        {
            foreach (var name in claimed)
            {
                Enter(lanes[name]);
            }
        }
    }

    public void Leave(Lane name)
    {
        lock (sync)
        {
            var lane = lanes[name];
            lane.InFlight--;
            lane.App.InFlight--;
            inFlight--;
            if (lane.InFlight == 0 && lane.Probing)
            {
                // its device is gone, or a stop met it: nothing was learned, the next may try
                (lane.Probing, lane.MayProbe) = (false, lane.Open is not null);
            }
        }
    }

    /// <summary>The lane's circuit opened after this alert was claimed: it waits with the others.</summary>
    public bool IsShut(ClaimedAlert alert)
    {
        lock (sync)
        {
            return lanes.TryGetValue(alert.Head.Lane!.Value, out var lane) && lane.Open is not null && alert.ClaimedAt <= lane.OpenedAt;
        }
    }

    /// <summary>
    /// Learns from an answer. A token refused among too many is not believed: the answer becomes a misconfiguration, and the device stays.
    /// </summary>
    public PushAnswer Observe(Lane name, PushAnswer answer)
    {
        lock (sync)
        {
            if (!lanes.TryGetValue(name, out var lane))
            {
                return answer;
            }

            lane.Probing = false;
            if (IsDoubted(lane, answer))
            {
                answer = answer with { Outcome = PushOutcome.Misconfigured };
            }

            switch (answer)
            {
                case { Outcome: PushOutcome.Misconfigured }:
                    Fail(lane, answer.Reason ?? "misconfigured", MisconfiguredDelay, MisconfiguredDelayMax);
                    break;
                case { Outcome: PushOutcome.Unknown }
                or { Outcome: PushOutcome.Deferred, Status: null or 503 }
                or { Outcome: PushOutcome.Deferred, Reason: "TooManyProviderTokenUpdates" }:
                    if (++lane.Failures >= FailuresMax || lane.Open is not null)
                    {
                        Fail(
                            lane,
                            answer.Reason ?? "unreachable",
                            answer.RetryAfter > OutageDelay ? answer.RetryAfter.Value : OutageDelay,
                            OutageDelayMax
                        );
                    }

                    break;
                default:
                    Succeed(lane);
                    break;
            }

            return answer;
        }
    }

    /// <summary>Shares what this node learned, and learns what others did. Asks for the next probe of each open circuit.</summary>
    public async Task ShareAsync(CancellationToken cancellationToken)
    {
        if (sharedAt is { } last && timers.GetElapsedTime(last) < ShareEvery && Each(l => l.Wish).TrueForAll(wish => wish == Wish.None))
        {
            return;
        }

        sharedAt = timers.GetTimestamp();
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var circuits = await Circuit.AllAsync(db, cancellationToken);
        if (circuits.Count == 0 && !Each(l => l).Any(l => l.Open is not null || l.Wish != Wish.None))
        {
            return;
        }

        var now = await clock.NowAsync(db, cancellationToken);
        foreach (var lane in lanes.Values)
        {
            var circuit = circuits.Find(c => c.Lane == lane.Name);
            var (wish, open) = Look(lane);
            if (wish == Wish.Open && circuit is null && open is not null)
            {
                circuit = await Circuit.OpenAsync(db, lane.Name, lane.App.Id, ApnsNetwork.Platform, open, now, cancellationToken);
            }
            else if (wish == Wish.Close && circuit is not null)
            {
                await Circuit.CloseAsync(db, lane.Name, cancellationToken);
                circuit = null;
            }

            Done(lane, wish);
            if (Follow(lane, circuit) && circuit!.ProbeAt <= now && await circuit.TryTakeProbeAsync(db, now, cancellationToken))
            {
                lock (sync)
                {
                    lane.MayProbe = true;
                }
            }
        }
    }

    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var open = Each(l => l).Where(l => l.Open is not null).Select(l => $"{l.Name}: {l.Open!.Reason}").ToList();
        return Task.FromResult(
            open.Count == 0
                ? HealthCheckResult.Healthy("every app may send")
                : HealthCheckResult.Degraded($"deliveries wait, nothing is lost; APNs answers {string.Join("; ", open)}")
        );
    }

    private IEnumerable<LaneState> NewLanes(AppState app) =>
        [
            new LaneState(ApnsNetwork.LaneOf(app.Id, sandbox: false), app, concurrency),
            new LaneState(ApnsNetwork.LaneOf(app.Id, sandbox: true), app, concurrency),
        ];

    private (Wish Wish, OpenCircuit? Open) Look(LaneState lane)
    {
        lock (sync)
        {
            return (lane.Wish, lane.Open);
        }
    }

    /// <summary>The database knows it now; where it was away the wish stays.</summary>
    private void Done(LaneState lane, Wish wish)
    {
        lock (sync)
        {
            lane.Wish = lane.Wish == wish ? Wish.None : lane.Wish;
        }
    }

    /// <returns>Whether the circuit is open.</returns>
    private bool Follow(LaneState lane, Circuit? circuit)
    {
        lock (sync)
        {
            if (circuit is null)
            {
                if (lane.Open is not null && lane.Wish == Wish.None)
                {
                    Close(lane);
                }
            }
            else if (lane.Open is null && lane.Wish == Wish.None)
            {
                lane.Open = new OpenCircuit(
                    circuit.Reason,
                    TimeSpan.FromMilliseconds(circuit.DelayMs),
                    TimeSpan.FromMilliseconds(circuit.DelayMaxMs)
                );
                (lane.MayProbe, lane.OpenedAt) = (false, timers.GetTimestamp());
                Opened(lane.Name, circuit.Reason);
            }

            return circuit is not null && lane.Open is not null;
        }
    }

    private int Room(LaneState lane)
    {
        if (lane.Open is not null)
        {
            return lane.MayProbe && lane.InFlight == 0 ? 1 : 0;
        }

        var sharedUsed = apps.Sum(a => Math.Max(0, a.InFlight - share));
        var room = Math.Max(0, share - lane.App.InFlight) + Math.Max(0, concurrency - (share * apps.Count) - sharedUsed);
        return Math.Min(apps.Count > 1 ? room : concurrency - lane.App.InFlight, lane.Limit - lane.InFlight);
    }

    /// <summary>Alerts that wait here for their request: not of a lane that is being tried, or has just come back.</summary>
    private bool HasQueue(LaneState lane) => lane.Open is null && lane.Limit == concurrency;

    private void Enter(LaneState lane)
    {
        lane.InFlight++;
        lane.App.InFlight++;
        inFlight++;
        (lane.MayProbe, lane.Probing) = (false, lane.Open is not null);
    }

    private bool IsDoubted(LaneState lane, PushAnswer answer)
    {
        if (lane.Tokens == 0 || timers.GetElapsedTime(lane.TokensSince) > TokenWindow)
        {
            (lane.TokensSince, lane.Tokens, lane.TokensRefused) = (timers.GetTimestamp(), 0, 0);
        }

        // a 410 names the time a token died: nobody's mistake
        var refused = answer is { Outcome: PushOutcome.DeviceInvalid, Status: 400 };
        if (refused || answer.Outcome == PushOutcome.Accepted)
        {
            lane.Tokens++;
            lane.TokensRefused += refused ? 1 : 0;
            lane.TokensDoubted =
                refused
                && (
                    lane.TokensDoubted
                    || (lane.TokensRefused > RefusedTokensMax && lane.TokensRefused * 100 > lane.Tokens * RefusedTokensPercent)
                );
        }

        return refused && lane.TokensDoubted;
    }

    private void Fail(LaneState lane, string reason, TimeSpan delay, TimeSpan delayMax)
    {
        if (lane.Open is null)
        {
            lane.Open = new OpenCircuit(reason, delay, delayMax);
            lane.OpenedAt = timers.GetTimestamp();
            lane.Wish = Wish.Open;
            Opened(lane.Name, reason);
            outbox.Wake();
        }
    }

    private void Succeed(LaneState lane)
    {
        lane.Failures = 0;
        if (lane.Open is not null)
        {
            Close(lane);
            lane.Wish = Wish.Close;
            outbox.Wake();
        }
        else if (lane.Limit < concurrency)
        {
            lane.Limit++;
        }
    }

    private void Close(LaneState lane)
    {
        (lane.Open, lane.MayProbe, lane.Probing, lane.Failures, lane.Limit) = (null, false, false, 0, RampStart);
        Closed(lane.Name);
    }

    private List<T> Each<T>(Func<LaneState, T> value)
    {
        lock (sync)
        {
            return [.. lanes.Values.Select(value)];
        }
    }

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "Deliveries of app {App} wait: APNs answers {Reason}. One is tried from time to time; for a refusal check key, team, "
            + "bundle id and environment in setting Apps"
    )]
    private partial void Opened(Lane app, string reason);

    [LoggerMessage(Level = LogLevel.Information, Message = "App {App} sends again")]
    private partial void Closed(Lane app);
}
