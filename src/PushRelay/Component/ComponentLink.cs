using System.Globalization;
using System.Threading.Channels;
using System.Xml.Linq;
using PushRelay.Decision;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Xmpp;

namespace PushRelay.Component;

/// <summary>
/// One component's traffic, in its order: reads the bridge's stanzas, commits their events in groups, and only then acknowledges them.
/// While the database does not take them the socket is not read.
/// </summary>
internal sealed partial class ComponentLink : IXmppComponentHandler, IAsyncDisposable
{
    private const int QueuedStanzasMax = 256;
    private const int CommittedTogetherMax = 64;

    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan CommitRetry = TimeSpan.FromSeconds(1);

    private readonly ComponentOptions options;
    private readonly EventIngest ingest;
    private readonly PresenceTracker presence;
    private readonly AdHocCommands commands;
    private readonly TimeProvider clock;
    private readonly ILogger<ComponentLink> logger;
    private readonly XmppComponent component;
    private readonly Channel<LinkEvent> inbox = Channel.CreateBounded<LinkEvent>(new BoundedChannelOptions(QueuedStanzasMax) { SingleReader = true });
    private readonly Dictionary<StreamName, BridgeStream> streams = [];
    private readonly HashSet<string> strangers = new(StringComparer.Ordinal);
    private long requests;
    private volatile bool lost;

    public ComponentLink(
        ComponentOptions options, EventIngest ingest, PresenceTracker presence, AdHocCommands commands, TimeProvider clock, ILoggerFactory loggers)
    {
        this.options = options;
        this.ingest = ingest;
        this.presence = presence;
        this.commands = commands;
        this.clock = clock;
        logger = loggers.CreateLogger<ComponentLink>();
        component = new XmppComponent(
            new XmppComponentOptions { Host = options.Host, Port = options.Port, Domain = options.Domain, Secret = options.Secret, ServerDomain = options.Servers[0], KnownNames = [.. BridgeProtocol.Names, .. AdHocCommands.Names] },
            this, clock, loggers.CreateLogger<XmppComponent>());
    }

    private abstract record LinkEvent
    {
        public sealed record Connected : LinkEvent;

        public sealed record Lost : LinkEvent;

        public sealed record Came(StreamName Stream, XElement Stanza) : LinkEvent;
    }

    public string Domain => options.Domain;

    /// <summary>Servers whose sessions are unknown now, for the operator.</summary>
    public IReadOnlyList<string> Unknown => [.. options.Servers.Where(server => !presence.Knows(server))];

    public bool IsConnected => component.IsConnected;

    public async Task RunAsync(CancellationToken stoppingToken)
    {
        await using (this)
        {
            using var both = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
            Task[] halves = [component.RunAsync(both.Token), WorkAsync(both.Token)];
            await Task.WhenAny(halves);
            // neither is any good without the other
            await both.CancelAsync();
            await Task.WhenAll(halves);
        }
    }

    public ValueTask DisposeAsync() => component.DisposeAsync();

    public ValueTask ConnectedAsync(CancellationToken cancellationToken) => inbox.Writer.WriteAsync(new LinkEvent.Connected(), cancellationToken);

    public ValueTask DisconnectedAsync(Exception? reason, CancellationToken cancellationToken)
    {
        // where the inbox is full, the next link's first word says it
        lost = !inbox.Writer.TryWrite(new LinkEvent.Lost());
        return ValueTask.CompletedTask;
    }

    public async ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken)
    {
        var isAnswer = stanza.Name.LocalName == "iq" && (string?)stanza.Attribute("type") is "result" or "error";
        var bridge = stanza.Elements().FirstOrDefault(e => e.Name.Namespace == BridgeProtocol.Namespace);
        // a question in our namespace is none of ours: the server answers, it does not ask
        if ((bridge is null || stanza.Name.LocalName == "iq") && !isAnswer)
        {
            return await commands.TryAnswerAsync(stanza, options.Servers, answer => SendAsync(answer, CancellationToken.None), cancellationToken);
        }

        var from = (string?)stanza.Attribute("from") ?? "";
        if (!options.Servers.Contains(from))
        {
            // the domain only: names stay out of the log
            Stranger(Jid.TryParse(from, out var jid) ? jid.Domain : "?");
            return false;
        }

        await inbox.Writer.WriteAsync(new LinkEvent.Came(new StreamName(from, bridge is null ? "" : BridgeProtocol.NodeOf(bridge)), stanza), cancellationToken);
        return true;
    }

    private async Task WorkAsync(CancellationToken stoppingToken)
    {
        var batches = new List<EventBatch>();
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await WaitAsync(stoppingToken);
                await TurnAsync(batches, stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                // what is not committed is not acknowledged: it comes again
            }
            catch (Exception exception)
            {
                Failed(exception, options.Domain);
                batches.Clear();
                LoseAll();
            }
        }
    }

    private async Task TurnAsync(List<EventBatch> batches, CancellationToken cancellationToken)
    {
        if (lost)
        {
            lost = false;
            LoseAll();
        }

        for (var taken = 0; taken < CommittedTogetherMax && inbox.Reader.TryRead(out var item); taken++)
        {
            await FollowAsync(item, batches, cancellationToken);
        }

        await CommitAsync(batches, cancellationToken);
        // what waits unread may be the very word that is missed
        if (component.IsConnected && inbox.Reader.Count == 0)
        {
            foreach (var stream in streams.Values.Where(s => s.IsSilent()).ToList())
            {
                await AskAsync(stream, cancellationToken);
            }
        }
    }

    private void LoseAll()
    {
        foreach (var stream in streams.Values)
        {
            stream.Lose();
        }
    }

    private async Task FollowAsync(LinkEvent item, List<EventBatch> batches, CancellationToken cancellationToken)
    {
        switch (item)
        {
            case LinkEvent.Connected:
                foreach (var server in options.Servers)
                {
                    await AskAsync(StreamOf(new StreamName(server, "")), cancellationToken);
                }

                break;
            case LinkEvent.Lost:
                LoseAll();
                break;
            case LinkEvent.Came came:
                await TakeAsync(came, batches, cancellationToken);
                break;
        }
    }

    private async Task TakeAsync(LinkEvent.Came came, List<EventBatch> batches, CancellationToken cancellationToken)
    {
        if (came.Stanza.Name.LocalName == "iq")
        {
            TakeAnswer(StreamOf(came.Stream), came.Stanza, batches);
            return;
        }

        if (!BridgeProtocol.TryReadEvents(came.Stanza, out var events))
        {
            NotUnderstood(came.Stream.Server);
            return;
        }

        var stream = StreamOf(came.Stream);
        if (came.Stream.Node.Length > 0 && streams.Remove(came.Stream with { Node = "" }, out var unnamed))
        {
            // the server is a cluster: each of its nodes speaks for itself
            presence.Forget(unnamed.Name);
        }

        if (!stream.Take(events, out var batch))
        {
            // the request names what is committed
            await CommitAsync(batches, cancellationToken);
            await AskAsync(stream, cancellationToken);
        }
        else if (batch is not null)
        {
            batches.Add(batch);
        }
    }

    private static void TakeAnswer(BridgeStream stream, XElement iq, List<EventBatch> batches)
    {
        var id = (string?)iq.Attribute("id");
        if ((string?)iq.Attribute("type") == "error")
        {
            stream.Refuse(id, iq.Element(XmppStanza.Component + "error")?.Elements().FirstOrDefault()?.Name.LocalName ?? "error");
        }
        else if (BridgeProtocol.TryReadSnapshot(iq, out var snapshot) && stream.Accept(id, snapshot) is { Events.Count: > 0 } changes)
        {
            batches.Add(changes);
        }
    }

    private async Task AskAsync(BridgeStream stream, CancellationToken cancellationToken)
    {
        var id = $"snapshot-{(++requests).ToString(CultureInfo.InvariantCulture)}";
        var position = await RetryAsync(() => ingest.PositionAsync(stream.Name, cancellationToken), cancellationToken);
        stream.Ask(id, position);
        await SendAsync(BridgeProtocol.SnapshotRequest(id, options.Domain, stream.Name, position), cancellationToken);
    }

    /// <summary>Commits what was taken, and acknowledges it once it is durable.</summary>
    private async Task CommitAsync(List<EventBatch> batches, CancellationToken cancellationToken)
    {
        if (batches.Count == 0)
        {
            return;
        }

        await RetryAsync(
            async () =>
            {
                await ingest.CommitAsync(batches, cancellationToken);
                return true;
            },
            cancellationToken);
        foreach (var group in batches.Where(b => b.Point is not null).GroupBy(b => b.Stream))
        {
            var point = group.Last().Point!.Value;
            StreamOf(group.Key).Commit(point);
            await SendAsync(BridgeProtocol.Ack(options.Domain, group.Key, point), cancellationToken);
        }

        batches.Clear();
    }

    private async Task<T> RetryAsync<T>(Func<Task<T>> action, CancellationToken cancellationToken)
    {
        while (true)
        {
            try
            {
                return await action();
            }
            catch (Exception exception) when (DatabaseOutage.Is(exception))
            {
                DatabaseAway(options.Domain, exception.GetBaseException().Message);
                await Task.Delay(CommitRetry, clock, cancellationToken);
            }
        }
    }

    private async Task SendAsync(XElement stanza, CancellationToken cancellationToken)
    {
        try
        {
            await component.SendAsync(stanza, cancellationToken);
        }
        catch (XmppNotConnectedException)
        {
            // the next link begins with a request that names the position
        }
    }

    private BridgeStream StreamOf(StreamName name)
    {
        if (!streams.TryGetValue(name, out var stream))
        {
            streams[name] = stream = new BridgeStream(name, presence, clock, logger);
        }

        return stream;
    }

    private async Task WaitAsync(CancellationToken cancellationToken)
    {
        using var tick = new CancellationTokenSource(Tick, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(tick.Token, cancellationToken);
        try
        {
            await inbox.Reader.WaitToReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // time to look for silent streams
        }
    }

    private void Stranger(string from)
    {
        const int ToldMax = 100;
        if (strangers.Count < ToldMax && strangers.Add(from))
        {
            NotConfigured(from, options.Domain);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Stanzas from '{From}' are ignored: it is none of the Servers of component {Domain} in setting Xmpp")]
    private partial void NotConfigured(string from, string domain);

    [LoggerMessage(Level = LogLevel.Error, Message = "The events of component {Domain} could not be followed: every session is unknown until the next snapshot")]
    private partial void Failed(Exception exception, string domain);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A bridge stanza of server {Server} cannot be understood and is passed over")]
    private partial void NotUnderstood(string server);

    [LoggerMessage(Level = LogLevel.Error, Message = "The events of component {Domain} wait: the database does not take them ({Problem}); nothing is lost, the server keeps them")]
    private partial void DatabaseAway(string domain, string problem);
}
