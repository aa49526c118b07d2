using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using PushRelay.Rig;

namespace PushRelay.Benchmarks;

/// <summary>
/// A server without our module that publishes (XEP-0357) over one link at an even rate: how long each answer takes, and whether every
/// publish is in the ledger and at the simulator. Run by docs/performance.md.
/// </summary>
internal sealed partial class PublishBenchmark : IAsyncDisposable
{
    public const string Usage = "[--publishes 30000] [--rate 2000] [--devices 1000] [--database sqlite|postgresql] [--empty]";

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-publishes-").FullName;
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly List<long> waited = [];
    private readonly long[] sentAt;
    private readonly int publishes;
    private readonly int rate;
    private readonly int devices;
    private readonly bool postgreSql;
    private readonly bool empty;
    private int refused;

    private PublishBenchmark(string[] args)
    {
        int Of(string name, int otherwise) =>
            Array.IndexOf(args, name) is >= 0 and var at ? int.Parse(args[at + 1], CultureInfo.InvariantCulture) : otherwise;
        (publishes, rate, devices) = (Of("--publishes", 30_000), Of("--rate", 2_000), Of("--devices", 1_000));
        (postgreSql, empty) = (!args.Contains("sqlite"), args.Contains("--empty"));
        sentAt = new long[publishes];
    }

    public static async Task<int> RunAsync(string[] args)
    {
        await using var run = new PublishBenchmark(args);
        return await run.RunAsync(CancellationToken.None) ? 0 : 1;
    }

    public ValueTask DisposeAsync()
    {
        listener.Dispose();
        Directory.Delete(folder, recursive: true);
        return ValueTask.CompletedTask;
    }

    private async Task<bool> RunAsync(CancellationToken cancellationToken)
    {
        listener.Start();
        await using var simulator = await SimulatorProcess.StartAsync(folder, TimeSpan.FromMilliseconds(1), cancellationToken);
        await using var cluster = postgreSql ? await PostgreSqlCluster.StartAsync([], cancellationToken) : null;
        var database = cluster?.ConnectionString(await cluster.NewDatabaseAsync(cancellationToken));
        await using var node = new RelayNode(folder, "node1");
        await node.StartAsync(
            RelayNode.Settings(((IPEndPoint)listener.LocalEndpoint).Port, simulator.Endpoint, database),
            cancellationToken
        );
        using var client = await listener.AcceptTcpClientAsync(cancellationToken);
        client.NoDelay = true;
        var stream = client.GetStream();
        await HandshakeAsync(stream, cancellationToken);
        var targets = await RegisterAsync(node, cancellationToken);
        var reading = ReadAsync(stream, cancellationToken);
        var (relayBefore, databaseBefore) = (node.CpuSeconds, cluster is null ? 0 : ProcessFigures.CpuSecondsOfTree(cluster.ProcessId));
        await SendAsync(stream, targets, cancellationToken);
        await reading.WaitAsync(Patience, cancellationToken);
        var ledger = new LedgerReader(database, folder);
        await ledger.DrainedAsync(Patience, cancellationToken);
        var (relay, store) = (
            node.CpuSeconds - relayBefore,
            cluster is null ? 0 : ProcessFigures.CpuSecondsOfTree(cluster.ProcessId) - databaseBefore
        );
        var rows = await ledger.CountAsync("source = 1", cancellationToken);
        var told = await simulator.ReceivedAsync(cancellationToken);
        waited.Sort();
        double Ms(double share) => waited[(int)((waited.Count - 1) * share)] * 1000.0 / Stopwatch.Frequency;
        double Per100k(double seconds) => seconds * 100_000 / publishes;
        Console.WriteLine(
            string.Create(
                CultureInfo.InvariantCulture,
                $"{publishes} publishes at {rate}/s to {devices} devices: answered {waited.Count}, refused {refused}, rows {rows}, "
                    + $"alerts {told}; answer p50 {Ms(0.5):0.0} ms, p99 {Ms(0.99):0.0} ms, most {Ms(1):0.0} ms; CPU s per 100,000: relay "
                    + $"{Per100k(relay):0.0}, database {Per100k(store):0.0}; load average {ProcessFigures.LoadAverage()}"
            )
        );
        return waited.Count == publishes && refused == 0 && (empty ? rows <= 2 * devices : rows == publishes);
    }

    private static async Task HandshakeAsync(NetworkStream stream, CancellationToken cancellationToken)
    {
        await ReadToAsync(stream, "to='push.example.com'>", cancellationToken);
        await WriteAsync(
            stream,
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' "
                + $"from='{Rehearsal.Component}' id='s1'>",
            cancellationToken
        );
        await ReadToAsync(stream, "</handshake>", cancellationToken);
        await WriteAsync(stream, "<handshake/>", cancellationToken);
        var asked = await ReadToAsync(stream, "</iq>", cancellationToken);
        await WriteAsync(
            stream,
            $"<iq type='error' id='{IdPattern().Match(asked).Groups[1].Value}' from='{Rehearsal.Server}' to='{Rehearsal.Component}'>"
                + "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
            cancellationToken
        );
    }

    /// <returns>Node and secret of each device.</returns>
    private async Task<List<(string Node, string Secret)>> RegisterAsync(RelayNode node, CancellationToken cancellationToken)
    {
        var targets = new List<(string, string)>(devices);
        for (var i = 0; i < devices; i++)
        {
            using var answer = await node.Client.PostAsJsonAsync(
                "/v1/devices",
                new
                {
                    account = Rehearsal.Account(i),
                    app = Rehearsal.App,
                    platform = "apns",
                    token = Rehearsal.Token(i),
                },
                cancellationToken
            );
            var push = JsonNode.Parse(await answer.EnsureSuccessStatusCode().Content.ReadAsStringAsync(cancellationToken))!["push"]!;
            targets.Add(((string)push["node"]!, (string)push["secret"]!));
        }

        return targets;
    }

    private async Task SendAsync(NetworkStream stream, List<(string Node, string Secret)> targets, CancellationToken cancellationToken)
    {
        var start = Stopwatch.GetTimestamp();
        for (var sent = 0; sent < publishes; )
        {
            var due = Math.Min(publishes, (int)(Stopwatch.GetElapsedTime(start).TotalSeconds * rate) + 1);
            var text = new StringBuilder();
            for (; sent < due; sent++)
            {
                var (to, secret) = targets[sent % targets.Count];
                // a conversation of its own each, so that none waits for another
                var form = empty
                    ? ""
                    : "<x xmlns='jabber:x:data' type='submit'><field var='last-message-sender'><value>"
                        + $"a{sent.ToString(CultureInfo.InvariantCulture)}@example.com</value></field>"
                        + "<field var='last-message-body'><value>hello</value></field></x>";
                text.Append(
                        CultureInfo.InvariantCulture,
                        $"<iq type='set' id='p{sent}' from='{Rehearsal.Server}' to='{Rehearsal.Component}'>"
                    )
                    .Append(CultureInfo.InvariantCulture, $"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{to}'><item>")
                    .Append(
                        CultureInfo.InvariantCulture,
                        $"<notification xmlns='urn:xmpp:push:0'>{form}</notification></item></publish><publish-options>"
                    )
                    .Append(
                        CultureInfo.InvariantCulture,
                        $"<x xmlns='jabber:x:data' type='submit'><field var='secret'><value>{secret}</value></field></x>"
                    )
                    .Append("</publish-options></pubsub></iq>");
                sentAt[sent] = Stopwatch.GetTimestamp();
            }

            await WriteAsync(stream, text.ToString(), cancellationToken);
            await Task.Delay(TimeSpan.FromMilliseconds(1), TimeProvider.System, cancellationToken);
        }
    }

    private async Task ReadAsync(NetworkStream stream, CancellationToken cancellationToken)
    {
        var rest = "";
        var buffer = new byte[64 * 1024];
        while (waited.Count < publishes)
        {
            var count = await stream.ReadAsync(buffer, cancellationToken);
            if (count == 0)
            {
                throw new IOException("The relay closed the link.");
            }

            rest += Encoding.UTF8.GetString(buffer, 0, count);
            var now = Stopwatch.GetTimestamp();
            var read = 0;
            foreach (Match answer in AnswerPattern().Matches(rest))
            {
                waited.Add(now - sentAt[int.Parse(answer.Groups[2].ValueSpan, CultureInfo.InvariantCulture)]);
                refused += answer.Value.Contains("error", StringComparison.Ordinal) ? 1 : 0;
                read = answer.Index + answer.Length;
            }

            rest = rest[read..];
        }
    }

    private static async Task<string> ReadToAsync(NetworkStream stream, string mark, CancellationToken cancellationToken)
    {
        var text = new StringBuilder();
        var one = new byte[1];
        while (!text.ToString().EndsWith(mark, StringComparison.Ordinal))
        {
            await stream.ReadExactlyAsync(one, cancellationToken);
            text.Append((char)one[0]);
        }

        return text.ToString();
    }

    private static Task WriteAsync(NetworkStream stream, string text, CancellationToken cancellationToken) =>
        stream.WriteAsync(Encoding.UTF8.GetBytes(text), cancellationToken).AsTask();

    [GeneratedRegex("""\sid=['"]([^'"]*)['"]""")]
    private static partial Regex IdPattern();

    [GeneratedRegex("""<iq\s[^>]*?(id)=['"]p(\d+)['"][^>]*?(?:/>|>.*?</iq>)""")]
    private static partial Regex AnswerPattern();
}
