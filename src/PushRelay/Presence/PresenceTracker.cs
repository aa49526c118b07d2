using System.Collections.Immutable;

namespace PushRelay.Presence;

/// <summary>CONTRACT of the bridge: a session that ended is not a session any more.</summary>
internal enum SessionState
{
    /// <summary>Connected, in front.</summary>
    Active,

    /// <summary>Connected, XEP-0352 inactive.</summary>
    Inactive,

    /// <summary>XEP-0198: the link is lost, the session resumable.</summary>
    Hibernating,
}

internal enum AccountState
{
    /// <summary>No session.</summary>
    Offline,

    /// <summary>Sessions, none in front.</summary>
    Background,

    /// <summary>A session in front.</summary>
    Foreground,

    /// <summary>The link to the server is lost, or its first snapshot has not come: never withholds an alert.</summary>
    Unknown,
}

/// <summary>One XMPP session, whole, as its server last reported it.</summary>
internal sealed record Session(
    string Sid,
    string Resource,
    SessionState State,
    bool Available,
    int Priority,
    string? Show,
    DateTimeOffset Since
)
{
    /// <summary>Its user is looking at it, as far as a server can know.</summary>
    public bool InFront => State == SessionState.Active && Available && Priority >= 0;
}

/// <summary>One account at one moment.</summary>
internal sealed record AccountPresence(AccountState State, ImmutableArray<Session> Sessions)
{
    public static readonly AccountPresence Unknown = new(AccountState.Unknown, []);

    /// <summary>Of an account whose sessions are all known.</summary>
    public static AccountPresence Of(ImmutableArray<Session> sessions) =>
        new(
            sessions.IsEmpty ? AccountState.Offline
                : sessions.Any(s => s.InFront) ? AccountState.Foreground
                : AccountState.Background,
            sessions
        );

    public bool InFront(string resource) => State != AccountState.Unknown && Sessions.Any(s => s.InFront && s.Resource == resource);
}

/// <summary>A stream of one server: its name, and its node where the server is a cluster (else empty).</summary>
internal readonly record struct StreamName(string Server, string Node);

/// <summary>What one step of presence means for an account's alerts.</summary>
/// <param name="Account">The bare JID.</param>
/// <param name="CameToFront">Resources with a session in front now that had none before.</param>
/// <param name="LeftForeground">It was in foreground and is no longer.</param>
internal sealed record PresenceChange(string Account, ImmutableArray<string> CameToFront, bool LeftForeground);

/// <summary>What a stream's server says of itself with each snapshot.</summary>
/// <param name="Software">The server's name and version.</param>
/// <param name="Module">The module's version.</param>
/// <param name="Dropped">Events that the module's bounds have cost.</param>
internal sealed record StreamSource(string Software, string Module, long Dropped)
{
    public static readonly StreamSource Unknown = new("?", "?", 0);
}

/// <summary>
/// What is to be written of a stream: its state, and the sessions that changed, null where one ended. <c>Whole</c>: what was written of it
/// before goes first. <c>Rest</c>: more sessions changed than these.
/// </summary>
internal sealed record StreamChanges(
    StreamName Name,
    StreamSource Source,
    bool Live,
    DateTimeOffset HeardAt,
    int Sessions,
    bool Whole,
    bool Rest,
    IReadOnlyList<(string Sid, string? Account, Session? Session)> Changed
);

/// <summary>
/// Knows every session of every server whose stream is live, keyed by session id, never by JID: a resource that is replaced
/// has two sessions for a moment. Thread-safe; the truth is the server's, what is kept on disk is a copy for other nodes.
/// docs/bridge.md has what a session costs; beyond <see cref="SessionsMax"/> a stream's states are unknown.
/// </summary>
internal sealed class PresenceTracker(int sessionsMax = PresenceTracker.SessionsMax)
{
    /// <summary>Of all streams together.</summary>
    public const int SessionsMax = 1_000_000;

    private readonly Lock sync = new();
    private readonly Dictionary<StreamName, StreamSessions> streams = [];
    private readonly Dictionary<string, ImmutableArray<Held>> accounts = new(StringComparer.Ordinal);
    private int count;

    /// <param name="server">The virtual host of the account: its domain.</param>
    /// <param name="account">The bare JID.</param>
    public AccountPresence Get(string server, string account)
    {
        lock (sync)
        {
            return IsKnown(server) ? AccountPresence.Of(SessionsOf(account)) : AccountPresence.Unknown;
        }
    }

    /// <summary>Every stream of the server is live: the states of its accounts are known.</summary>
    public bool Knows(string server)
    {
        lock (sync)
        {
            return IsKnown(server);
        }
    }

    /// <summary>The stream is no more, and not missed: another took its place, or another node has the link.</summary>
    public void Forget(StreamName stream)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                known.AccountBySid.Keys.ToList().ForEach(sid => Remove(known, sid));
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

            var changes = Exchange(known, []);
            Forget(stream);
            return changes;
        }
    }

    /// <summary>Replaces whatever is known of a stream by its snapshot; from here its accounts' states are known.</summary>
    public IReadOnlyList<PresenceChange> Replace(
        StreamName stream,
        IReadOnlyList<(string Account, Session Session)> sessions,
        StreamSource? source = null,
        DateTimeOffset heardAt = default
    )
    {
        lock (sync)
        {
            var known = streams.TryGetValue(stream, out var was) ? was : streams[stream] = new StreamSessions();
            (known.Source, known.HeardAt, known.Overfull) = (source ?? StreamSource.Unknown, heardAt, false);
            var changes = Exchange(known, sessions);
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

            var before = FrontOf(account);
            Remove(known, sid);
            if (session is not null)
            {
                Put(known, account, session);
            }

            return Change(account, before);
        }
    }

    /// <summary>
    /// The stream is lost, or not yet there. Its sessions are kept, for the next snapshot to tell who left the foreground meanwhile, but
    /// until then no state of its server is known.
    /// </summary>
    public void Lose(StreamName stream)
    {
        lock (sync)
        {
            (streams.TryGetValue(stream, out var known) ? known : streams[stream] = new StreamSessions()).Live = false;
        }
    }

    /// <summary>The stream's server said something.</summary>
    public void Hear(StreamName stream, DateTimeOffset at)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                known.HeardAt = at;
            }
        }
    }

    /// <summary>It said that there are more sessions than are kept here.</summary>
    public bool IsOverfull(StreamName stream)
    {
        lock (sync)
        {
            return streams.TryGetValue(stream, out var known) && known.Overfull;
        }
    }

    /// <summary>
    /// What changed since it was last asked, of the streams of these servers; a stream that did not is there too, without sessions. What
    /// could not be written is given back by <see cref="Rewrite"/>.
    /// </summary>
    public IReadOnlyList<StreamChanges> TakeChanges(IReadOnlyCollection<string> servers, int sessionsMax)
    {
        lock (sync)
        {
            var changes = new List<StreamChanges>();
            foreach (var (name, known) in streams.Where(s => servers.Contains(s.Key.Server)))
            {
                var some = known.Changed.Take(sessionsMax).ToList();
                sessionsMax -= some.Count;
                known.Changed.ExceptWith(some);
                changes.Add(
                    new StreamChanges(
                        name,
                        known.Source,
                        known.Live && !known.Overfull,
                        known.HeardAt,
                        known.AccountBySid.Count,
                        known.Whole,
                        known.Changed.Count > 0,
                        [.. some.Select(sid => Find(known, sid))]
                    )
                );
                known.Taken();
            }

            return changes;
        }
    }

    /// <summary>Nothing that was written of the server's streams is to be trusted: all of it is a change again.</summary>
    public void Rewrite(string server)
    {
        lock (sync)
        {
            foreach (var (_, known) in streams.Where(s => s.Key.Server == server))
            {
                known.RewriteAll();
            }
        }
    }

    private static (string Sid, string? Account, Session? Session) Find(
        StreamSessions known,
        string sid,
        ImmutableArray<Held> sessions,
        string? account
    )
    {
        foreach (var held in sessions)
        {
            if (held.Stream == known && held.Session.Sid == sid)
            {
                return (sid, account, held.Session);
            }
        }

        return (sid, null, null);
    }

    private (string Sid, string? Account, Session? Session) Find(StreamSessions known, string sid) =>
        known.AccountBySid.TryGetValue(sid, out var account)
            ? Find(known, sid, accounts.GetValueOrDefault(account, []), account)
            : (sid, null, null);

    private bool IsKnown(string server)
    {
        var live = false;
        foreach (var (name, stream) in streams)
        {
            if (name.Server == server)
            {
                if (!stream.Live || stream.Overfull)
                {
                    return false;
                }

                live = true;
            }
        }

        return live;
    }

    private IReadOnlyList<PresenceChange> Exchange(StreamSessions known, IReadOnlyList<(string Account, Session Session)> sessions)
    {
        var touched = known.AccountBySid.Values.Concat(sessions.Select(s => s.Account)).Distinct(StringComparer.Ordinal).ToList();
        var before = touched.ToDictionary(a => a, FrontOf, StringComparer.Ordinal);
        var there = sessions.Select(s => s.Session.Sid).ToHashSet(StringComparer.Ordinal);
        foreach (var sid in known.AccountBySid.Keys.Where(sid => !there.Contains(sid)).ToList())
        {
            Remove(known, sid);
        }

        foreach (var (account, session) in sessions)
        {
            // what did not change is not written again
            if (Find(known, session.Sid) is var (_, owner, same) && (owner != account || same != session))
            {
                Put(known, account, session);
            }
        }

        return [.. touched.Select(a => Change(a, before[a])).OfType<PresenceChange>()];
    }

    private ImmutableArray<Session> SessionsOf(string account) =>
        accounts.TryGetValue(account, out var sessions) ? [.. sessions.Select(s => s.Session)] : [];

    private HashSet<string> FrontOf(string account) =>
        accounts.TryGetValue(account, out var sessions)
            ? sessions.Where(s => s.Session.InFront).Select(s => s.Session.Resource).ToHashSet(StringComparer.Ordinal)
            : [];

    private PresenceChange? Change(string account, HashSet<string> before)
    {
        var after = FrontOf(account);
        var came = after.Except(before).ToImmutableArray();
        var left = before.Count > 0 && after.Count == 0;
        return came.IsEmpty && !left ? null : new PresenceChange(account, came, left);
    }

    private void Put(StreamSessions known, string account, Session session)
    {
        Remove(known, session.Sid);
        if (count >= sessionsMax)
        {
            known.Overfull = true;
            return;
        }

        known.AccountBySid[session.Sid] = account;
        accounts[account] = accounts.TryGetValue(account, out var others)
            ? others.Add(new Held(known, session))
            : [new Held(known, session)];
        known.NoteChange(session.Sid);
        count++;
    }

    private void Remove(StreamSessions known, string sid)
    {
        if (!known.AccountBySid.Remove(sid, out var account) || !accounts.TryGetValue(account, out var sessions))
        {
            return;
        }

        count--;
        known.NoteChange(sid);
        var rest = sessions.RemoveAll(s => s.Stream == known && s.Session.Sid == sid);
        if (rest.IsEmpty)
        {
            accounts.Remove(account);
        }
        else
        {
            accounts[account] = rest;
        }
    }

    private readonly record struct Held(StreamSessions Stream, Session Session);

    private sealed class StreamSessions
    {
        /// <summary>Beyond it one is better off to write all anew: a database that was away for long.</summary>
        private const int ChangesKeptMin = 10_000;

        public Dictionary<string, string> AccountBySid { get; } = new(StringComparer.Ordinal);

        /// <summary>Sessions that changed, or ended, since they were last written.</summary>
        public HashSet<string> Changed { get; private set; } = new(StringComparer.Ordinal);

        public bool Whole { get; private set; } = true;

        public bool Live { get; set; }

        public bool Overfull { get; set; }

        public StreamSource Source { get; set; } = StreamSource.Unknown;

        public DateTimeOffset HeardAt { get; set; }

        public void NoteChange(string sid)
        {
            Changed.Add(sid);
            if (Changed.Count > Math.Max(ChangesKeptMin, 2 * AccountBySid.Count))
            {
                RewriteAll();
            }
        }

        public void Taken()
        {
            Whole = false;
            if (Changed.Count == 0)
            {
                // a set that held a whole snapshot is not kept for the few that follow
                Changed.TrimExcess();
            }
        }

        public void RewriteAll()
        {
            Changed = new HashSet<string>(AccountBySid.Keys, StringComparer.Ordinal);
            Whole = true;
        }
    }
}
