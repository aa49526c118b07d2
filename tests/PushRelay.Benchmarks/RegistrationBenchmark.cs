using System.Diagnostics;
using System.Globalization;
using PushRelay.Rig;

namespace PushRelay.Benchmarks;

/// <summary>
/// Registrations over HTTP from many connections at once, while events go through: how fast, how late, whether any is refused or lost, and
/// what the events feel of it. A paced run measures each registration from the instant at which it was due, so that a late one is not
/// hidden
/// by the client waiting; with <c>--rate max</c> each connection sends its next as soon as it has its answer.
/// </summary>
internal sealed class RegistrationBenchmark : IAsyncDisposable
{
    public const string Usage = "[--database sqlite|postgresql] [--registrations 50000] [--connections 500] [--rate N|max] [--events 200]";

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);

    private readonly Dictionary<string, string> options = new(StringComparer.Ordinal)
    {
        ["--database"] = "sqlite",
        ["--registrations"] = "50000",
        ["--connections"] = "500",
        ["--rate"] = "1000",
        ["--events"] = "200",
    };

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-registrations-").FullName;
    private readonly CancellationTokenSource stop = new();
    private SimulatorProcess simulator = null!;
    private PostgreSqlCluster? cluster;
    private BridgePeer peer = null!;
    private RelayNode node = null!;
    private LedgerReader ledger = null!;

    private int Registrations => Number("--registrations");

    private int Connections => Number("--connections");

    /// <summary>A second; null: as fast as they are taken.</summary>
    private double? Rate => options["--rate"] == "max" ? null : Number("--rate");

    private int EventRate => Number("--events");

    /// <returns>0: every registration was taken and is there, and every event was accepted. 1: else. 2: wrong usage.</returns>
    public static async Task<int> RunAsync(string[] args)
    {
        await using var run = new RegistrationBenchmark();
        foreach (var pair in args.Chunk(2))
        {
            if (pair is not [var name, var value] || !run.options.ContainsKey(name))
            {
                await Console.Error.WriteLineAsync($"usage: registrations {Usage}");
                return 2;
            }

            run.options[name] = value;
        }

        Console.CancelKeyPress += (_, press) =>
        {
            press.Cancel = true;
            run.stop.Cancel();
        };
        return await run.RunAsync() ? 0 : 1;
    }

    public async ValueTask DisposeAsync()
    {
        await (node?.DisposeAsync() ?? ValueTask.CompletedTask);
        await (peer?.DisposeAsync() ?? ValueTask.CompletedTask);
        await (simulator?.DisposeAsync() ?? ValueTask.CompletedTask);
        await (cluster?.DisposeAsync() ?? ValueTask.CompletedTask);
        Directory.Delete(folder, recursive: true);
        stop.Dispose();
    }

    private async Task<bool> RunAsync()
    {
        const int EventDevices = 1000;
        Say($"{Registrations} registrations over {Connections} connections, rate {options["--rate"]}/s, beside {EventRate} events/s");
        Say($"database: {options["--database"]}");
        simulator = await SimulatorProcess.StartAsync(folder, TimeSpan.FromMilliseconds(1), stop.Token);
        string? database = null;
        if (options["--database"] == "postgresql")
        {
            cluster = await PostgreSqlCluster.StartAsync([], stop.Token);
            database = cluster.ConnectionString(await cluster.NewDatabaseAsync(stop.Token));
        }

        ledger = new LedgerReader(database, folder);
        peer = new BridgePeer(number => new RehearsedEvent(number % EventDevices, number / EventDevices), 1);
        node = new RelayNode(folder, "node");
        await node.StartAsync(RelayNode.Settings(peer.Port, simulator.Endpoint, database), stop.Token);
        await node.ReadyAsync(stop.Token);
        await node.RegisterAsync(0, EventDevices, stop.Token);

        await EventsAsync(EventRate * 5);
        var idle = await EventsAsync(EventRate * 15);
        var client = new RegistrationClient(node.Client.BaseAddress!, Connections);
        await client.ConnectAsync(stop.Token);
        // what is compiled at its first use is not what a relay costs
        await client.RunAsync(EventDevices, Math.Min(5000, Registrations), Rate, stop.Token);
        var first = EventDevices + Math.Min(5000, Registrations);

        var (cpu, databaseCpu, ownCpu, started) = (
            node.CpuSeconds,
            DatabaseCpu(),
            ProcessFigures.CpuSeconds(Environment.ProcessId),
            Stopwatch.GetTimestamp()
        );
        using var registered = new CancellationTokenSource();
        var events = EventsAsync(Registrations * EventRate / (int)(Rate ?? 2000), registered.Token);
        var answers = await client.RunAsync(first, Registrations, Rate, stop.Token);
        var seconds = Stopwatch.GetElapsedTime(started).TotalSeconds;
        var (relayCpu, databaseCpuAfter, clientCpu) = (
            node.CpuSeconds - cpu,
            DatabaseCpu() - databaseCpu,
            ProcessFigures.CpuSeconds(Environment.ProcessId) - ownCpu
        );
        await registered.CancelAsync();
        var meanwhile = await events;

        var waits = answers.Select(a => a.Milliseconds).Order().ToArray();
        Say($"{Registrations / seconds:F0} registrations/s over {seconds:F1} s; p50 {waits[waits.Length / 2]:F1} ms");
        Say($"p99 {waits[(int)(waits.Length * 0.99)]:F1} ms, most {waits[^1]:F1} ms");
        Say($"CPU ms per registration, with the events: relay {relayCpu * 1000 / Registrations:F2}");
        Say($"database {databaseCpuAfter * 1000 / Registrations:F2}, client {clientCpu * 1000 / Registrations:F2}");
        Say($"load average {ProcessFigures.LoadAverage()}");
        Say($"answers: {string.Join(", ", answers.CountBy(a => a.Status).OrderBy(s => s.Key).Select(s => $"{s.Key}: {s.Value}"))}");
        Say($"event to accepted, p99: idle {idle:F1} ms, meanwhile {meanwhile:F1} ms");
        var there = Convert.ToInt64(await ledger.ScalarAsync("SELECT count(*) FROM devices", stop.Token), CultureInfo.InvariantCulture);
        var audited = Convert.ToInt64(
            await ledger.ScalarAsync("SELECT count(*) FROM audit_records WHERE action = 'device.registered'", stop.Token),
            CultureInfo.InvariantCulture
        );
        var expected = first + Registrations;
        Say($"devices there: {there} of {expected}; audit records: {audited}");
        return there == expected && audited == expected && answers.All(a => a.Status == 201);
    }

    /// <summary>Sends so many events at the pace, or fewer where <paramref name="enough"/> says so.</summary>
    /// <returns>The 99th percentile from the instant an event was due to the push network's answer, in milliseconds.</returns>
    private async Task<double> EventsAsync(int count, CancellationToken enough = default)
    {
        var (first, before) = (peer.Events, await simulator.ReceivedAsync(stop.Token));
        for (var sent = 0; sent < count && !enough.IsCancellationRequested; )
        {
            var some = Math.Min(EventRate, count - sent);
            await peer.SendAsync(some, EventRate, stop.Token);
            sent += some;
        }

        var last = peer.Events;
        await Until.TrueAsync(
            async () => await simulator.ReceivedAsync(stop.Token) >= before + last - first,
            "every alert arrived",
            Patience,
            stop.Token,
            TimeSpan.FromMilliseconds(200)
        );
        var answered = (await simulator.RecordsAsync(stop.Token))
            .Where(a => a.Status == 200)
            .DistinctBy(a => a.Event)
            .ToDictionary(a => a.Event, a => a.AnsweredTicks);
        var due = peer.DueTicks();
        var waits = Enumerable
            .Range(first, last - first)
            .Select(number => Stopwatch.GetElapsedTime(due[number], answered[number]).TotalMilliseconds)
            .Order()
            .ToArray();
        return waits[(int)(waits.Length * 0.99)];
    }

    private double DatabaseCpu() => cluster is null ? 0 : ProcessFigures.CpuSecondsOfTree(cluster.ProcessId);

    private int Number(string name) => int.Parse(options[name], NumberStyles.None, CultureInfo.InvariantCulture);

    private static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));
}
