namespace PushRelay.Presence;

/// <summary>
/// One stream's changes that are not written to the copy yet.
/// </summary>
/// <param name="Name">The stream.</param>
/// <param name="Source">What its server says of itself.</param>
/// <param name="Live">Its sessions are known.</param>
/// <param name="HeardAt">When its server last said something.</param>
/// <param name="Sessions">How many it has.</param>
/// <param name="Whole">The sessions written before are to be deleted first.</param>
/// <param name="Rest">More sessions changed than these: ask again.</param>
/// <param name="Changed">The sessions; without one where it ended.</param>
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

/// <summary>Which sessions of one stream changed, or ended, since they were last taken to be written. Not thread-safe.</summary>
internal sealed class PresenceJournal
{
    /// <summary>With more changes than this, and than twice the sessions, the whole stream is written again: a database that was away for
    /// long.</summary>
    private const int ChangesMax = 10_000;

    private HashSet<string> changed = new(StringComparer.Ordinal);

    /// <summary>Nothing of the stream that was written before counts.</summary>
    public bool Whole { get; private set; } = true;

    public bool HasMore => changed.Count > 0;

    /// <param name="sid">Of a session that changed, or ended.</param>
    /// <param name="sessions">The stream's sessions now.</param>
    public void Record(string sid, IReadOnlyCollection<string> sessions)
    {
        changed.Add(sid);
        if (changed.Count > Math.Max(ChangesMax, 2 * sessions.Count))
        {
            RecordAll(sessions);
        }
    }

    public void RecordAll(IEnumerable<string> sessions)
    {
        changed = new HashSet<string>(sessions, StringComparer.Ordinal);
        Whole = true;
    }

    /// <summary>At most so many, which are no longer in the journal then.</summary>
    public IReadOnlyList<string> Take(int max)
    {
        var taken = changed.Take(max).ToList();
        changed.ExceptWith(taken);
        Whole = false;
        if (changed.Count == 0)
        {
            // a set that held a whole snapshot is not kept for the few that follow
            changed.TrimExcess();
        }

        return taken;
    }
}
