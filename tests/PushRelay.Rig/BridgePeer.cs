using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace PushRelay.Rig;

/// <summary>Whom an event is for, and the number of who sends it: device and sender together are the conversation.</summary>
internal readonly record struct RehearsedEvent(int Device, int Sender);

/// <summary>
/// An XMPP server with the module, as far as a relay can see (XEP-0114 and docs/bridge.md): numbers its events, keeps each until it is
/// acknowledged, also while no link is up, answers snapshot requests, and replays. A second link is refused while one is open.
/// </summary>
internal sealed partial class BridgePeer : IAsyncDisposable
{
    /// <summary>Stanzas kept for acknowledgement at most, the module's default; no event comes into being beyond it.</summary>
    private const int HeldMax = 10_000;

    private const int WriteBytes = 64 * 1024;
    private static readonly TimeSpan HeartbeatEvery = TimeSpan.FromSeconds(10);

    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource stop = new();
    private readonly Func<int, RehearsedEvent> plan;
    private readonly int perStanzaMax;
    private readonly string epoch = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(8));
    private readonly Lock state = new();
    private readonly List<Numbered> stanzas = [];
    private readonly List<long> dueTicks = [];
    private readonly Task accepting;
    private TaskCompletionSource changed = NewSignal();
    private TcpClient? link;
    private long acknowledged;
    private long generatedHeld;
    private Request? request;

    /// <param name="plan">The events, by their number.</param>
    /// <param name="perStanzaMax">So many messages in one stanza at most, 1 to 100.</param>
    public BridgePeer(Func<int, RehearsedEvent> plan, int perStanzaMax)
    {
        this.plan = plan;
        this.perStanzaMax = perStanzaMax;
        listener.Start();
        accepting = AcceptAsync();
    }

    /// <summary>The events <paramref name="First"/> and following; none in a heartbeat.</summary>
    private readonly record struct Numbered(int First, int Count);

    private sealed record Request(string Id, string? Epoch, long Seq);

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    /// <summary>Links that were opened and let in.</summary>
    public int LinksSeen { get; private set; }

    /// <summary>Events that came into being.</summary>
    public int Events
    {
        get
        {
            lock (state)
            {
                return dueTicks.Count;
            }
        }
    }

    /// <summary>Of the first so many events the relay said that it has them for good.</summary>
    public int EventsAcknowledged
    {
        get
        {
            lock (state)
            {
                return EventsUpTo(acknowledged);
            }
        }
    }

    /// <summary>When each event was due, by the monotonic clock.</summary>
    public long[] DueTicks()
    {
        lock (state)
        {
            return [.. dueTicks];
        }
    }

    public RehearsedEvent this[int number] => plan(number);

    /// <summary>Lets so many further events come into being.</summary>
    /// <param name="count">How many.</param>
    /// <param name="perSecond">Evenly; null: as fast as the bound of what is held admits.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async Task SendAsync(int count, double? perSecond, CancellationToken cancellationToken)
    {
        // not on the caller's stack: who has it sent goes on with what disturbs it
        await Task.Yield();
        var start = Stopwatch.GetTimestamp();
        for (var made = 0; made < count; )
        {
            Task acknowledgement;
            lock (state)
            {
                var before = made;
                var due = perSecond is { } rate ? Math.Min(count, (int)(Stopwatch.GetElapsedTime(start).TotalSeconds * rate) + 1) : count;
                while (made < due && generatedHeld < HeldMax)
                {
                    var together = Math.Min(perStanzaMax, due - made);
                    stanzas.Add(new Numbered(dueTicks.Count, together));
                    generatedHeld++;
                    for (var i = 0; i < together; i++, made++)
                    {
                        dueTicks.Add(perSecond is { } pace ? start + (long)(made / pace * Stopwatch.Frequency) : Stopwatch.GetTimestamp());
                    }
                }

                if (made > before)
                {
                    Changed();
                }

                acknowledgement = changed.Task;
            }

            if (made < count)
            {
                var tick = perSecond is null ? Timeout.InfiniteTimeSpan : TimeSpan.FromMilliseconds(1);
                await Task.WhenAny(acknowledgement, Task.Delay(tick, TimeProvider.System, cancellationToken));
                cancellationToken.ThrowIfCancellationRequested();
            }
        }
    }

    /// <summary>Waits until the relay has acknowledged every event there is.</summary>
    public async Task AcknowledgedAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            Task wait;
            lock (state)
            {
                if (EventsUpTo(acknowledged) == dueTicks.Count)
                {
                    return;
                }

                wait = changed.Task;
            }

            await wait.WaitAsync(cancellationToken);
        }
    }

    /// <summary>Cuts the link as a server's death does.</summary>
    public void Cut()
    {
        lock (state)
        {
            link?.Client.Close(0);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        listener.Stop();
        Cut();
        await accepting;
        stop.Dispose();
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    // with the lock held
    private void Changed()
    {
        var before = changed;
        changed = NewSignal();
        before.TrySetResult();
    }

    // with the lock held
    private int EventsUpTo(long seq)
    {
        for (var i = (int)Math.Min(seq, stanzas.Count) - 1; i >= 0; i--)
        {
            if (stanzas[i].Count > 0)
            {
                return stanzas[i].First + stanzas[i].Count;
            }
        }

        return 0;
    }

    private async Task AcceptAsync()
    {
        var links = new List<Task>();
        try
        {
            while (true)
            {
                links.Add(ServeAsync(await listener.AcceptTcpClientAsync(stop.Token)));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(links);
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using var _ = client;
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(stop.Token);
        client.NoDelay = true;
        try
        {
            var stream = client.GetStream();
            var reader = new StanzaReader(stream);
            if (!await HandshakeAsync(client, stream, reader, ended.Token))
            {
                return;
            }

            var writing = WriteAsync(stream, ended.Token);
            await ReadAsync(stream, reader, ended.Token);
            await ended.CancelAsync();
            await writing;
        }
        catch (Exception exception)
            when (exception is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // the link fell
        }
        finally
        {
            await ended.CancelAsync();
            lock (state)
            {
                if (link == client)
                {
                    link = null;
                    request = null;
                }
            }
        }
    }

    private async Task<bool> HandshakeAsync(
        TcpClient client,
        NetworkStream stream,
        StanzaReader reader,
        CancellationToken cancellationToken
    )
    {
        await reader.HeaderAsync(cancellationToken);
        var id = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(8));
        const string Open =
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'";
        await WriteAsync(stream, $"{Open} from='{Rehearsal.Component}' id='{id}'>", cancellationToken);
        var handshake = await reader.NextAsync(cancellationToken) ?? "";
#pragma warning disable CA5350 // XEP-0114 has it so
        var expected = Convert.ToHexStringLower(SHA1.HashData(Encoding.UTF8.GetBytes(id + Rehearsal.Secret)));
#pragma warning restore CA5350
        var refusal = handshake.Contains(expected, StringComparison.Ordinal) ? null : "not-authorized";
        lock (state)
        {
            refusal ??= link is null ? null : "conflict";
            if (refusal is null)
            {
                link = client;
                request = null;
                LinksSeen++;
            }
        }

        var error = $"<stream:error><{refusal} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";
        await WriteAsync(stream, refusal is null ? "<handshake/>" : error, cancellationToken);
        return refusal is null;
    }

    private static Task WriteAsync(NetworkStream stream, string text, CancellationToken cancellationToken) =>
        stream.WriteAsync(Encoding.UTF8.GetBytes(text), cancellationToken).AsTask();

    private async Task ReadAsync(NetworkStream stream, StanzaReader reader, CancellationToken cancellationToken)
    {
        while (await reader.NextAsync(cancellationToken) is { } stanza)
        {
            if (stanza.Contains("<ack", StringComparison.Ordinal))
            {
                lock (state)
                {
                    var seq = Math.Min(long.Parse(Attribute(stanza, "seq")!, CultureInfo.InvariantCulture), stanzas.Count);
                    for (; acknowledged < seq; acknowledged++)
                    {
                        generatedHeld -= stanzas[(int)acknowledged].Count > 0 ? 1 : 0;
                    }

                    Changed();
                }
            }
            else if (stanza.Contains("<snapshot", StringComparison.Ordinal))
            {
                lock (state)
                {
                    request = new Request(
                        Attribute(stanza, "id")!,
                        Attribute(stanza, "epoch"),
                        long.Parse(Attribute(stanza, "seq") ?? "0", CultureInfo.InvariantCulture)
                    );
                    Changed();
                }
            }
            else if (stanza.Contains("urn:xmpp:ping", StringComparison.Ordinal))
            {
                var pong = $"<iq type='result' id='{Attribute(stanza, "id")}' from='{Rehearsal.Server}' to='{Rehearsal.Component}'/>";
                await WriteAsync(stream, pong, cancellationToken);
            }
        }
    }

    /// <summary>The only one that writes the stream's stanzas: their order is its own.</summary>
    private async Task WriteAsync(NetworkStream stream, CancellationToken cancellationToken)
    {
        var buffer = new StanzaBuffer(WriteBytes);
        var batch = new List<Numbered>();
        long next = 0;
        long replayTo = 0;
        var quiet = Stopwatch.GetTimestamp();
        while (true)
        {
            Request? asked;
            Task wait;
            lock (state)
            {
                asked = request;
                request = null;
                if (asked is not null)
                {
                    next = (asked.Epoch == epoch ? asked.Seq : 0) + 1;
                    replayTo = stanzas.Count;
                }
                else if (next > 0 && Stopwatch.GetElapsedTime(quiet) >= HeartbeatEvery)
                {
                    stanzas.Add(default);
                    quiet = Stopwatch.GetTimestamp();
                }

                batch.Clear();
                var until = next == 0 ? 0 : Math.Min(stanzas.Count, next - 1 + (WriteBytes / (200 * perStanzaMax)) + 1);
                for (var seq = next; seq <= until && seq > 0; seq++)
                {
                    batch.Add(stanzas[(int)seq - 1]);
                }

                wait = changed.Task;
            }

            if (asked is not null)
            {
                buffer.Snapshot(asked.Id, epoch, replayTo);
            }

            foreach (var stanza in batch)
            {
                if (stanza.Count > 0 || next > replayTo)
                {
                    buffer.Events(epoch, next, next <= replayTo, stanza.First, stanza.Count, plan);
                }

                next++;
            }

            if (buffer.Written.Length > 0)
            {
                await stream.WriteAsync(buffer.Written, cancellationToken);
                buffer.Clear();
            }
            else
            {
                await Task.WhenAny(wait, Task.Delay(HeartbeatEvery, TimeProvider.System, cancellationToken));
                cancellationToken.ThrowIfCancellationRequested();
            }
        }
    }

    private static string? Attribute(string stanza, string name)
    {
        var found = AttributePattern().Matches(stanza).FirstOrDefault(m => m.Groups[1].Value == name);
        return found?.Groups[2].Value;
    }

    [GeneratedRegex("""\s([a-z-]+)=['"]([^'"]*)['"]""")]
    private static partial Regex AttributePattern();
}
