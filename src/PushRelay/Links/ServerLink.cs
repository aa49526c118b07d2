using System.Globalization;
using System.Threading.Channels;
using System.Xml.Linq;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Bridge;
using PushRelay.Cluster;
using PushRelay.Commands;
using PushRelay.Faults;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>
/// One component's traffic, in its order: reads the bridge's stanzas, commits their events in groups, and only then acknowledges them.
/// While the database does not take them the socket is not read.
/// </summary>
internal sealed partial class ServerLink : IXmppComponentHandler, IAsyncDisposable
{
    private const int QueuedStanzasMax = 256;
    private const int CommittedTogetherMax = 64;

    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan CommitRetry = TimeSpan.FromSeconds(1);

    private readonly ComponentOptions options;
    private readonly LeaseTerm term;
    private readonly EventIngest ingest;
    private readonly PresenceStore store;
    private readonly AdHocCommands commands;
    private readonly TimeProvider clock;
    private readonly ILogger<ServerLink> logger;
    private readonly XmppComponent component;
    private readonly Channel<LinkEvent> inbox = Channel.CreateBounded<LinkEvent>(
        new BoundedChannelOptions(QueuedStanzasMax) { SingleReader = true }
    );
    private readonly BridgeStreams streams;
    private readonly HashSet<string> strangers = new(StringComparer.Ordinal);
    private long requests;
    private volatile bool lost;

    public ServerLink(
        ComponentOptions options,
        LeaseTerm term,
        EventIngest ingest,
        PresenceTracker presence,
        PresenceStore store,
        AdHocCommands commands,
        RateLimitOptions rates,
        TimeProvider clock,
        ILoggerFactory loggers
    )
    {
        this.options = options;
        this.term = term;
        this.ingest = ingest;
        this.store = store;
        this.commands = commands;
        this.clock = clock;
        logger = loggers.CreateLogger<ServerLink>();
        streams = new BridgeStreams(presence, clock, logger);
        component = new XmppComponent(
            new XmppComponentOptions
            {
                Host = options.Host,
                Port = options.Port,
                Domain = options.Domain,
                Secret = options.Secret,
                ServerDomain = options.Servers[0],
                KnownNames = [.. BridgeProtocol.Names, .. AdHocCommands.Names],
                Admit = new RequestLimits(options.Servers, rates, clock).Admit,
            },
            this,
            clock,
            loggers.CreateLogger<XmppComponent>()
        );
    }

    private abstract record LinkEvent
    {
        public sealed record Connected : LinkEvent;

        public sealed record Lost : LinkEvent;

        public sealed record Came(StreamName Stream, XElement Stanza) : LinkEvent;
    }

    public bool IsConnected => component.IsConnected;

    /// <summary>Until stopped, or until the lease is another node's; afterwards nothing is known here of its servers' sessions.</summary>
    public async Task RunAsync(CancellationToken stoppingToken)
    {
        options.Servers.ForEach(server => store.Begin(server, term));
        await using (this)
        {
            using var both = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
            Task[] halves = [component.RunAsync(both.Token), WorkAsync(both.Token)];
            await Task.WhenAny(halves);
            // neither is any good without the other
            await both.CancelAsync();
            await Task.WhenAll(halves);
        }

        options.Servers.ForEach(store.End);
        streams.DropAll();
    }

    public ValueTask DisposeAsync() => component.DisposeAsync();

    public ValueTask ConnectedAsync(CancellationToken cancellationToken) =>
        inbox.Writer.WriteAsync(new LinkEvent.Connected(), cancellationToken);

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
            return await commands.TryAnswerAsync(
                stanza,
                options.Servers,
                answer => SendAsync(answer, CancellationToken.None),
                cancellationToken
            );
        }

        var from = (string?)stanza.Attribute("from") ?? "";
        if (!options.Servers.Contains(from))
        {
            // the domain only: names stay out of the log
            Stranger(Jid.TryParse(from, out var jid) ? jid.Domain : "?");
            return false;
        }

        await inbox.Writer.WriteAsync(
            new LinkEvent.Came(new StreamName(from, bridge is null ? "" : BridgeProtocol.NodeOf(bridge)), stanza),
            cancellationToken
        );
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
            catch (LeaseLostException)
            {
                // what was taken is not committed, so not acknowledged: it comes again, to whoever has the link now
                return;
            }
            catch (Exception exception)
            {
                Failed(exception, options.Domain);
                batches.Clear();
                streams.LoseAll();
            }
        }
    }

    private async Task TurnAsync(List<EventBatch> batches, CancellationToken cancellationToken)
    {
        if (lost)
        {
            lost = false;
            streams.LoseAll();
        }

        for (var taken = 0; taken < CommittedTogetherMax && inbox.Reader.TryRead(out var item); taken++)
        {
            await FollowAsync(item, batches, cancellationToken);
        }

        await CommitAsync(batches, cancellationToken);
        // what waits unread may be the very word that is missed
        if (component.IsConnected && inbox.Reader.Count == 0)
        {
            foreach (var stream in streams.All.Where(s => s.IsSilent()))
            {
                if (stream.IsGone && streams.HasLivingPeer(stream))
                {
                    batches.Add(streams.End(stream));
                }
                else
                {
                    await AskAsync(stream, cancellationToken);
                }
            }

            await CommitAsync(batches, cancellationToken);
        }
    }

    private async Task FollowAsync(LinkEvent item, List<EventBatch> batches, CancellationToken cancellationToken)
    {
        switch (item)
        {
            case LinkEvent.Connected:
                foreach (var server in options.Servers)
                {
                    await AskAsync(streams.Of(new StreamName(server, "")), cancellationToken);
                }

                break;
            case LinkEvent.Lost:
                streams.LoseAll();
                break;
            case LinkEvent.Came came:
                await TakeAsync(came, batches, cancellationToken);
                break;
        }
    }

    private async Task TakeAsync(LinkEvent.Came came, List<EventBatch> batches, CancellationToken cancellationToken)
    {
        if (!streams.Takes(came.Stream))
        {
            NotUnderstood(came.Stream.Server);
            return;
        }

        if (came.Stanza.Name.LocalName == "iq")
        {
            await TakeAnswerAsync(came, batches, cancellationToken);
            return;
        }

        if (!BridgeProtocol.TryReadEvents(came.Stanza, out var events))
        {
            NotUnderstood(came.Stream.Server);
            return;
        }

        var unnamed = came.Stream with { Node = "" };
        if (came.Stream != unnamed && streams.Find(unnamed) is { } whole)
        {
            if (events.Snapshot)
            {
                await AdoptAsync(whole, came.Stream, cancellationToken);
            }
            else if (whole.IsLive)
            {
                // the server has become a cluster: each of its nodes speaks for itself
                streams.Drop(whole);
            }
        }

        var stream = streams.Of(came.Stream);
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

    private async Task TakeAnswerAsync(LinkEvent.Came came, List<EventBatch> batches, CancellationToken cancellationToken)
    {
        var id = (string?)came.Stanza.Attribute("id");
        var asked = streams.Asked(came.Stream.Server, id);
        if ((string?)came.Stanza.Attribute("type") == "error")
        {
            asked?.Refuse(id, came.Stanza.Element(XmppStanza.Component + "error")?.Elements().FirstOrDefault()?.Name.LocalName ?? "error");
            return;
        }

        if (!BridgeProtocol.TryReadSnapshot(came.Stanza, out var snapshot))
        {
            return;
        }

        if (asked is not null && asked.Name != came.Stream)
        {
            if (asked.Name.Node.Length > 0)
            {
                // who holds the link answers for a node that the cluster does not have any more
                batches.Add(streams.End(asked));
                await AskUnlessKnownAsync(came.Stream, cancellationToken);
                return;
            }

            await AdoptAsync(asked, came.Stream, cancellationToken);
        }

        if (asked is not null && came.Stream.Node.Length == 0)
        {
            // the server is no cluster any more
            foreach (var node in streams.All.Where(s => s.Name.Server == came.Stream.Server && s.Name.Node.Length > 0))
            {
                batches.Add(streams.End(node));
            }
        }

        if (streams.Of(came.Stream).Accept(id, snapshot) is { Events.Count: > 0 } changes)
        {
            batches.Add(changes);
        }
    }

    /// <summary>The server is a cluster, and one of its nodes answers what was asked of the whole.</summary>
    private async Task AdoptAsync(BridgeStream whole, StreamName node, CancellationToken cancellationToken)
    {
        var stream = streams.Of(node);
        if (whole.Request is { } request && stream is { IsLive: false, Request: null })
        {
            stream.Ask(request, await RetryAsync(() => ingest.PositionAsync(node, cancellationToken), cancellationToken));
        }

        streams.Drop(whole);
    }

    private async Task AskUnlessKnownAsync(StreamName name, CancellationToken cancellationToken)
    {
        if (streams.Of(name) is { IsLive: false, Request: null } stream)
        {
            await AskAsync(stream, cancellationToken);
        }
    }

    private async Task AskAsync(BridgeStream stream, CancellationToken cancellationToken)
    {
        var id = $"snapshot-{(++requests).ToString(CultureInfo.InvariantCulture)}";
        var position = await RetryAsync(() => ingest.PositionAsync(stream.Name, cancellationToken), cancellationToken);
        stream.Ask(id, position);
        await SendAsync(BridgeProtocol.SnapshotRequest(id, options.Domain, stream.Name, stream.Wanted), cancellationToken);
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
                await ingest.CommitAsync(batches, term, cancellationToken);
                return true;
            },
            cancellationToken
        );
        Failpoint.Reach("before_ack");
        foreach (var group in batches.Where(b => b.Point is not null).GroupBy(b => b.Stream))
        {
            var point = group.Last().Point!.Value;
            streams.Find(group.Key)?.Commit(point);
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
            catch (Exception exception)
                when (exception is not (OperationCanceledException or LeaseLostException) && !DatabaseErrors.IsOfTheValues(exception))
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

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Stanzas from '{From}' are ignored: it is none of the Servers of component {Domain} in setting Xmpp"
    )]
    private partial void NotConfigured(string from, string domain);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The events of component {Domain} could not be followed: every session is unknown until the next snapshot"
    )]
    private partial void Failed(Exception exception, string domain);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A bridge stanza of server {Server} cannot be understood and is passed over")]
    private partial void NotUnderstood(string server);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The events of component {Domain} wait: the database does not take them ({Problem}); nothing is lost, the server "
            + "keeps them"
    )]
    private partial void DatabaseAway(string domain, string problem);
}
