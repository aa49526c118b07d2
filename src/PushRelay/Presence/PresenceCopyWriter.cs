using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PushRelay.Cluster;
using PushRelay.Storage;

namespace PushRelay.Presence;

/// <summary>
/// Writes the copy of one link's sessions for the other nodes, under one term of the link's lease. In batches of a bounded size, apart
/// from the sending of alerts: nothing waits for it.
/// </summary>
internal sealed class PresenceCopyWriter(
    IDbContextFactory<RelayDb> databases,
    PresenceTracker tracker,
    LeaseTable leases,
    DatabaseFailures failures,
    IdSequence sequence,
    TimeSpan historyKept,
    TimeProvider clock,
    IReadOnlyList<string> servers,
    LeaseTerm term
)
{
    private const int SessionsAtOnceMax = 2000;
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>Without a change the streams' rows are written this often, so that they do not grow old.</summary>
    private static readonly TimeSpan RefreshInterval = TimeSpan.FromSeconds(2);

    /// <summary>Between the parts of a large snapshot, for the other users of the database.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

    private static readonly TimeSpan PruneEvery = TimeSpan.FromMinutes(10);
    private const int PruneMax = 5_000;

    /// <summary>An older copy was not being written: what happened since is not known.</summary>
    private static readonly TimeSpan GapMin = PresenceCopy.AgeMax;

    private long? pruned;

    /// <summary>Streams of which a whole snapshot is being written, part by part.</summary>
    private readonly HashSet<StreamName> partly = [];

    /// <summary>Since when each of these servers is unknown.</summary>
    private readonly Dictionary<string, DateTimeOffset> downSince = new(StringComparer.Ordinal);

    /// <summary>The streams in the table, as far as this node knows, and which of them were live; null before the first write.</summary>
    private (long At, HashSet<StreamName> Streams, HashSet<StreamName> Live)? written;

    /// <summary>The subject of a database that does not take the copy.</summary>
    private readonly string databaseWork = $"sessions of {string.Join(", ", servers)}";

    public IReadOnlyList<string> Servers => servers;

    /// <summary>Until stopped, or until another node has the lease: that one writes then.</summary>
    public async Task RunAsync(CancellationToken stoppingToken)
    {
        try
        {
            while (true)
            {
                var rest = await TryWriteAsync(stoppingToken);
                await Task.Delay(rest ? Pause : Interval, clock, stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // what is not written is unknown to the others in five seconds
        }
        catch (LeaseLostException)
        {
            // nothing more may be written
        }
        finally
        {
            failures.Remove(databaseWork);
        }
    }

    /// <summary>Writes what changed, at most <see cref="SessionsAtOnceMax"/> sessions.</summary>
    /// <returns>There is more.</returns>
    /// <exception cref="LeaseLostException">Another node has the link: nothing was written.</exception>
    internal async Task<bool> WriteAsync(CancellationToken cancellationToken)
    {
        var changes = tracker.TakeChanges(servers, SessionsAtOnceMax);
        HashSet<StreamName> live = [.. changes.Where(c => c.Live).Select(c => c.Name)];
        if (
            written is { } last
            && clock.GetElapsedTime(last.At) < RefreshInterval
            && last.Live.SetEquals(live)
            && !changes.Any(c => c.Whole || c.Changed.Count > 0)
        )
        {
            return false;
        }

        try
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
            var now = await leases.FenceAsync(db, term, cancellationToken);
            if (written is null)
            {
                await RecordGapsAsync(db, now, cancellationToken);
            }

            HashSet<StreamName> streams = [.. changes.Select(c => c.Name)];
            if (written is not { Streams: var before } || !before.SetEquals(streams))
            {
                await DeleteOthersAsync(db, streams, cancellationToken);
            }

            foreach (var stream in changes)
            {
                await WriteStreamAsync(db, stream, now, cancellationToken);
            }

            RecordLinks(db, live, now);
            await db.SaveChangesAsync(cancellationToken);
            await PruneAsync(db, now, cancellationToken);
            await transaction.CommitAsync(cancellationToken);
            written = (clock.GetTimestamp(), streams, live);
        }
        catch
        {
            // whether it was committed or not: all of it is written again
            written = null;
            foreach (var server in servers)
            {
                tracker.MarkAllChanged(server);
            }

            throw;
        }

        return changes.Any(c => c.Rest);
    }

    private async Task<bool> TryWriteAsync(CancellationToken cancellationToken)
    {
        try
        {
            var rest = await WriteAsync(cancellationToken);
            failures.Remove(databaseWork);
            return rest;
        }
        catch (Exception exception) when (exception is not (OperationCanceledException or LeaseLostException))
        {
            // the other nodes treat these accounts as unknown until it succeeds
            failures.Add(databaseWork, exception);
            return false;
        }
    }

    /// <summary>Deletes the streams that are no more, also those that the link's last holder wrote.</summary>
    private async Task DeleteOthersAsync(RelayDb db, HashSet<StreamName> streams, CancellationToken cancellationToken)
    {
        foreach (var server in servers)
        {
            var nodes = streams.Where(s => s.Server == server).Select(s => s.Node).ToList();
            await db.Set<StoredStream>().Where(s => s.Server == server && !nodes.Contains(s.Node)).ExecuteDeleteAsync(cancellationToken);
            await db.Set<StoredSession>().Where(s => s.Server == server && !nodes.Contains(s.Node)).ExecuteDeleteAsync(cancellationToken);
        }
    }

    /// <summary>Nothing was observed between the last write of any node and the first write of this node.</summary>
    private async Task RecordGapsAsync(RelayDb db, DateTimeOffset now, CancellationToken cancellationToken)
    {
        foreach (var server in servers)
        {
            var last = await db.Set<StoredStream>()
                .Where(s => s.Server == server)
                .MaxAsync(s => (DateTimeOffset?)s.AsOf, cancellationToken);
            if (last is { } from && now - from > GapMin)
            {
                Record(
                    db,
                    now,
                    server,
                    null,
                    HistoryKind.Gap,
                    new HistoryData
                    {
                        From = from,
                        To = now,
                        Cause = "relay_down",
                    }
                );
            }
        }
    }

    /// <summary>Servers whose sessions became known, or unknown, since the last write.</summary>
    private void RecordLinks(RelayDb db, HashSet<StreamName> live, DateTimeOffset now)
    {
        foreach (var server in servers)
        {
            var (was, isLive) = (written?.Live.Any(s => s.Server == server) ?? false, live.Any(s => s.Server == server));
            if (was == isLive)
            {
                continue;
            }

            Record(db, now, server, null, HistoryKind.Link, new HistoryData { State = isLive ? "up" : "down" });
            if (!isLive)
            {
                downSince[server] = now;
            }
            else if (downSince.Remove(server, out var from))
            {
                Record(
                    db,
                    now,
                    server,
                    null,
                    HistoryKind.Gap,
                    new HistoryData
                    {
                        From = from,
                        To = now,
                        Cause = "link_down",
                    }
                );
            }
        }
    }

    private void Record(RelayDb db, DateTimeOffset now, string server, string? account, HistoryKind kind, HistoryData data) =>
        db.Add(
            new HistoryEntry
            {
                Id = sequence.Next(now),
                Server = server,
                Account = account,
                Kind = kind,
                At = now,
                Data = data.ToJson(),
            }
        );

    private async Task PruneAsync(RelayDb db, DateTimeOffset now, CancellationToken cancellationToken)
    {
        if (pruned is { } last && clock.GetElapsedTime(last) < PruneEvery)
        {
            return;
        }

        var first = IdSequence.First(now - historyKept);
        var old = db.Set<HistoryEntry>().Where(h => h.Id.CompareTo(first) < 0).OrderBy(h => h.Id).Take(PruneMax).Select(h => h.Id);
        var count = await db.Set<HistoryEntry>().Where(h => old.Contains(h.Id)).ExecuteDeleteAsync(cancellationToken);
        // while there is more, go on with the next write
        pruned = count == PruneMax ? null : clock.GetTimestamp();
    }

    /// <summary>Each session that changed since the last write.</summary>
    private async Task RecordSessionsAsync(
        RelayDb db,
        StreamChanges changes,
        IQueryable<StoredSession> sessions,
        List<string> gone,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var server = changes.Name.Server;
        foreach (var some in gone.Chunk(RelayDb.ParametersMax))
        {
            var ended = await sessions
                .Where(s => some.Contains(s.Sid))
                .Select(s => new { s.Account, s.Resource })
                .ToListAsync(cancellationToken);
            foreach (var session in ended)
            {
                Record(
                    db,
                    now,
                    server,
                    session.Account,
                    HistoryKind.Session,
                    new HistoryData { Resource = session.Resource, State = "closed" }
                );
            }
        }

        foreach (var (_, account, session) in changes.Changed.Where(c => c.Session is not null))
        {
            Record(db, now, server, account, HistoryKind.Session, HistoryData.Of(session!));
        }
    }

    private async Task WriteStreamAsync(RelayDb db, StreamChanges changes, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var sessions = db.Set<StoredSession>().Where(s => s.Server == changes.Name.Server && s.Node == changes.Name.Node);
        if (changes.Whole)
        {
            await sessions.ExecuteDeleteAsync(cancellationToken);
        }

        var gone = changes.Changed.Where(c => c.Session is null).Select(c => c.Sid).ToList();
        if (changes.Whole)
        {
            partly.Add(changes.Name);
        }

        if (!partly.Contains(changes.Name))
        {
            await RecordSessionsAsync(db, changes, sessions, gone, now, cancellationToken);
        }
        else if (!changes.Rest)
        {
            partly.Remove(changes.Name);
        }

        if (gone.Count > 0 && !changes.Whole)
        {
            await sessions.Where(s => gone.Contains(s.Sid)).ExecuteDeleteAsync(cancellationToken);
        }

        await PutSessionsAsync(db, changes, cancellationToken);
        await PutStreamRowAsync(db, changes, now, cancellationToken);
    }

    private static async Task PutStreamRowAsync(RelayDb db, StreamChanges changes, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var row = await db.Set<StoredStream>().FindAsync([changes.Name.Server, changes.Name.Node], cancellationToken);
        if (row is null)
        {
            row = new StoredStream
            {
                Server = changes.Name.Server,
                Node = changes.Name.Node,
                Software = "?",
                Module = "?",
                Dropped = 0,
                Sessions = 0,
                HeardAt = now,
                Live = false,
                AsOf = now,
            };
            db.Add(row);
        }

        (row.Software, row.Module, row.Dropped) = (Cut(changes.Source.Software), Cut(changes.Source.Module), changes.Source.Dropped);
        // half a snapshot says nothing of who is not in it
        (row.Sessions, row.Live, row.AsOf) = (changes.Sessions, changes.Live && !changes.Rest, now);
        row.HeardAt = changes.HeardAt == default ? row.HeardAt : changes.HeardAt;
        await db.SaveChangesAsync(cancellationToken);
    }

    private static string Cut(string text) => text.Length <= 100 ? text : text[..100];

    /// <summary>One statement, however many: arrays on PostgreSQL, JSON on SQLite.</summary>
    private static Task<int> PutSessionsAsync(RelayDb db, StreamChanges changes, CancellationToken cancellationToken)
    {
        var put = changes.Changed.Where(c => c.Session is not null).Select(c => (Account: c.Account!, Session: c.Session!)).ToList();
        const string Into = "INSERT INTO sessions (server, node, sid, account, resource, state, available, priority, show, since) ";
        const string Replacing =
            " ON CONFLICT (server, node, sid) DO UPDATE SET account = excluded.account, resource = excluded.resource, "
            + "state = excluded.state, available = excluded.available, priority = excluded.priority, show = excluded.show, "
            + "since = excluded.since";
        var (server, node) = (changes.Name.Server, changes.Name.Node);
        if (put.Count == 0)
        {
            return Task.FromResult(0);
        }

        if (db.IsSqlite)
        {
            var json = JsonSerializer.Serialize(
                put.Select(p =>
                    new object?[]
                    {
                        p.Session.Sid,
                        p.Account,
                        p.Session.Resource,
                        (int)p.Session.State,
                        p.Session.Available ? 1 : 0,
                        p.Session.Priority,
                        p.Session.Show,
                        p.Session.Since.UtcTicks,
                    }
                )
            );
            return db.Database.ExecuteSqlRawAsync(
                Into
                    + "SELECT {0}, {1}, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, "
                    + "value ->> 6, value ->> 7 FROM json_each({2}) WHERE true"
                    + Replacing,
                [server, node, json],
                cancellationToken
            );
        }

        return db.Database.ExecuteSqlRawAsync(
            Into + "SELECT {0}, {1}, * FROM unnest({2}, {3}, {4}, {5}, {6}, {7}, {8}, {9})" + Replacing,
            [
                server,
                node,
                put.Select(p => p.Session.Sid).ToArray(),
                put.Select(p => p.Account).ToArray(),
                put.Select(p => p.Session.Resource).ToArray(),
                put.Select(p => (int)p.Session.State).ToArray(),
                put.Select(p => p.Session.Available).ToArray(),
                put.Select(p => p.Session.Priority).ToArray(),
                put.Select(p => p.Session.Show).ToArray(),
                put.Select(p => p.Session.Since.UtcDateTime).ToArray(),
            ],
            cancellationToken
        );
    }
}
