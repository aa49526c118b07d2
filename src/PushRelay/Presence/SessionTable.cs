using System.Collections.Immutable;

namespace PushRelay.Presence;

/// <summary>What is known of one stream. Not thread-safe.</summary>
internal sealed class StreamSessions
{
    public Dictionary<string, string> AccountBySid { get; } = new(StringComparer.Ordinal);

    public PresenceJournal Journal { get; } = new();

    public bool Live { get; set; }

    /// <summary>It has more sessions than are kept.</summary>
    public bool Overfull { get; set; }

    public bool IsKnown => Live && !Overfull;

    public StreamSource Source { get; set; } = StreamSource.Unknown;

    public DateTimeOffset HeardAt { get; set; }

    /// <summary>How often its module says something at least.</summary>
    public TimeSpan Heartbeat { get; set; }

    /// <summary>Until then an answer to the request for its snapshot may come.</summary>
    public DateTimeOffset AwaitedUntil { get; set; }
}

/// <summary>The sessions of all streams by account, bounded in their number; each change goes into its stream's journal. Not
/// thread-safe.</summary>
internal sealed class SessionTable(int sessionsMax)
{
    private readonly Dictionary<string, ImmutableArray<Held>> accounts = new(StringComparer.Ordinal);
    private int count;

    public IEnumerable<(StreamSessions Stream, SessionState State)> All() =>
        accounts.Values.SelectMany(held => held).Select(h => (h.Stream, h.Session.State));

    public ImmutableArray<Session> Of(string account) =>
        accounts.TryGetValue(account, out var sessions) ? [.. sessions.Select(s => s.Session)] : [];

    /// <summary>The account's resources that have a session in front.</summary>
    public HashSet<string> FrontOf(string account) =>
        accounts.TryGetValue(account, out var sessions)
            ? sessions.Where(s => s.Session.InFront).Select(s => s.Session.Resource).ToHashSet(StringComparer.Ordinal)
            : [];

    /// <summary>Without account and session where the stream has none of that id.</summary>
    public (string Sid, string? Account, Session? Session) Find(StreamSessions stream, string sid)
    {
        if (stream.AccountBySid.TryGetValue(sid, out var account) && accounts.TryGetValue(account, out var sessions))
        {
            foreach (var held in sessions)
            {
                if (held.Stream == stream && held.Session.Sid == sid)
                {
                    return (sid, account, held.Session);
                }
            }
        }

        return (sid, null, null);
    }

    /// <summary>Replaces a session, or adds it; where the table is full, the stream is overfull instead.</summary>
    public void Put(StreamSessions stream, string account, Session session)
    {
        Remove(stream, session.Sid);
        if (count >= sessionsMax)
        {
            stream.Overfull = true;
            return;
        }

        stream.AccountBySid[session.Sid] = account;
        accounts[account] = accounts.TryGetValue(account, out var others)
            ? others.Add(new Held(stream, session))
            : [new Held(stream, session)];
        stream.Journal.Record(session.Sid, stream.AccountBySid.Keys);
        count++;
    }

    public void Remove(StreamSessions stream, string sid)
    {
        if (!stream.AccountBySid.Remove(sid, out var account) || !accounts.TryGetValue(account, out var sessions))
        {
            return;
        }

        count--;
        stream.Journal.Record(sid, stream.AccountBySid.Keys);
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

    private readonly record struct Held(StreamSessions Stream, Session Session);
}
