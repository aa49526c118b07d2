using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using PushRelay.Rig;

namespace PushRelay.Benchmarks;

/// <summary>
/// The whole way with load on it: a scripted XMPP server sends bridge events over the real link, real relay processes decide, store and
/// send,
/// the simulator receives; every event is then looked up in the ledger and in the simulator's record. Run by docs/performance.md.
/// </summary>
internal sealed class RelayBenchmark : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(15);

    private readonly RelayBenchmarkOptions options;
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-load-").FullName;
    private readonly Random random;
    private readonly List<RelayNode> nodes = [];
    private readonly CancellationTokenSource stop = new();
    private SimulatorProcess simulator = null!;
    private PostgreSqlCluster? cluster;
    private BridgePeer peer = null!;
    private LedgerReader ledger = null!;
    private long inFlightAtKills;
    private double databaseCpuBefore;

    private RelayBenchmark(RelayBenchmarkOptions options)
    {
        this.options = options;
        random = new Random(options.Seed);
    }

    /// <returns>0: nothing lost, nothing doubled, no invariant broken. 1: else. 2: wrong usage.</returns>
    public static async Task<int> RunAsync(string[] args)
    {
        RelayBenchmarkOptions options;
        try
        {
            options = RelayBenchmarkOptions.Parse(args);
        }
        catch (ArgumentException exception)
        {
            await Console.Error.WriteLineAsync(exception.Message);
            return 2;
        }

        await using var run = new RelayBenchmark(options);
        Console.CancelKeyPress += (_, press) =>
        {
            press.Cancel = true;
            run.stop.Cancel();
        };
        return await run.RunAsync() ? 0 : 1;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var node in nodes)
        {
            await node.DisposeAsync();
        }

        if (peer is not null)
        {
            await peer.DisposeAsync();
        }

        if (simulator is not null)
        {
            await simulator.DisposeAsync();
        }

        if (cluster is not null)
        {
            await cluster.DisposeAsync();
        }

        if (!options.Keep)
        {
            Directory.Delete(folder, recursive: true);
        }

        stop.Dispose();
    }

    private async Task<bool> RunAsync()
    {
        var database = options.PostgreSql ? "PostgreSQL" : "SQLite";
        Say(
            $"{options.Events} events, {options.Devices} devices, {database}, {options.Nodes} node(s), seed "
                + $"{options.Seed}{(options.Keep ? $", in {folder}" : "")}"
        );
        await StartAsync();
        await PrepareAsync();
        await SendAsync("warm-up", options.Warmup, null, null);
        var before = peer.Events;
        var load = await SendAsync("load", options.Events, options.Rate, ChaosAsync);
        var steadyFrom = peer.Events;
        if (options.Steady > 0)
        {
            await SendAsync("steady", options.Steady * options.SteadySeconds, options.Steady, null);
        }

        var alerts = await simulator.RecordsAsync(stop.Token);
        Report(load, alerts, before, steadyFrom);
        var rows = await ledger.ReadAsync(stop.Token);
        var verdict = Oracle.Judge(
            peer.Events,
            number => peer[number],
            rows,
            alerts,
            new OracleTerms { RepeatedMax = inFlightAtKills, LogFiles = [.. nodes.Select(n => n.LogFile)] }
        );
        Say(verdict.ToString());
        if (options.Kills)
        {
            Say($"in flight at the kills: {inFlightAtKills}");
        }

        return verdict is { Lost: 0, Doubled: 0, Broken.Count: 0 };
    }

    private async Task StartAsync()
    {
        simulator = await SimulatorProcess.StartAsync(folder, options.Latency, stop.Token);
        string? database = null;
        if (options.PostgreSql)
        {
            cluster = await PostgreSqlCluster.StartAsync([], stop.Token);
            database = cluster.ConnectionString(await cluster.NewDatabaseAsync(stop.Token));
        }

        ledger = new LedgerReader(database, folder);
        // a device's events come from different people: conversations of their own, none merged into another's alert
        peer = new BridgePeer(number => new RehearsedEvent(number % options.Devices, number / options.Devices), options.PerStanza);
        for (var i = 0; i < options.Nodes; i++)
        {
            var node = new RelayNode(folder, string.Create(CultureInfo.InvariantCulture, $"node{i + 1}"));
            nodes.Add(node);
            await node.StartAsync(Settings(database), stop.Token);
        }

        await nodes[0].ReadyAsync(stop.Token);
    }

    private JsonObject Settings(string? database)
    {
        var settings = RelayNode.Settings(peer.Port, simulator.Endpoint, database);
        if (options.Kills)
        {
            settings["Dispatch"]!["LeaseDuration"] = "00:00:15";
        }

        foreach (var (path, value) in options.Settings)
        {
            var names = path.Split(':');
            var at = names[..^1].Aggregate(settings, (section, name) => (JsonObject)(section[name] ??= new JsonObject()));
            at[names[^1]] = value;
        }

        return settings;
    }

    private async Task PrepareAsync()
    {
        var started = Stopwatch.GetTimestamp();
        await nodes[0].RegisterAsync(0, 1, stop.Token);
        await DeviceFill.FillAsync(ledger, Path.Combine(folder, "master.key"), options.Devices, stop.Token);
        if (options.PostgreSql)
        {
            await ledger.ScalarAsync("ANALYZE", stop.Token);
        }

        Say($"{options.Devices} devices there in {Stopwatch.GetElapsedTime(started).TotalSeconds:F1} s");
        if (options.SettledRows > 0)
        {
            await SendAsync("template", 1, null, null);
            started = Stopwatch.GetTimestamp();
            await ledger.FillAsync(options.SettledRows, stop.Token);
            Say($"{options.SettledRows} settled rows added in {Stopwatch.GetElapsedTime(started).TotalSeconds:F1} s");
        }

        if (options.Faults is { } faults)
        {
            await simulator.ScriptAsync(faults, stop.Token);
        }
    }

    /// <summary>Sends so many events and waits until each has its final row.</summary>
    private async Task<Part> SendAsync(string name, int events, double? rate, Func<Part, Task>? chaos)
    {
        var part = new Part(name, peer.Events, events, await simulator.ReceivedAsync(stop.Token), Cpu(), Stopwatch.GetTimestamp());
        var sending = peer.SendAsync(events, rate, stop.Token);
        await (chaos?.Invoke(part) ?? Task.CompletedTask);
        await sending;
        part.AllSent = Stopwatch.GetTimestamp();
        await peer.AcknowledgedAsync(stop.Token);
        var acknowledged = Stopwatch.GetElapsedTime(part.Started);
        await Until.TrueAsync(
            async () => await simulator.ReceivedAsync(stop.Token) >= part.ReceivedBefore + events,
            "every alert arrived",
            Patience,
            stop.Token,
            TimeSpan.FromMilliseconds(200)
        );
        await ledger.DrainedAsync(Patience, stop.Token);
        part.CpuAfter = Cpu();
        part.Load = ProcessFigures.LoadAverage();
        var final = Stopwatch.GetElapsedTime(part.Started);
        Say($"{name}: {events} events acknowledged after {acknowledged.TotalSeconds:F1} s, all final after {final.TotalSeconds:F1} s");
        return part;
    }

    private async Task ChaosAsync(Part part)
    {
        if (options.Outage > TimeSpan.Zero)
        {
            await OutageAsync(part);
        }

        // moments by the part of the work that is done, then some milliseconds more
        var moments = Enumerable
            .Range(0, options.KillRelay)
            .Select(_ => Kill.Relay)
            .Concat(Enumerable.Repeat(Kill.Database, options.KillDatabase))
            .Concat(options.KillNode ? [Kill.Node] : [])
            .Select(kill => (Kill: kill, At: 0.02 + (random.NextDouble() * 0.9)))
            .OrderBy(m => m.At);
        foreach (var (kill, at) in moments)
        {
            await Until.TrueAsync(
                async () => await simulator.ReceivedAsync(stop.Token) - part.ReceivedBefore >= at * part.Events,
                $"{at:P0} of the alerts arrived",
                Patience,
                stop.Token
            );
            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(200)), TimeProvider.System, stop.Token);
            await KillAsync(kill);
        }
    }

    private async Task KillAsync(Kill kill)
    {
        switch (kill)
        {
            case Kill.Relay:
                await nodes[0].KillAsync();
                break;
            case Kill.Node:
                // the one with the link: what came over it is in its hands
                var holder = (string?)await ledger.ScalarAsync("SELECT holder FROM leases WHERE name LIKE 'link:%'", stop.Token) ?? "";
                await nodes.Single(n => holder.Contains($":{n.ProcessId}:", StringComparison.Ordinal)).KillAsync();
                break;
            case Kill.Database:
                databaseCpuBefore += ProcessFigures.CpuSecondsOfTree(cluster!.ProcessId);
                await cluster.KillAsync(stop.Token);
                await cluster.StartAsync(stop.Token);
                break;
        }

        var sending = await ledger.SendingRowsAsync(stop.Token);
        inFlightAtKills += sending;
        Say($"{kill} killed at {Elapsed()}; {peer.EventsAcknowledged} events acknowledged, {sending} rows in flight");
        if (kill == Kill.Relay)
        {
            await nodes[0].StartAsync(null, stop.Token);
        }
    }

    private async Task OutageAsync(Part part)
    {
        await simulator.ScriptAsync("""{"status":503,"times":1000000000}""", stop.Token);
        await Task.Delay(options.Outage, TimeProvider.System, stop.Token);
        var during = await simulator.ReceivedAsync(stop.Token) - part.ReceivedBefore;
        await simulator.ClearScriptAsync(stop.Token);
        var (healed, due) = (Stopwatch.GetTimestamp(), peer.Events - part.First);
        Say(
            $"outage of {options.Outage.TotalSeconds} s: {due} events came, {during} requests were made; open rows "
                + $"{await ledger.OpenRowsAsync(stop.Token)}"
        );
        // events go on arriving: drained is, when no row is older than a second
        await Until.TrueAsync(
            async () =>
                await simulator.ReceivedAsync(stop.Token) - part.ReceivedBefore - during >= peer.Events - part.First - options.Rate!.Value,
            "the backlog is gone",
            Patience,
            stop.Token,
            TimeSpan.FromMilliseconds(200)
        );
        Say($"backlog gone {Stopwatch.GetElapsedTime(healed).TotalSeconds:F1} s after the end of the outage");
    }

    private void Report(Part load, AlertRecord[] alerts, int loadFrom, int steadyFrom)
    {
        var answered = new Dictionary<int, long>();
        foreach (var alert in alerts.Where(a => a.Status == 200))
        {
            answered.TryAdd(alert.Event, alert.AnsweredTicks);
        }

        var due = peer.DueTicks();
        var last = Enumerable.Range(loadFrom, load.Events).Max(number => answered.GetValueOrDefault(number));
        var seconds = Stopwatch.GetElapsedTime(due[loadFrom], last).TotalSeconds;
        Say($"sustained {load.Events / seconds:F0} events/s to accepted over {seconds:F1} s; load average {load.Load}");
        var cpu = load.CpuAfter - load.CpuBefore;
        var per = 100_000.0 / load.Events;
        Say(
            $"CPU s per 100,000: relay {cpu.Relay * per:F2}, database {cpu.Database * per:F2}, simulator {cpu.Simulator * per:F2}, "
                + $"peer {cpu.Peer * per:F2}"
        );
        Say($"peak memory of the relay {nodes.Max(n => n.PeakBytes) / 1e6:F0} MB");
        if (peer.Events > steadyFrom)
        {
            var waits = Enumerable
                .Range(steadyFrom, peer.Events - steadyFrom)
                .Where(answered.ContainsKey)
                .Select(number => Stopwatch.GetElapsedTime(due[number], answered[number]).TotalMilliseconds)
                .Order()
                .ToArray();
            var (half, most) = (waits[waits.Length / 2], waits[(int)(waits.Length * 0.99)]);
            Say(
                $"event to accepted at {options.Steady}/s: p50 {half:F1} ms, p99 {most:F1} ms, most {waits[^1]:F1} ms; load average "
                    + $"{ProcessFigures.LoadAverage()}"
            );
        }
    }

    private CpuSeconds Cpu() =>
        new(
            nodes.Sum(n => n.CpuSeconds),
            databaseCpuBefore + (cluster is null ? 0 : ProcessFigures.CpuSecondsOfTree(cluster.ProcessId)),
            ProcessFigures.CpuSeconds(simulator.ProcessId),
            ProcessFigures.CpuSeconds(Environment.ProcessId)
        );

    private readonly long began = Stopwatch.GetTimestamp();

    private string Elapsed() => string.Create(CultureInfo.InvariantCulture, $"{Stopwatch.GetElapsedTime(began).TotalSeconds:F1} s");

    private static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));

    private static void Say(string text) => Console.WriteLine(text);

    private enum Kill
    {
        Relay,
        Node,
        Database,
    }

    private sealed record CpuSeconds(double Relay, double Database, double Simulator, double Peer)
    {
        public static CpuSeconds operator -(CpuSeconds after, CpuSeconds before) =>
            new(after.Relay - before.Relay, after.Database - before.Database, after.Simulator - before.Simulator, after.Peer - before.Peer);
    }

    private sealed record Part(string Name, int First, int Events, long ReceivedBefore, CpuSeconds CpuBefore, long Started)
    {
        public CpuSeconds CpuAfter { get; set; } = CpuBefore;

        public long AllSent { get; set; }

        public string Load { get; set; } = "";
    }
}
