using PushRelay.Ingest;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>
/// One stream of one server: asks for a snapshot, then takes the live stanzas in the order of their numbers; a new epoch, a hole or
/// silence makes it ask again. It keeps the order and the sessions; <see cref="BridgeWorker"/> sends, commits and acknowledges.
/// </summary>
internal sealed partial class BridgeStream
{
    /// <summary>An unanswered request is repeated after this: a server without the module never answers.</summary>
    public static readonly TimeSpan SnapshotTimeout = TimeSpan.FromSeconds(15);

    private const int SilentHeartbeatsMax = 3;

    /// <summary>A node that is silent for this long, while others of its server are not, has left the cluster.</summary>
    private static readonly TimeSpan GoneAfter = TimeSpan.FromMinutes(10);

    private readonly StreamName name;
    private readonly PresenceTracker presence;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly EventReader reader;

    private StreamState state;

    /// <summary>The last committed stanza.</summary>
    private StreamPoint? committed;

    /// <summary>The module gave out numbers again: the one before the first of them, until the next snapshot.</summary>
    private StreamPoint? beforeRepeated;

    private long lastHeard;

    public BridgeStream(StreamName name, PresenceTracker presence, TimeProvider clock, ILogger logger)
    {
        (this.name, this.presence, this.clock, this.logger) = (name, presence, clock, logger);
        reader = new EventReader(name, presence, clock, logger);
        lastHeard = clock.GetTimestamp();
        state = new StreamState.Idle(lastHeard);
        presence.MarkUnknown(name);
    }

    public StreamName Name => name;

    public bool IsLive => state is StreamState.Live;

    /// <summary>No request is out, and the snapshot has not come.</summary>
    public bool IsIdle => state is StreamState.Idle;

    /// <summary>The request that is not answered yet.</summary>
    public string? Request => (state as StreamState.Asked)?.Request;

    /// <summary>What a request names: the last committed stanza; where numbers were given out again, the one before the first of
    /// them.</summary>
    public StreamPoint? RequestedFrom => beforeRepeated ?? committed;

    /// <summary>A node of a cluster, silent for so long that it is not waited for; should it come back, it is a new stream.</summary>
    public bool IsGone => !IsLive && name.Node.Length > 0 && clock.GetElapsedTime(lastHeard) > GoneAfter;

    /// <summary>A snapshot is asked for: until the answer to <paramref name="id"/> the states are unknown.</summary>
    public void MarkAsked(string id, StreamPoint? position)
    {
        // a repeated request was not answered: do not wait for its answer again
        if (state is not StreamState.Asked)
        {
            presence.MarkAwaited(name, clock.GetUtcNow() + PresenceTracker.AwaitedMax);
        }

        state = new StreamState.Asked(clock.GetTimestamp(), id);
        committed = position;
        presence.MarkUnknown(name);
    }

    /// <summary>The server answered the request with an error, and never had a module: it publishes (XEP-0357), or nothing.</summary>
    public bool HasNoModule { get; private set; }

    /// <summary>The server answers the request with an error.</summary>
    public void MarkRefused()
    {
        HasNoModule = committed is null;
        presence.MarkAwaited(name, null);
    }

    /// <summary>The link is lost, or the module is gone.</summary>
    public void MarkLost()
    {
        HasNoModule = false;
        presence.MarkAwaited(name, null);
        state = new StreamState.Idle(clock.GetTimestamp());
        presence.MarkUnknown(name);
    }

    /// <summary>The worker committed up to this stanza.</summary>
    public void MarkCommitted(StreamPoint point) => committed = point;

    /// <summary>Nothing came for too long: it is time to ask again.</summary>
    public bool IsSilent()
    {
        switch (state)
        {
            case StreamState.Live:
                var silence = clock.GetElapsedTime(lastHeard);
                if (silence <= reader.Heartbeat * SilentHeartbeatsMax)
                {
                    return false;
                }

                Silent(name.Server, silence.TotalSeconds);
                return true;
            case StreamState.Asked asked:
                return clock.GetElapsedTime(Math.Max(asked.Since, lastHeard)) > SnapshotTimeout;
            case StreamState.Idle idle:
                return clock.GetElapsedTime(idle.Since) > SnapshotTimeout;
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    /// <summary>The result of a snapshot request: replaces the sessions, and the stream is live.</summary>
    /// <returns>The changes; null if the id is of no open request.</returns>
    public EventBatch? ApplySnapshot(string? id, BridgeSnapshot result)
    {
        if (state is not StreamState.Asked asked)
        {
            return null;
        }

        if (id != asked.Request)
        {
            // the pages before an answer that came too late are as old as it is
            asked.Pages.Clear();
            return null;
        }

        MarkHeard();
        HasNoModule = false;
        state = new StreamState.Live(result.Epoch, ResumeNumbering(result), result.Seq);
        if (result.Dropped > 0)
        {
            Dropped(name.Server, result.Dropped);
        }

        var now = clock.GetUtcNow();
        var changes = presence.Replace(
            name,
            [.. asked.Pages.Select(s => (s.Account, s.Session!))],
            new StreamSource(result.Software, result.Module, result.Dropped),
            now
        );
        SnapshotTaken(name.Server, result.Software, result.Module, asked.Pages.Count, result.Seq);
        if (presence.IsOverfull(name))
        {
            TooMany(name.Server, PresenceTracker.SessionsMax);
        }

        return new EventBatch(name, [.. changes.Select(c => new RelayEvent.PresenceChanged(c, now))], null);
    }

    /// <summary>One <c>events</c> stanza.</summary>
    /// <param name="events">As it came.</param>
    /// <param name="batch">What is to be committed, null where nothing is.</param>
    /// <returns>False: the stream does not continue; a new snapshot is to be asked for.</returns>
    public bool TryProcess(BridgeEvents events, out EventBatch? batch)
    {
        batch = null;
        switch (state)
        {
            case StreamState.Idle:
                // a node that was not asked yet is known by its first numbered stanza
                return events.Snapshot;
            case StreamState.Asked asked:
                if (events.Snapshot)
                {
                    CollectPage(asked, events);
                }

                // what comes before the result of our own request is not acknowledged, so it comes again
                return true;
            case StreamState.Live live:
                MarkHeard();
                return TryProcessLive(live, events, out batch);
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    private bool TryProcessLive(StreamState.Live live, BridgeEvents events, out EventBatch? batch)
    {
        batch = null;
        switch (live.StepOf(events, committed))
        {
            case StreamStep.Skip:
                return true;
            case StreamStep.NewEpoch:
                NewEpoch(name.Server);
                return false;
            case StreamStep.Hole:
                Hole(name.Server, live.Seq + 1, events.Seq!.Value);
                return false;
            case StreamStep.Repeated:
                beforeRepeated = new StreamPoint(live.Epoch, events.Seq!.Value - 1);
                return false;
            case StreamStep.Next:
                var seq = events.Seq!.Value;
                state = events.Replay ? live : live with { Seq = seq };
                batch = new EventBatch(name, reader.Read(events, live.Numbering, seq), new StreamPoint(live.Numbering, seq));
                if (events.Children.Any(BridgeProtocol.IsEnd))
                {
                    Ended(name.Server);
                    MarkLost();
                }

                return true;
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    /// <summary>The name under which the stream's stanzas are committed from this snapshot on: the module's epoch, or where the module
    /// gave out numbers again (a server that was set back to an earlier moment) another name for it.</summary>
    private string ResumeNumbering(BridgeSnapshot result)
    {
        var repeated = beforeRepeated;
        beforeRepeated = null;
        if (committed is not { } position || BridgeProtocol.WireEpoch(position.Epoch) != result.Epoch)
        {
            committed = null;
            return result.Epoch;
        }

        if (repeated is null && result.Seq >= position.Seq)
        {
            return position.Epoch;
        }

        Fell(name.Server, repeated is { } before ? before.Seq + 1 : result.Seq, position.Seq);
        committed = null;
        return BridgeProtocol.NextNumbering(position.Epoch);
    }

    private void MarkHeard()
    {
        lastHeard = clock.GetTimestamp();
        presence.MarkHeard(name, clock.GetUtcNow(), reader.Heartbeat);
    }

    private void CollectPage(StreamState.Asked asked, BridgeEvents events)
    {
        MarkHeard();
        var now = clock.GetUtcNow();
        foreach (var child in events.Children)
        {
            // one more than the tracker keeps is enough to know that they are too many
            if (asked.Pages.Count > PresenceTracker.SessionsMax)
            {
                return;
            }

            if (
                child.Name == BridgeProtocol.Namespace + "session"
                && BridgeProtocol.TryReadSession(child, name.Server, now, out var session)
                && session.Session is not null
            )
            {
                asked.Pages.Add(session);
            }
        }
    }

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "Server {Server} ({Software}, mod_push_relay {Module}) reports {Sessions} sessions; events go on after number {Seq}"
    )]
    private partial void SnapshotTaken(string server, string software, string module, int sessions, long seq);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Server {Server} was silent for {Seconds:0} s: its sessions are unknown, and a new snapshot is asked for"
    )]
    private partial void Silent(string server, double seconds);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The module of server {Server} is being unloaded: its sessions are unknown until it is back"
    )]
    private partial void Ended(string server);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The module of server {Server} was restarted: a new snapshot is asked for")]
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
}
