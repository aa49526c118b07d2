using System.Collections.Concurrent;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PushRelay.Cluster;
using PushRelay.Storage;

namespace PushRelay.Presence;

/// <summary>
/// The copy of the sessions that the nodes without the link go by, and an operator looks at. Written beside the alerts' way, in batches
/// of a bounded size, by the node that has the link; so at most a second late, and unknown when it is older than <see cref="AgeMax"/>.
/// </summary>
internal sealed partial class PresenceStore(
    IDbContextFactory<RelayDb> databases,
    PresenceTracker tracker,
    LeaseTable leases,
    DatabaseClock databaseClock,
    TimeProvider clock,
    ILogger<PresenceStore> logger
) : BackgroundService
{
    /// <summary>What is older says nothing any more.</summary>
    public static readonly TimeSpan AgeMax = TimeSpan.FromSeconds(5);

    private const int SessionsAtOnceMax = 2000;
    private static readonly TimeSpan Every = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan SayAgainAfter = TimeSpan.FromSeconds(2);

    // a snapshot of many sessions: between its parts the database is others'
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

    /// <summary><see cref="AgeMax"/> but in tests, which a slow machine may hold up.</summary>
    internal TimeSpan AgeBorne { get; set; } = AgeMax;

    private readonly ConcurrentDictionary<string, LeaseTerm> terms = new(StringComparer.Ordinal);

    /// <summary>Server to nodes: the streams that stand in the table, as far as this node knows.</summary>
    private readonly ConcurrentDictionary<string, HashSet<string>> written = new(StringComparer.Ordinal);

    /// <summary>When each link's streams were last written, and which were live then.</summary>
    private readonly Dictionary<LeaseTerm, (long At, HashSet<StreamName> Live)> said = [];
    private bool failing;

    /// <summary>From here this node says what the server's sessions are.</summary>
    public void Begin(string server, LeaseTerm term)
    {
        terms[server] = term;
        written.TryRemove(server, out _);
        tracker.Rewrite(server);
    }

    /// <summary>From here another may.</summary>
    public void End(string server) => terms.TryRemove(server, out _);

    /// <summary>This node has the server's link, or is about to make it.</summary>
    public bool Holds(string server) => terms.ContainsKey(server);

    /// <summary>An account, from this node's own link or else from what the node that has it wrote.</summary>
    public async Task<AccountPresence> OfAsync(string server, string account, CancellationToken cancellationToken) =>
        Holds(server) ? tracker.Get(server, account) : await StoredAsync(server, account, cancellationToken);

    /// <summary>An account as it was last written; unknown where that is too long ago.</summary>
    public async Task<AccountPresence> StoredAsync(string server, string account, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await databaseClock.NowAsync(db, cancellationToken);
        // the sessions between two looks at their streams: a snapshot that is replaced meanwhile is not taken for another
        if (!await IsKnownAsync(db, server, now, cancellationToken))
        {
            return AccountPresence.Unknown;
        }

        var sessions = await db.Set<StoredSession>()
            .AsNoTracking()
            .Where(s => s.Account == account && s.Server == server)
            .ToListAsync(cancellationToken);
        return await IsKnownAsync(db, server, now, cancellationToken)
            ? AccountPresence.Of([
                .. sessions.Select(s => new Session(s.Sid, s.Resource, s.State, s.Available, s.Priority, s.Show, s.Since)),
            ])
            : AccountPresence.Unknown;
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            while (true)
            {
                var rest = await TryWriteAsync(stoppingToken);
                await Task.Delay(rest ? Pause : Every, clock, stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // what is not written is unknown in five seconds
        }
    }

    /// <summary>Writes what changed, at most <see cref="SessionsAtOnceMax"/> sessions a link.</summary>
    /// <returns>There is more.</returns>
    internal async Task<bool> WriteAsync(CancellationToken cancellationToken)
    {
        var rest = false;
        foreach (var link in terms.GroupBy(t => t.Value, t => t.Key).ToList())
        {
            var changes = tracker.TakeChanges([.. link], SessionsAtOnceMax);
            if (!changes.Any(c => c.Whole || c.Changed.Count > 0) && IsFresh(link.Key, changes))
            {
                continue;
            }

            try
            {
                await using var db = await databases.CreateDbContextAsync(cancellationToken);
                await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
                var now = await leases.FenceAsync(db, link.Key, cancellationToken);
                foreach (var server in link)
                {
                    await ForgetOthersAsync(
                        db,
                        server,
                        [.. changes.Where(c => c.Name.Server == server).Select(c => c.Name.Node)],
                        cancellationToken
                    );
                }

                foreach (var stream in changes)
                {
                    rest |= await WriteAsync(db, stream, now, cancellationToken);
                }

                await transaction.CommitAsync(cancellationToken);
                said.Keys.Where(term => term.Name == link.Key.Name).ToList().ForEach(term => said.Remove(term));
                said[link.Key] = (clock.GetTimestamp(), LiveOf(changes));
            }
            catch
            {
                // whatever of it was written: it is written again
                foreach (var server in link)
                {
                    tracker.Rewrite(server);
                    written.TryRemove(server, out _);
                }

                throw;
            }
        }

        return rest;
    }

    /// <summary>Nothing to say but that all is as it was, and that was said a moment ago.</summary>
    private bool IsFresh(LeaseTerm term, IReadOnlyList<StreamChanges> changes) =>
        said.TryGetValue(term, out var last) && clock.GetElapsedTime(last.At) < SayAgainAfter && last.Live.SetEquals(LiveOf(changes));

    private static HashSet<StreamName> LiveOf(IReadOnlyList<StreamChanges> changes) => [.. changes.Where(c => c.Live).Select(c => c.Name)];

    /// <summary>Streams that are no more, also those of who had the link before.</summary>
    private async Task ForgetOthersAsync(RelayDb db, string server, HashSet<string> nodes, CancellationToken cancellationToken)
    {
        if (!written.TryGetValue(server, out var before) || !before.SetEquals(nodes))
        {
            await db.Set<StoredStream>().Where(s => s.Server == server && !nodes.Contains(s.Node)).ExecuteDeleteAsync(cancellationToken);
            await db.Set<StoredSession>().Where(s => s.Server == server && !nodes.Contains(s.Node)).ExecuteDeleteAsync(cancellationToken);
            written[server] = nodes;
        }
    }

    private async Task<bool> TryWriteAsync(CancellationToken cancellationToken)
    {
        try
        {
            var rest = await WriteAsync(cancellationToken);
            failing = false;
            return rest;
        }
        catch (LeaseLostException)
        {
            // whoever has the link writes
            return false;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            if (!failing)
            {
                Failed(exception.GetBaseException().Message);
            }

            failing = true;
            return false;
        }
    }

    private async Task<bool> IsKnownAsync(RelayDb db, string server, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var streams = await db.Set<StoredStream>()
            .AsNoTracking()
            .Where(s => s.Server == server)
            .Select(s => new { s.Live, s.AsOf })
            .ToListAsync(cancellationToken);
        return streams.Count > 0 && streams.TrueForAll(s => s.Live && now - s.AsOf <= AgeBorne);
    }

    private static async Task<bool> WriteAsync(RelayDb db, StreamChanges changes, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var sessions = db.Set<StoredSession>().Where(s => s.Server == changes.Name.Server && s.Node == changes.Name.Node);
        if (changes.Whole)
        {
            await sessions.ExecuteDeleteAsync(cancellationToken);
        }

        var gone = changes.Changed.Where(c => c.Session is null).Select(c => c.Sid).ToList();
        if (gone.Count > 0 && !changes.Whole)
        {
            await sessions.Where(s => gone.Contains(s.Sid)).ExecuteDeleteAsync(cancellationToken);
        }

        await PutAsync(db, changes, cancellationToken);
        await PutStreamAsync(db, changes, now, cancellationToken);
        return changes.Rest;
    }

    private static async Task PutStreamAsync(RelayDb db, StreamChanges changes, DateTimeOffset now, CancellationToken cancellationToken)
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
    private static Task<int> PutAsync(RelayDb db, StreamChanges changes, CancellationToken cancellationToken)
    {
        var put = changes.Changed.Where(c => c.Session is not null).Select(c => (Account: c.Account!, Session: c.Session!)).ToList();
        const string Into = "INSERT INTO sessions (server, node, sid, account, resource, state, available, priority, show, since) ";
        const string Replacing =
            " ON CONFLICT (server, node, sid) DO UPDATE SET account = excluded.account, resource = excluded.resource, state = "
            + "excluded.state, "
            + "available = excluded.available, priority = excluded.priority, show = excluded.show, since = excluded.since";
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
                    + "SELECT {0}, {1}, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, "
                    + "value ->> 7 "
                    + "FROM json_each({2}) WHERE true"
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

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The sessions cannot be written for the other nodes, for whom they are unknown meanwhile: {Problem}"
    )]
    private partial void Failed(string problem);
}

internal static class PresenceServices
{
    public static IServiceCollection AddPresence(this IServiceCollection services)
    {
        services.AddSingleton<PresenceTracker>(_ => new PresenceTracker());
        services.AddSingleton<PresenceStore>();
        services.AddHostedService(provider => provider.GetRequiredService<PresenceStore>());
        return services;
    }
}
