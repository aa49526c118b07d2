using System.Globalization;
using System.Xml.Linq;
using PushRelay.Cluster;
using PushRelay.Ingest;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Telemetry;
using PushRelay.Xmpp;

namespace PushRelay.Bridge;

/// <summary>
/// The bridge over one link: reads stanzas in their order, commits their events in groups, and only then acknowledges them. While the
/// database fails, the inbox fills and the socket is not read.
/// </summary>
internal sealed partial class BridgeWorker(
    ServerLink link,
    LinkInbox inbox,
    EventIngest ingest,
    PresenceTracker presence,
    Conditions conditions,
    DatabaseFailures failures,
    TimeProvider clock,
    ILogger<BridgeWorker> logger
)
{
    public const string RequestIdPrefix = "snapshot-";

    private const int CommittedTogetherMax = 64;

    /// <summary>How often silent streams are looked for.</summary>
    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);

    private readonly BridgeStreams streams = new(presence, clock, logger);
    private readonly EventCommitter committer = new(link, ingest, failures, clock);
    private long requests;

    /// <summary>Until stopped, or until another node has the lease.</summary>
    public async Task RunAsync(CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await inbox.WaitAsync(Tick, stoppingToken);
                await ProcessBatchAsync(stoppingToken);
                ReportServers();
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                // what is not committed is not acknowledged: it comes again
            }
            catch (LeaseLostException)
            {
                // what was read is not committed, so not acknowledged: it comes again, to the node that has the link now
                return;
            }
            catch (Exception exception)
            {
                Failed(exception, link.Domain);
                committer.DropBatches();
                streams.MarkAllLost();
            }
        }
    }

    /// <summary>The link is no longer this node's: nothing is known here of its servers' sessions.</summary>
    public void ForgetSessions()
    {
        streams.DropAll();
        committer.ClearConditions();
        foreach (var server in link.Servers)
        {
            conditions.Clear(ConditionKind.ServerUnknown, server);
        }
    }

    private void ReportServers()
    {
        foreach (var server in link.Servers)
        {
            var publishes = link.IsConnected && streams.Find(new StreamName(server, "")) is { HasNoModule: true };
            if (publishes)
            {
                link.Publishing.TryAdd(server, true);
            }
            else
            {
                link.Publishing.TryRemove(server, out _);
            }

            if (link.IsConnected && !presence.Knows(server) && !publishes)
            {
                conditions.Raise(ConditionKind.ServerUnknown, server);
            }
            else
            {
                conditions.Clear(ConditionKind.ServerUnknown, server);
            }
        }
    }

    private async Task ProcessBatchAsync(CancellationToken cancellationToken)
    {
        for (var read = 0; read < CommittedTogetherMax && inbox.TryRead(out var item); read++)
        {
            await ProcessAsync(item, cancellationToken);
        }

        await committer.CommitAsync(streams, cancellationToken);
        // a stream is not silent while what it said may wait in the inbox
        if (link.IsConnected && inbox.IsEmpty)
        {
            foreach (var stream in streams.All.Where(s => s.IsSilent()))
            {
                if (stream.IsGone && streams.HasLivePeer(stream))
                {
                    committer.Add(streams.End(stream));
                }
                else
                {
                    await RequestSnapshotAsync(stream, cancellationToken);
                }
            }

            await committer.CommitAsync(streams, cancellationToken);
        }
    }

    private async Task ProcessAsync(LinkEvent item, CancellationToken cancellationToken)
    {
        switch (item)
        {
            case LinkEvent.Connected:
                foreach (var server in link.Servers)
                {
                    await RequestSnapshotAsync(streams.FindOrAdd(new StreamName(server, "")), cancellationToken);
                }

                break;
            case LinkEvent.Disconnected:
                streams.MarkAllLost();
                break;
            case LinkEvent.Received { Stanza: var stanza }:
                var name = BridgeProtocol.StreamOf(stanza);
                if (!streams.Admits(name))
                {
                    NotUnderstood(name.Server);
                }
                else if (stanza.Name.LocalName == "iq")
                {
                    await ProcessAnswerAsync(name, stanza, cancellationToken);
                }
                else
                {
                    await ProcessEventsAsync(name, stanza, cancellationToken);
                }

                break;
        }
    }

    private async Task ProcessEventsAsync(StreamName name, XElement stanza, CancellationToken cancellationToken)
    {
        if (!BridgeProtocol.TryReadEvents(stanza, out var events))
        {
            NotUnderstood(name.Server);
            return;
        }

        if (name.Node.Length > 0 && streams.Find(name with { Node = "" }) is { } whole)
        {
            if (events.Snapshot)
            {
                await AdoptClusterNodeAsync(whole, name, cancellationToken);
            }
            else if (whole.IsLive)
            {
                // the server has become a cluster: each node reports its own sessions
                streams.Drop(whole);
            }
        }

        var stream = streams.FindOrAdd(name);
        if (!stream.TryProcess(events, out var batch))
        {
            // the request names what is committed
            await committer.CommitAsync(streams, cancellationToken);
            await RequestSnapshotAsync(stream, cancellationToken);
        }
        else if (batch is not null)
        {
            committer.Add(batch);
        }
    }

    private async Task ProcessAnswerAsync(StreamName name, XElement stanza, CancellationToken cancellationToken)
    {
        var id = (string?)stanza.Attribute("id");
        var asked = streams.FindRequest(name.Server, id);
        if ((string?)stanza.Attribute("type") == "error")
        {
            if (asked is not null)
            {
                asked.MarkRefused();
                if (!asked.HasNoModule)
                {
                    // it had one
                    conditions.Raise(
                        ConditionKind.ServerUnknown,
                        name.Server,
                        $"it answers the bridge with {XmppStanza.ConditionOf(stanza) ?? "error"}"
                    );
                }
            }

            return;
        }

        if (!BridgeProtocol.TryReadSnapshot(stanza, out var snapshot))
        {
            return;
        }

        if (asked is not null && asked.Name != name)
        {
            if (asked.Name.Node.Length > 0)
            {
                // the node that has the link answers for a node that is no longer in the cluster
                committer.Add(streams.End(asked));
                if (streams.FindOrAdd(name) is { IsIdle: true } other)
                {
                    await RequestSnapshotAsync(other, cancellationToken);
                }

                return;
            }

            await AdoptClusterNodeAsync(asked, name, cancellationToken);
        }

        if (asked is not null && name.Node.Length == 0)
        {
            // the server is no cluster any more
            foreach (var node in streams.All.Where(s => s.Name.Server == name.Server && s.Name.Node.Length > 0))
            {
                committer.Add(streams.End(node));
            }
        }

        if (streams.FindOrAdd(name).ApplySnapshot(id, snapshot) is { Events.Count: > 0 } changes)
        {
            committer.Add(changes);
        }
    }

    /// <summary>The server is a cluster, and one of its nodes answers what was asked of the whole.</summary>
    private async Task AdoptClusterNodeAsync(BridgeStream whole, StreamName node, CancellationToken cancellationToken)
    {
        var stream = streams.FindOrAdd(node);
        if (whole.Request is { } request && stream.IsIdle)
        {
            stream.MarkAsked(request, await committer.PositionAsync(node, cancellationToken));
        }

        streams.Drop(whole);
    }

    private async Task RequestSnapshotAsync(BridgeStream stream, CancellationToken cancellationToken)
    {
        var id = RequestIdPrefix + (++requests).ToString(CultureInfo.InvariantCulture);
        stream.MarkAsked(id, await committer.PositionAsync(stream.Name, cancellationToken));
        await link.SendAsync(BridgeProtocol.SnapshotRequest(id, link.Domain, stream.Name, stream.RequestedFrom), cancellationToken);
    }

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The events of component {Domain} could not be processed: every session is unknown until the next snapshot"
    )]
    private partial void Failed(Exception exception, string domain);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A bridge stanza of server {Server} cannot be read and is ignored")]
    private partial void NotUnderstood(string server);
}
