using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;
using PushRelay.Rig;

namespace PushRelay.Interop.Faults;

/// <summary>How a bed is made.</summary>
internal sealed record FaultBedOptions
{
    /// <summary>Null: SQLite.</summary>
    public PostgreSqlCluster? Cluster { get; init; }

    /// <summary>The relay reaches the database through a proxy.</summary>
    public bool DatabaseProxy { get; init; }

    /// <summary>The relay reaches APNs through a proxy.</summary>
    public bool ApnsProxy { get; init; }

    /// <summary>Added to the connection string.</summary>
    public string Connection { get; init; } = "";

    public int Nodes { get; init; } = 1;

    public int Devices { get; init; } = 40;

    /// <summary>Null: each event is a conversation of its own, so that none is merged into another's alert.</summary>
    public Func<int, RehearsedEvent>? Plan { get; init; }

    /// <summary>Of the first node's first life, such as <c>after_claim=kill</c>.</summary>
    public string? Failpoint { get; init; }

    /// <summary>A file that says how wrong the clock of the first node is, such as <c>-2h</c>; read again at each look at the
    /// clock.</summary>
    public string? ClockFile { get; init; }

    public Action<JsonObject>? Settings { get; init; }

    public Func<ApnsSimulatorOptions, ApnsSimulatorOptions>? Simulator { get; init; }
}

/// <summary>Relays as processes, between a scripted XMPP server and the simulator; and the oracle that is asked after every
/// fault.</summary>
internal sealed class FaultBed : IAsyncDisposable
{
    /// <summary>The shortest there is: what a dead node held comes back after it.</summary>
    public static readonly TimeSpan Lease = TimeSpan.FromSeconds(15);

    /// <summary>For what must happen, however slow the machine is.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-fault-").FullName;
    private readonly FaultBedOptions options;

    private FaultBed(FaultBedOptions options)
    {
        this.options = options;
        Peer = new BridgePeer(
            options.Plan ?? (number => new RehearsedEvent(number % options.Devices, number / options.Devices)),
            perStanzaMax: 5
        );
    }

    public BridgePeer Peer { get; }

    public AlertRecorder Alerts { get; } = new(TimeSpan.Zero);

    public ApnsSimulator Simulator { get; private set; } = null!;

    public LedgerReader Ledger { get; private set; } = null!;

    public List<RelayNode> Nodes { get; } = [];

    public RelayNode Relay => Nodes[0];

    public TcpProxy? DatabaseProxy { get; private set; }

    public TcpProxy? ApnsProxy { get; private set; }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>With every node up and every device registered.</summary>
    public static async Task<FaultBed> StartAsync(FaultBedOptions options)
    {
        var bed = new FaultBed(options);
        try
        {
            await bed.StartAsync();
            return bed;
        }
        catch
        {
            await bed.DisposeAsync();
            throw;
        }
    }

    public Task SendAsync(int events, double? perSecond = null) => Peer.SendAsync(events, perSecond, Token);

    public async Task AcknowledgedAsync() => await Peer.AcknowledgedAsync(Token).WaitAsync(Patience, Token);

    /// <summary>Starts a node that ended, on the same data and without a failpoint.</summary>
    public Task RestartAsync(int node = 0) => Nodes[node].StartAsync(null, Token);

    public static Task UntilAsync(Func<Task<bool>> holds, string what) => Until.TrueAsync(holds, what, Patience, Token);

    public Task UntilAlertsAsync(int count) => UntilAsync(() => Task.FromResult(Accepted() >= count), $"{count} alerts are accepted");

    /// <summary>Alerts that the simulator took.</summary>
    public int Accepted() => Alerts.Snapshot().Count(a => a.Status == 200);

    /// <summary>Every event acknowledged, every row final, and the invariants standing.</summary>
    /// <param name="terms">Null: all accepted, none twice.</param>
    public async Task<OracleVerdict> JudgeAsync(OracleTerms? terms = null)
    {
        await AcknowledgedAsync();
        await Ledger.DrainedAsync(Patience, Token);
        var verdict = Oracle.Judge(
            Peer.Events,
            number => Peer[number],
            await Ledger.ReadAsync(Token),
            Alerts.Snapshot(),
            (terms ?? new OracleTerms()) with
            {
                LogFiles = [.. Nodes.Select(n => n.LogFile).Where(File.Exists)],
            }
        );
        Assert.True(verdict is { Lost: 0, Doubled: 0, Broken.Count: 0 }, verdict.ToString());
        return verdict;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var node in Nodes)
        {
            await node.DisposeAsync();
        }

        await Peer.DisposeAsync();
        if (Simulator is not null)
        {
            await Simulator.DisposeAsync();
        }

        if (DatabaseProxy is not null)
        {
            await DatabaseProxy.DisposeAsync();
        }

        if (ApnsProxy is not null)
        {
            await ApnsProxy.DisposeAsync();
        }

        Directory.Delete(folder, recursive: true);
    }

    private async Task StartAsync()
    {
        var pem = ApnsSimulator.CreateSigningKeyPem();
        var simulator = new ApnsSimulatorOptions
        {
            Keys = [new ApnsSimulatorKey(Rehearsal.TeamId, Rehearsal.KeyId, pem)],
            OnReceived = Alerts.Receive,
        };
        Simulator = await ApnsSimulator.StartAsync(options.Simulator?.Invoke(simulator) ?? simulator, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "key.p8"), pem, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), Simulator.CaPem, Token);
        var apns = Simulator.Endpoint;
        if (options.ApnsProxy)
        {
            ApnsProxy = new TcpProxy(apns.Port);
            apns = new UriBuilder(apns) { Port = ApnsProxy.Port }.Uri;
        }

        var (database, direct) = await DatabaseAsync();
        Ledger = new LedgerReader(direct, folder);
        for (var i = 0; i < options.Nodes; i++)
        {
            var settings = RelayNode.Settings(Peer.Port, apns, database);
            // short, so that a test need not wait for what an operator would
            settings["Dispatch"] = new JsonObject { ["MaxDelay"] = "00:00:01", ["LeaseDuration"] = Lease.ToString("c") };
            options.Settings?.Invoke(settings);
            var node = new RelayNode(folder, $"node{i + 1}");
            Nodes.Add(node);
            await node.StartAsync(settings, Token, i == 0 ? [.. Environment()] : []);
        }

        await Relay.ReadyAsync(Token);
        await Relay.RegisterAsync(0, options.Devices, Token);
    }

    private IEnumerable<(string Name, string Value)> Environment()
    {
        if (options.Failpoint is { } failpoint)
        {
            yield return ("PUSHRELAY_FAILPOINT", failpoint);
        }

        if (options.ClockFile is { } file)
        {
            // of the package libfaketime; the monotonic clock, by which waits are measured, goes on as no step of the other can change it
            yield return ("LD_PRELOAD", Directory.EnumerateFiles("/usr/lib", "libfaketimeMT.so.1", SearchOption.AllDirectories).First());
            yield return ("FAKETIME_TIMESTAMP_FILE", file);
            yield return ("FAKETIME_NO_CACHE", "1");
            yield return ("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
    }

    private async Task<(string? Database, string? Direct)> DatabaseAsync()
    {
        if (options.Cluster is not { } cluster)
        {
            return (null, null);
        }

        var name = await cluster.NewDatabaseAsync(Token);
        if (options.DatabaseProxy)
        {
            DatabaseProxy = new TcpProxy(cluster.Port);
        }

        return (cluster.ConnectionString(name, DatabaseProxy?.Port) + options.Connection, cluster.ConnectionString(name));
    }
}

/// <summary>One PostgreSQL for the fault tests, started by the first that asks; tests that kill it start it again.</summary>
public sealed class FaultDatabase : IAsyncLifetime
{
    private PostgreSqlCluster? cluster;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (cluster is not null)
        {
            await cluster.DisposeAsync();
        }
    }

    internal async Task<PostgreSqlCluster> GetAsync() =>
        cluster ??= await PostgreSqlCluster.StartAsync([], TestContext.Current.CancellationToken);
}

/// <summary>One after the other, and beside nothing else: they measure times.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class FaultTestGroup : ICollectionFixture<FaultDatabase>
{
    public const string Name = "faults";

    /// <summary>Trait <c>pace</c> of what <c>./test.sh</c> leaves to <c>./test.sh --faults</c>.</summary>
    public const string Pace = "pace";
    public const string Slow = "slow";
}
