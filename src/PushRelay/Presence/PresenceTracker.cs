using System.Collections.Immutable;

namespace PushRelay.Presence;

/// <summary>Whether a server's module reports what happens.</summary>
internal enum BridgeCoverage
{
    /// <summary>There is none, or it is silent.</summary>
    None,

    /// <summary>A snapshot was requested a moment ago, and has not come yet.</summary>
    Awaited,

    /// <summary>It reports.</summary>
    Live,
}

/// <summary>
/// Knows every session of every server whose stream is live, keyed by session id, never by JID: a resource that is replaced
/// has two sessions for a moment. Thread-safe; the truth is the server's, what is kept on disk is a copy for other nodes.
/// docs/bridge.md has what a session costs; beyond <see cref="SessionsMax"/> a stream's states are unknown.
/// </summary>
internal sealed class PresenceTracker(int sessionsMax = PresenceTracker.SessionsMax, bool awayIsForeground = false)
{
    /// <summary>Of all streams together.</summary>
    public const int SessionsMax = 1_000_000;

    /// <summary>How long publishes wait for the answer to a snapshot request; a longer wait means that the clock was changed.</summary>
    public static readonly TimeSpan AwaitedMax = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan HeartbeatMargin = TimeSpan.FromSeconds(5);

    /// <summary>A session that shows <c>away</c> or <c>xa</c> also counts as in front.</summary>
    public bool AwayIsForeground => awayIsForeground;

    private readonly Lock sync = new();
    private readonly Dictionary<StreamName, StreamSessions> streams = [];
    private readonly SessionTable sessionTable = new(sessionsMax);

    /// <param name="server">The virtual host of the account: its domain.</param>
    /// <param name="account">The bare JID.</param>
    public AccountPresence Get(string server, string account)
    {
        lock (sync)
        {
            return IsKnown_NeedsLock(server) ? AccountPresence.Of(sessionTable.Of(account)) : AccountPresence.Unknown;
        }
    }

    /// <summary>How many sessions each server has in each state.</summary>
    public IReadOnlyList<(string Server, SessionState State, int Count)> SessionCounts()
    {
        lock (sync)
        {
            var servers = streams.ToDictionary(s => s.Value, s => s.Key.Server);
            return
            [
                .. sessionTable
                    .All()
                    .CountBy(s => (Server: servers.GetValueOrDefault(s.Stream, ""), s.State))
                    .Select(c => (c.Key.Server, c.Key.State, c.Value)),
            ];
        }
    }

    /// <summary>What each server's module has dropped because the relay was away for too long, since it was loaded.</summary>
    public IReadOnlyList<(string Server, long Count)> Dropped()
    {
        lock (sync)
        {
            return [.. streams.GroupBy(s => s.Key.Server, (server, same) => (server, same.Sum(s => s.Value.Source.Dropped)))];
        }
    }

    /// <summary>What each server's module says of itself, on every stream.</summary>
    public IReadOnlyList<(StreamName Stream, StreamSource Source)> Sources()
    {
        lock (sync)
        {
            return [.. streams.Select(s => (s.Key, s.Value.Source))];
        }
    }

    /// <summary>Every stream of the server is live: the states of its accounts are known.</summary>
    public bool Knows(string server)
    {
        lock (sync)
        {
            return IsKnown_NeedsLock(server);
        }
    }

    /// <summary>Whether the server's module reports events now; if it does, a publish of the same server (XEP-0357) is not
    /// needed.</summary>
    public BridgeCoverage CoverageOf(string server, DateTimeOffset now)
    {
        lock (sync)
        {
            var covered = false;
            foreach (var (_, stream) in streams.Where(s => s.Key.Server == server))
            {
                if (stream.Live && now - stream.HeardAt <= stream.Heartbeat + HeartbeatMargin)
                {
                    covered = true;
                }
                else if (!stream.Live && now < stream.AwaitedUntil && stream.AwaitedUntil - now <= AwaitedMax)
                {
                    return BridgeCoverage.Awaited;
                }
            }

            return covered ? BridgeCoverage.Live : BridgeCoverage.None;
        }
    }

    /// <summary>The stream's module has been asked for a snapshot; its answer is awaited for so long. Null: it is not awaited.</summary>
    public void MarkAwaited(StreamName stream, DateTimeOffset? until)
    {
        lock (sync)
        {
            (streams.TryGetValue(stream, out var known) ? known : streams[stream] = new StreamSessions()).AwaitedUntil = until ?? default;
        }
    }

    /// <summary>Drops a stream and its sessions: another stream reports them, or another node has the link.</summary>
    public void Forget(StreamName stream)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                known.AccountBySid.Keys.ToList().ForEach(sid => sessionTable.Remove(known, sid));
                streams.Remove(stream);
            }
        }
    }

    /// <summary>Ends a stream whose node is no more, with its sessions.</summary>
    /// <returns>What that means for its accounts.</returns>
    public IReadOnlyList<PresenceChange> End(StreamName stream)
    {
        lock (sync)
        {
            if (!streams.TryGetValue(stream, out var known))
            {
                return [];
            }

            var changes = Exchange_NeedsLock(known, []);
            Forget(stream);
            return changes;
        }
    }

    /// <summary>Replaces all sessions of a stream by its snapshot; from then on its accounts' states are known.</summary>
    public IReadOnlyList<PresenceChange> Replace(
        StreamName stream,
        IReadOnlyList<(string Account, Session Session)> sessions,
        StreamSource? source = null,
        DateTimeOffset heardAt = default
    )
    {
        if (awayIsForeground)
        {
            sessions = [.. sessions.Select(s => (s.Account, s.Session with { AwayIsForeground = true }))];
        }

        lock (sync)
        {
            var known = streams.TryGetValue(stream, out var was) ? was : streams[stream] = new StreamSessions();
            (known.Source, known.HeardAt, known.Overfull) = (source ?? StreamSource.Unknown, heardAt, false);
            var changes = Exchange_NeedsLock(known, sessions);
            known.Live = true;
            return changes;
        }
    }

    /// <summary>A session's new whole state; null where it ended.</summary>
    public PresenceChange? Apply(StreamName stream, string account, string sid, Session? session)
    {
        lock (sync)
        {
            if (!streams.TryGetValue(stream, out var known) || !known.Live)
            {
                return null;
            }

            if (awayIsForeground && session is not null)
            {
                session = session with { AwayIsForeground = true };
            }

            var before = sessionTable.FrontOf(account);
            sessionTable.Remove(known, sid);
            if (session is not null)
            {
                sessionTable.Put(known, account, session);
            }

            return Change_NeedsLock(account, before);
        }
    }

    /// <summary>
    /// The stream is lost, or not yet there: until its next snapshot no state of its server is known. Its sessions are kept, so that the
    /// snapshot shows who left the foreground meanwhile.
    /// </summary>
    public void MarkUnknown(StreamName stream)
    {
        lock (sync)
        {
            (streams.TryGetValue(stream, out var known) ? known : streams[stream] = new StreamSessions()).Live = false;
        }
    }

    /// <summary>The stream's server said something.</summary>
    public void MarkHeard(StreamName stream, DateTimeOffset at, TimeSpan heartbeat = default)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                (known.HeardAt, known.Heartbeat) = (at, heartbeat);
            }
        }
    }

    /// <summary>The stream has more sessions than are kept: none of its states is known.</summary>
    public bool IsOverfull(StreamName stream)
    {
        lock (sync)
        {
            return streams.TryGetValue(stream, out var known) && known.Overfull;
        }
    }

    /// <summary>
    /// The changes of these servers' streams since the last call, at most so many sessions; every stream is among them, also one without
    /// changes. What could not be written is put back by <see cref="MarkAllChanged"/>.
    /// </summary>
    public IReadOnlyList<StreamChanges> TakeChanges(IReadOnlyCollection<string> servers, int sessionsMax)
    {
        lock (sync)
        {
            var changes = new List<StreamChanges>();
            foreach (var (name, known) in streams.Where(s => servers.Contains(s.Key.Server)))
            {
                var whole = known.Journal.Whole;
                var taken = known.Journal.Take(sessionsMax);
                sessionsMax -= taken.Count;
                changes.Add(
                    new StreamChanges(
                        name,
                        known.Source,
                        known.IsKnown,
                        known.HeardAt,
                        known.AccountBySid.Count,
                        whole,
                        known.Journal.HasMore,
                        [.. taken.Select(sid => sessionTable.Find(known, sid))]
                    )
                );
            }

            return changes;
        }
    }

    /// <summary>Nothing that was written of the server's streams counts any more: every session is a change again.</summary>
    public void MarkAllChanged(string server)
    {
        lock (sync)
        {
            foreach (var (_, known) in streams.Where(s => s.Key.Server == server))
            {
                known.Journal.RecordAll(known.AccountBySid.Keys);
            }
        }
    }

    private bool IsKnown_NeedsLock(string server)
    {
        var live = false;
        foreach (var (name, stream) in streams)
        {
            if (name.Server == server)
            {
                if (!stream.IsKnown)
                {
                    return false;
                }

                live = true;
            }
        }

        return live;
    }

    private IReadOnlyList<PresenceChange> Exchange_NeedsLock(
        StreamSessions known,
        IReadOnlyList<(string Account, Session Session)> sessions
    )
    {
        var touched = known.AccountBySid.Values.Concat(sessions.Select(s => s.Account)).Distinct(StringComparer.Ordinal).ToList();
        var before = touched.ToDictionary(a => a, sessionTable.FrontOf, StringComparer.Ordinal);
        var there = sessions.Select(s => s.Session.Sid).ToHashSet(StringComparer.Ordinal);
        foreach (var sid in known.AccountBySid.Keys.Where(sid => !there.Contains(sid)).ToList())
        {
            sessionTable.Remove(known, sid);
        }

        foreach (var (account, session) in sessions)
        {
            // what did not change is not written again
            if (sessionTable.Find(known, session.Sid) is var (_, owner, same) && (owner != account || same != session))
            {
                sessionTable.Put(known, account, session);
            }
        }

        return [.. touched.Select(a => Change_NeedsLock(a, before[a])).OfType<PresenceChange>()];
    }

    private PresenceChange? Change_NeedsLock(string account, HashSet<string> before)
    {
        var after = sessionTable.FrontOf(account);
        var came = after.Except(before).ToImmutableArray();
        var left = before.Count > 0 && after.Count == 0;
        return came.IsEmpty && !left ? null : new PresenceChange(account, came, left);
    }
}
