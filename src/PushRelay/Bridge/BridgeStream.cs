using PushRelay.Ingest;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>
/// One stream of one server: waits for the snapshot it asked for, then takes live stanzas in their numbers; a new epoch, a hole or
/// silence makes it ask again. It keeps the order; committing and acknowledging are its owner's.
/// </summary>
internal sealed partial class BridgeStream(StreamName name, PresenceTracker presence, TimeProvider clock, ILogger logger)
{
    /// <summary>Unanswered for this long, a request is made again: a server without the module never answers.</summary>
    public static readonly TimeSpan SnapshotTimeout = TimeSpan.FromSeconds(15);

    private static readonly TimeSpan HeartbeatDefault = TimeSpan.FromSeconds(30);
    private const int SilentHeartbeatsMax = 3;

    /// <summary>A node that says nothing for so long, while others of its server do, has left the cluster.</summary>
    private static readonly TimeSpan GoneAfter = TimeSpan.FromMinutes(10);

    private readonly List<BridgeSession> snapshot = [];
    private string? requestId;
    private bool live;
    private bool refusalTold;
    private string? epoch;

    /// <summary>The epoch as it is committed: another one where the module gave out its numbers a second time.</summary>
    private string numbering = "";
    private long lastLive;
    private long? fellTo;
    private TimeSpan heartbeat = HeartbeatDefault;
    private long heard = clock.GetTimestamp();
    private long lastWord = clock.GetTimestamp();

    public StreamName Name => name;

    /// <summary>The snapshot came, and nothing is missing since.</summary>
    public bool IsLive => live;

    /// <summary>The last committed stanza: what is acknowledged.</summary>
    public StreamPoint? Position { get; private set; }

    /// <summary>The request that is not answered yet.</summary>
    public string? Request => requestId;

    /// <summary>What a request names: the last committed stanza; where the numbers fell, what came before the first of the new
    /// ones.</summary>
    public StreamPoint? Wanted => fellTo is { } first ? new StreamPoint(epoch!, first - 1) : Position;

    /// <summary>A node of a cluster, silent for so long that it will not come back; what it comes back with is a new stream.</summary>
    public bool IsGone => !live && name.Node.Length > 0 && clock.GetElapsedTime(lastWord) > GoneAfter;

    /// <summary>From here on everything is ignored until the answer to <paramref name="id"/>; states are unknown.</summary>
    public void Ask(string id, StreamPoint? position)
    {
        requestId = id;
        Position = position;
        snapshot.Clear();
        live = false;
        heard = clock.GetTimestamp();
        presence.Lose(name);
    }

    /// <summary>The link fell.</summary>
    public void Lose()
    {
        requestId = null;
        live = false;
        heard = clock.GetTimestamp();
        snapshot.Clear();
        presence.Lose(name);
    }

    /// <summary>True: nothing came for too long; ask again.</summary>
    public bool IsSilent()
    {
        var silence = clock.GetElapsedTime(heard);
        if (live && silence > heartbeat * SilentHeartbeatsMax)
        {
            Silent(name.Server, silence.TotalSeconds);
            return true;
        }

        return !live && silence > SnapshotTimeout;
    }

    /// <summary>The result of a snapshot request.</summary>
    /// <returns>What its sessions changed; null where it answers no request of ours.</returns>
    public EventBatch? Accept(string? id, BridgeSnapshot result)
    {
        if (live || requestId is null || id != requestId)
        {
            // the pages before an answer that came too late are as old as it is
            snapshot.Clear();
            return null;
        }

        requestId = null;
        Hear();
        refusalTold = false;
        Number(result);
        epoch = result.Epoch;
        lastLive = result.Seq;
        live = true;

        if (result.Dropped > 0)
        {
            Dropped(name.Server, result.Dropped);
        }

        var now = clock.GetUtcNow();
        var changes = presence.Replace(
            name,
            [.. snapshot.Select(s => (s.Account, s.Session!))],
            new StreamSource(result.Server, result.Module, result.Dropped),
            now
        );
        SnapshotTaken(name.Server, result.Server, result.Module, snapshot.Count, result.Seq);
        if (presence.IsOverfull(name))
        {
            TooMany(name.Server, PresenceTracker.SessionsMax);
        }

        snapshot.Clear();
        return new EventBatch(name, [.. changes.Select(c => new RelayEvent.PresenceChanged(c, now))], null);
    }

    /// <summary>The same epoch with lower numbers: a server that was set back to an earlier moment gives them out again, for other
    /// events.</summary>
    private void Number(BridgeSnapshot result)
    {
        if (Position is not { } position || BridgeProtocol.WireEpoch(position.Epoch) != result.Epoch)
        {
            (numbering, Position) = (result.Epoch, null);
        }
        else if (fellTo is not null || result.Seq < position.Seq)
        {
            Fell(name.Server, fellTo ?? result.Seq, position.Seq);
            (numbering, Position) = (BridgeProtocol.NextNumbering(position.Epoch), null);
        }
        else
        {
            numbering = position.Epoch;
        }

        fellTo = null;
    }

    /// <summary>The server refused the request: it has no module, or forbids it.</summary>
    public void Refuse(string? id, string condition)
    {
        if (id == requestId && !refusalTold)
        {
            refusalTold = true;
            Refused(name.Server, condition);
        }
    }

    /// <summary>One <c>events</c> stanza.</summary>
    /// <param name="events">As it came.</param>
    /// <param name="batch">What is to be committed, null where nothing is.</param>
    /// <returns>False: the stream does not continue; ask for a new snapshot.</returns>
    public bool Take(BridgeEvents events, out EventBatch? batch)
    {
        batch = null;
        if (!live)
        {
            if (requestId is not null && events.Snapshot)
            {
                CollectSnapshot(events);
            }

            // what comes before the answer to our own request is not acknowledged, so it comes again; a node that nobody asked says hello
            return requestId is not null || events.Snapshot;
        }

        Hear();
        if (events.Snapshot)
        {
            return true;
        }

        var seq = events.Seq!.Value;
        if (events.Epoch != epoch)
        {
            NewEpoch(name.Server);
            return false;
        }

        if (!events.Replay)
        {
            if (seq <= lastLive)
            {
                fellTo = seq;
                return false;
            }

            if (seq != lastLive + 1)
            {
                Hole(name.Server, lastLive + 1, seq);
                return false;
            }

            lastLive = seq;
        }
        else if (Position is { } position && position.Epoch == numbering && seq <= position.Seq)
        {
            return true;
        }

        batch = new EventBatch(name, Read(events, seq), new StreamPoint(numbering, seq));
        return true;
    }

    /// <summary>The owner committed this far.</summary>
    public void Commit(StreamPoint point) => Position = point;

    private void Hear()
    {
        heard = lastWord = clock.GetTimestamp();
        presence.Hear(name, clock.GetUtcNow());
    }

    private void CollectSnapshot(BridgeEvents events)
    {
        Hear();
        var now = clock.GetUtcNow();
        foreach (var child in events.Children)
        {
            // one more than the tracker keeps is enough to know that they are too many
            if (snapshot.Count > PresenceTracker.SessionsMax)
            {
                return;
            }

            if (
                child.Name == BridgeProtocol.Namespace + "session"
                && BridgeProtocol.TryReadSession(child, name.Server, now, out var session)
                && session.Session is not null
            )
            {
                snapshot.Add(session);
            }
        }
    }

    private List<RelayEvent> Read(BridgeEvents events, long seq)
    {
        var read = new List<RelayEvent>(events.Children.Count);
        var position = 0;
        var now = clock.GetUtcNow();
        foreach (var child in events.Children)
        {
            if (BridgeProtocol.IsHeld(child))
            {
                position++;
                var key = $"{numbering}:{seq}:{position}";
                if (BridgeProtocol.TryReadHeld(child, name.Server, key, account => presence.Get(name.Server, account), out var @event))
                {
                    read.Add(@event);
                }
                else
                {
                    PassedOver(child.Name.LocalName, name.Server, seq);
                }
            }
            else if (child.Name == BridgeProtocol.Namespace + "session" && !events.Replay)
            {
                if (BridgeProtocol.TryReadSession(child, name.Server, now, out var session))
                {
                    if (presence.Apply(name, session.Account, session.Sid, session.Session) is { } change)
                    {
                        read.Add(new RelayEvent.PresenceChanged(change, now));
                    }
                }
                else
                {
                    PassedOver(child.Name.LocalName, name.Server, seq);
                }
            }
            else
            {
                // a child we do not know is a newer module's business
                heartbeat = BridgeProtocol.HeartbeatInterval(child) ?? heartbeat;
            }
        }

        return read;
    }

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "Server {Server} ({Software}, mod_push_relay {Module}) reports {Sessions} sessions; events go on after number {Seq}"
    )]
    private partial void SnapshotTaken(string server, string software, string module, int sessions, long seq);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Server {Server} answers the bridge with {Condition}: is mod_push_relay loaded for it, with this component? Until "
            + "then every session is unknown and no alert comes from it"
    )]
    private partial void Refused(string server, string condition);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Server {Server} was silent for {Seconds:0} s: its sessions are unknown, and a new snapshot is asked for"
    )]
    private partial void Silent(string server, double seconds);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The module of server {Server} started anew: a new snapshot is asked for")]
    private partial void NewEpoch(string server);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Stanza {Expected} of server {Server} is missing, {Seq} came: a new snapshot is asked for"
    )]
    private partial void Hole(string server, long expected, long seq);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The numbers of server {Server} fell: {Seq} came, {Committed} was committed. It was set back to an earlier moment, "
            + "and is followed from there"
    )]
    private partial void Fell(string server, long seq, long committed);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "Server {Server} has more sessions than are kept ({Max} in all): its sessions are unknown, and none of its alerts is "
            + "withheld"
    )]
    private partial void TooMany(string server, int max);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "Server {Server} had to drop {Count} events that this relay did not acknowledge in time (its push_relay_queue_size, "
            + "push_relay_queue_time)"
    )]
    private partial void Dropped(string server, long count);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "An event <{Kind}/> of server {Server} in stanza {Seq} cannot be understood and is passed over"
    )]
    private partial void PassedOver(string kind, string server, long seq);
}
