using System.Diagnostics.Metrics;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using PushRelay.Outbox;
using PushRelay.Providers;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>An app that does not send at present, as all nodes see it.</summary>
internal sealed class Circuit
{
    public required string App { get; init; }

    public required string Platform { get; init; }

    public required string Reason { get; set; }

    public required DateTimeOffset OpenedAt { get; init; }

    /// <summary>Whoever moves this on may send one delivery to try.</summary>
    public required DateTimeOffset ProbeAt { get; set; }

    /// <summary>Between this probe and the next.</summary>
    public required int DelayMs { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<Circuit>
    {
        public void Configure(EntityTypeBuilder<Circuit> builder)
        {
            builder.ToTable("circuits");
            builder.HasKey(c => new { c.App, c.Platform });
        }
    }
}

/// <summary>
/// How much each app may send. An app whose credentials are refused, or whose push network is away, opens its circuit: its deliveries
/// wait as they are, one is tried after each delay, and once that succeeds the flow comes back by and by. Apps do not hold each other
/// up: half of <c>Dispatch:Concurrency</c> is divided among them, the other half is for whoever needs it. Nodes share the open circuits
/// through the database, so that an outage sees one probe at a time.
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

    private readonly Dictionary<string, AppState> apps;
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
        IOptions<AppsOptions> settings, IOptions<DispatchOptions> dispatch, IDbContextFactory<RelayDb> databases, OutboxQueue outbox, DatabaseClock clock,
        TimeProvider timers, IMeterFactory meters, ILogger<AppCircuits> logger)
    {
        (this.databases, this.outbox, this.clock, this.timers, this.logger) = (databases, outbox, clock, timers, logger);
        concurrency = dispatch.Value.Concurrency;
        // rows of an app that is not configured any more wait for it to be, until they expire
        apps = settings.Value.Apps.ToDictionary(a => a.Id, a => new AppState(a.Id, concurrency), StringComparer.Ordinal);
        share = apps.Count > 1 ? Math.Max(1, concurrency / 2 / apps.Count) : concurrency;
        queue = apps.Count > 1 ? 0 : QueueFactor * concurrency;
        meters.Create("PushRelay").CreateObservableGauge(
            "pushrelay_provider_circuit_open", () => Each(app => new Measurement<int>(app.Open is null ? 0 : 1, new("app", app.Id), new("platform", ApnsProvider.Platform))),
            description: "1: deliveries of this app wait, because its credentials are refused or its push network is away");
    }

    private enum Wish
    {
        None,
        Open,
        Close,
    }

    private sealed class AppState(string id, int limit)
    {
        public string Id { get; } = id;

        public int InFlight { get; set; }

        /// <summary>Grows back after a circuit closed.</summary>
        public int Limit { get; set; } = limit;

        public int Failures { get; set; }

        public OpenCircuit? Open { get; set; }

        public long OpenedAt { get; set; }

        /// <summary>This node may send one.</summary>
        public bool MayProbe { get; set; }

        /// <summary>What the database does not know yet.</summary>
        public Wish Wish { get; set; }

        public long TokensSince { get; set; }

        public int Tokens { get; set; }

        public int TokensRefused { get; set; }

        /// <summary>So many tokens were refused that none is believed to be dead, until one is accepted.</summary>
        public bool TokensDoubted { get; set; }
    }

    private sealed record OpenCircuit(string Reason, TimeSpan Delay, TimeSpan DelayMax);

    /// <summary>Apps that may send now, and how many alerts each. A few places that became free are not worth a claim while the others are busy.</summary>
    public Dictionary<string, int> Rooms()
    {
        lock (sync)
        {
            // more than an insert may take: what waits has its turn also while new rows fill every place
            return apps.Values.Select(a => (App: a, Room: Room(a) + (HasQueue(a) ? queue + Math.Max(1, share / 4) : 0)))
                .Where(a => a.Room > 0 && (a.App.InFlight == 0 || a.Room >= Math.Min(share, a.App.Limit) / WorthClaiming))
                .ToDictionary(a => a.App.Id, a => a.Room, StringComparer.Ordinal);
        }
    }

    /// <summary>Takes a place for one alert of this app, if there is one; <see cref="Leave"/> gives it back.</summary>
    public bool TryEnter(string app)
    {
        lock (sync)
        {
            if (!apps.TryGetValue(app, out var state) || Room(state) + (HasQueue(state) ? queue : 0) <= 0)
            {
                return false;
            }

            Enter(state);
            return true;
        }
    }

    /// <summary>Takes places for claimed alerts, whose rooms <see cref="Rooms"/> gave.</summary>
    public void Enter(IEnumerable<string> claimed)
    {
        lock (sync)
        {
            foreach (var app in claimed)
            {
                Enter(apps[app]);
            }
        }
    }

    public void Leave(string app)
    {
        lock (sync)
        {
            apps[app].InFlight--;
            inFlight--;
        }
    }

    /// <summary>The app's circuit opened after this alert was claimed: it waits with the others.</summary>
    public bool IsShut(ClaimedAlert alert)
    {
        lock (sync)
        {
            return apps.TryGetValue(alert.Head.App!, out var app) && app.Open is not null && alert.ClaimedAt <= app.OpenedAt;
        }
    }

    public int InFlight => Volatile.Read(ref inFlight);

    /// <summary>
    /// Learns from an answer. A token refused among too many is not believed: the answer becomes a misconfiguration, and the device stays.
    /// </summary>
    public PushAnswer Observe(string app, PushAnswer answer)
    {
        lock (sync)
        {
            if (!apps.TryGetValue(app, out var state))
            {
                return answer;
            }

            if (IsDoubted(state, answer))
            {
                answer = answer with { Outcome = PushOutcome.Misconfigured };
            }

            switch (answer)
            {
                case { Outcome: PushOutcome.Misconfigured }:
                    Fail(state, answer.Reason ?? "misconfigured", MisconfiguredDelay, MisconfiguredDelayMax);
                    break;
                case { Outcome: PushOutcome.Unknown } or { Outcome: PushOutcome.Deferred, Status: null or 503 } or { Outcome: PushOutcome.Deferred, Reason: "TooManyProviderTokenUpdates" }:
                    if (++state.Failures >= FailuresMax || state.Open is not null)
                    {
                        Fail(state, answer.Reason ?? "unreachable", answer.RetryAfter > OutageDelay ? answer.RetryAfter.Value : OutageDelay, OutageDelayMax);
                    }

                    break;
                default:
                    Succeed(state);
                    break;
            }

            return answer;
        }
    }

    /// <summary>Shares what this node learned, and learns what others did. Asks for the next probe of each open circuit.</summary>
    public async Task ShareAsync(CancellationToken cancellationToken)
    {
        if (sharedAt is { } last && timers.GetElapsedTime(last) < ShareEvery && Each(a => a.Wish).TrueForAll(wish => wish == Wish.None))
        {
            return;
        }

        sharedAt = timers.GetTimestamp();
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var rows = await db.Set<Circuit>().AsNoTracking().Where(c => c.Platform == ApnsProvider.Platform).ToListAsync(cancellationToken);
        if (rows.Count == 0 && !Each(a => a).Any(a => a.Open is not null || a.Wish != Wish.None))
        {
            return;
        }

        var now = await clock.NowAsync(db, cancellationToken);
        foreach (var app in apps.Values)
        {
            var row = rows.Find(r => r.App == app.Id);
            var (wish, open) = Look(app);
            if (wish == Wish.Open && row is null && open is not null)
            {
                row = new Circuit
                {
                    App = app.Id,
                    Platform = ApnsProvider.Platform,
                    Reason = open.Reason,
                    OpenedAt = now,
                    ProbeAt = now + open.Delay,
                    DelayMs = (int)open.Delay.TotalMilliseconds,
                };
                db.Add(row);
                await TrySaveAsync(db, cancellationToken);
            }
            else if (wish == Wish.Close && row is not null)
            {
                await db.Set<Circuit>().Where(c => c.App == app.Id && c.Platform == ApnsProvider.Platform).ExecuteDeleteAsync(cancellationToken);
                row = null;
            }

            Done(app, wish);
            if (Follow(app, row) && row!.ProbeAt <= now)
            {
                await AskForProbeAsync(db, app, row, now, cancellationToken);
            }
        }
    }

    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var open = Each(a => a).Where(a => a.Open is not null).Select(a => $"{a.Id}: {a.Open!.Reason}").ToList();
        return Task.FromResult(open.Count == 0
            ? HealthCheckResult.Healthy("every app may send")
            : HealthCheckResult.Degraded($"deliveries wait, nothing is lost; APNs answers {string.Join("; ", open)}"));
    }

    private static async Task TrySaveAsync(RelayDb db, CancellationToken cancellationToken)
    {
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException exception) when (!DatabaseOutage.Is(exception))
        {
            // another node said so first
        }

        db.ChangeTracker.Clear();
    }

    private async Task AskForProbeAsync(RelayDb db, AppState app, Circuit row, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var max = row.DelayMs > OutageDelayMax.TotalMilliseconds ? MisconfiguredDelayMax : app.Open?.DelayMax ?? OutageDelayMax;
        var delay = (int)Math.Min(row.DelayMs * 2L, max.TotalMilliseconds);
        var next = now + TimeSpan.FromMilliseconds(row.DelayMs);
        var mine = await db.Set<Circuit>().Where(c => c.App == row.App && c.Platform == row.Platform && c.ProbeAt <= now)
            .ExecuteUpdateAsync(set => set.SetProperty(c => c.ProbeAt, next).SetProperty(c => c.DelayMs, delay), cancellationToken);
        if (mine > 0)
        {
            lock (sync)
            {
                app.MayProbe = true;
            }
        }
    }

    private (Wish Wish, OpenCircuit? Open) Look(AppState app)
    {
        lock (sync)
        {
            return (app.Wish, app.Open);
        }
    }

    /// <summary>The database knows it now; where it was away the wish stays.</summary>
    private void Done(AppState app, Wish wish)
    {
        lock (sync)
        {
            app.Wish = app.Wish == wish ? Wish.None : app.Wish;
        }
    }

    /// <returns>Whether the circuit is open.</returns>
    private bool Follow(AppState app, Circuit? row)
    {
        lock (sync)
        {
            if (row is null)
            {
                if (app.Open is not null && app.Wish == Wish.None)
                {
                    Close(app);
                }
            }
            else if (app.Open is null && app.Wish == Wish.None)
            {
                app.Open = new OpenCircuit(row.Reason, TimeSpan.FromMilliseconds(row.DelayMs), row.DelayMs > OutageDelayMax.TotalMilliseconds ? MisconfiguredDelayMax : OutageDelayMax);
                (app.MayProbe, app.OpenedAt) = (false, timers.GetTimestamp());
                Opened(app.Id, row.Reason);
            }

            return row is not null && app.Open is not null;
        }
    }

    private int Room(AppState app)
    {
        if (app.Open is not null)
        {
            return app.MayProbe && app.InFlight == 0 ? 1 : 0;
        }

        var sharedUsed = apps.Values.Sum(a => Math.Max(0, a.InFlight - share));
        var room = Math.Max(0, share - app.InFlight) + Math.Max(0, concurrency - (share * apps.Count) - sharedUsed);
        return Math.Min(apps.Count > 1 ? room : concurrency - app.InFlight, app.Limit - app.InFlight);
    }

    /// <summary>Alerts that wait here for their request: not of an app that is being tried, or has just come back.</summary>
    private bool HasQueue(AppState app) => app.Open is null && app.Limit == concurrency;

    private void Enter(AppState app)
    {
        app.InFlight++;
        inFlight++;
        app.MayProbe = false;
    }

    private bool IsDoubted(AppState app, PushAnswer answer)
    {
        if (app.Tokens == 0 || timers.GetElapsedTime(app.TokensSince) > TokenWindow)
        {
            (app.TokensSince, app.Tokens, app.TokensRefused) = (timers.GetTimestamp(), 0, 0);
        }

        // a 410 names the time a token died: nobody's mistake
        var refused = answer is { Outcome: PushOutcome.DeviceInvalid, Status: 400 };
        if (refused || answer.Outcome == PushOutcome.Accepted)
        {
            app.Tokens++;
            app.TokensRefused += refused ? 1 : 0;
            app.TokensDoubted = refused && (app.TokensDoubted || (app.TokensRefused > RefusedTokensMax && app.TokensRefused * 100 > app.Tokens * RefusedTokensPercent));
        }

        return refused && app.TokensDoubted;
    }

    private void Fail(AppState app, string reason, TimeSpan delay, TimeSpan delayMax)
    {
        if (app.Open is null)
        {
            app.Open = new OpenCircuit(reason, delay, delayMax);
            app.OpenedAt = timers.GetTimestamp();
            app.Wish = Wish.Open;
            Opened(app.Id, reason);
            outbox.Wake();
        }
    }

    private void Succeed(AppState app)
    {
        app.Failures = 0;
        if (app.Open is not null)
        {
            Close(app);
            app.Wish = Wish.Close;
            outbox.Wake();
        }
        else if (app.Limit < concurrency)
        {
            app.Limit++;
        }
    }

    private void Close(AppState app)
    {
        (app.Open, app.MayProbe, app.Failures, app.Limit) = (null, false, 0, RampStart);
        Closed(app.Id);
    }

    private List<T> Each<T>(Func<AppState, T> value)
    {
        lock (sync)
        {
            return [.. apps.Values.Select(value)];
        }
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "Deliveries of app {App} wait: APNs answers {Reason}. One is tried from time to time; for a refusal check key, team, bundle id and environment in setting Apps")]
    private partial void Opened(string app, string reason);

    [LoggerMessage(Level = LogLevel.Information, Message = "App {App} sends again")]
    private partial void Closed(string app);
}
