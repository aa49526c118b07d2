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
    string Sid, string Resource, SessionState State, bool Available, int Priority, string? Show, DateTimeOffset Since)
{
    /// <summary>Its user is looking at it, as far as a server can know.</summary>
    public bool InFront => State == SessionState.Active && Available && Priority >= 0;
}

/// <summary>One account at one moment.</summary>
internal sealed record AccountPresence(AccountState State, ImmutableArray<Session> Sessions)
{
    public static readonly AccountPresence Unknown = new(AccountState.Unknown, []);

    public bool InFront(string resource) => State != AccountState.Unknown && Sessions.Any(s => s.InFront && s.Resource == resource);
}

/// <summary>A stream of one server: its name, and its node where the server is a cluster (else empty).</summary>
internal readonly record struct StreamName(string Server, string Node);

/// <summary>What one step of presence means for an account's alerts.</summary>
/// <param name="Account">The bare JID.</param>
/// <param name="CameToFront">Resources with a session in front now that had none before.</param>
/// <param name="LeftForeground">It was in foreground and is no longer.</param>
internal sealed record PresenceChange(string Account, ImmutableArray<string> CameToFront, bool LeftForeground);

/// <summary>
/// Knows every session of every server whose stream is live, keyed by session id, never by JID: a resource that is replaced
/// has two sessions for a moment. Thread-safe; the truth is the server's, so nothing is kept on disk.
/// About 400 bytes a session.
/// </summary>
internal sealed class PresenceTracker
{
    private readonly Lock sync = new();
    private readonly Dictionary<StreamName, StreamSessions> streams = [];
    private readonly Dictionary<string, ImmutableArray<(StreamName Stream, Session Session)>> accounts = new(StringComparer.Ordinal);

    /// <param name="server">The virtual host of the account: its domain.</param>
    /// <param name="account">The bare JID.</param>
    public AccountPresence Get(string server, string account)
    {
        lock (sync)
        {
            return IsKnown(server) ? new AccountPresence(StateOf(account), SessionsOf(account)) : AccountPresence.Unknown;
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

    /// <summary>The stream is no more, and not missed: another took its place.</summary>
    public void Forget(StreamName stream)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                known.AccountBySid.Keys.ToList().ForEach(sid => Remove(stream, known, sid));
                streams.Remove(stream);
            }
        }
    }

    /// <summary>Replaces whatever is known of a stream by its snapshot; from here its accounts' states are known.</summary>
    public IReadOnlyList<PresenceChange> Replace(StreamName stream, IReadOnlyList<(string Account, Session Session)> sessions)
    {
        lock (sync)
        {
            var known = streams.TryGetValue(stream, out var was) ? was : streams[stream] = new StreamSessions();
            var touched = known.AccountBySid.Values.Concat(sessions.Select(s => s.Account)).Distinct(StringComparer.Ordinal).ToList();
            var before = touched.ToDictionary(a => a, FrontOf, StringComparer.Ordinal);
            foreach (var sid in known.AccountBySid.Keys.ToList())
            {
                Remove(stream, known, sid);
            }

            foreach (var (account, session) in sessions)
            {
                Put(stream, known, account, session);
            }

            known.Live = true;
            return [.. touched.Select(a => Change(a, before[a])).OfType<PresenceChange>()];
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
            Remove(stream, known, sid);
            if (session is not null)
            {
                Put(stream, known, account, session);
            }

            return Change(account, before);
        }
    }

    /// <summary>
    /// The stream is lost. Its sessions are kept, for the next snapshot to tell who left the foreground meanwhile, but until then
    /// no state is known.
    /// </summary>
    public void Lose(StreamName stream)
    {
        lock (sync)
        {
            if (streams.TryGetValue(stream, out var known))
            {
                known.Live = false;
            }
        }
    }

    private bool IsKnown(string server)
    {
        var live = false;
        foreach (var (name, stream) in streams)
        {
            if (name.Server == server)
            {
                if (!stream.Live)
                {
                    return false;
                }

                live = true;
            }
        }

        return live;
    }

    private AccountState StateOf(string account) => !accounts.TryGetValue(account, out var sessions)
        ? AccountState.Offline
        : sessions.Any(s => s.Session.InFront) ? AccountState.Foreground : AccountState.Background;

    private ImmutableArray<Session> SessionsOf(string account) =>
        accounts.TryGetValue(account, out var sessions) ? [.. sessions.Select(s => s.Session)] : [];

    private HashSet<string> FrontOf(string account) => accounts.TryGetValue(account, out var sessions)
        ? sessions.Where(s => s.Session.InFront).Select(s => s.Session.Resource).ToHashSet(StringComparer.Ordinal)
        : [];

    private PresenceChange? Change(string account, HashSet<string> before)
    {
        var after = FrontOf(account);
        var came = after.Except(before).ToImmutableArray();
        var left = before.Count > 0 && after.Count == 0;
        return came.IsEmpty && !left ? null : new PresenceChange(account, came, left);
    }

    private void Put(StreamName stream, StreamSessions known, string account, Session session)
    {
        Remove(stream, known, session.Sid);
        known.AccountBySid[session.Sid] = account;
        accounts[account] = accounts.TryGetValue(account, out var others) ? others.Add((stream, session)) : [(stream, session)];
    }

    private void Remove(StreamName stream, StreamSessions known, string sid)
    {
        if (!known.AccountBySid.Remove(sid, out var account) || !accounts.TryGetValue(account, out var sessions))
        {
            return;
        }

        var rest = sessions.RemoveAll(s => s.Stream == stream && s.Session.Sid == sid);
        if (rest.IsEmpty)
        {
            accounts.Remove(account);
        }
        else
        {
            accounts[account] = rest;
        }
    }

    private sealed class StreamSessions
    {
        public Dictionary<string, string> AccountBySid { get; } = new(StringComparer.Ordinal);

        public bool Live { get; set; }
    }
}
