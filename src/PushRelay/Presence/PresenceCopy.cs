using System.Collections.Concurrent;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Cluster;
using PushRelay.Storage;

namespace PushRelay.Presence;

/// <summary>
/// An account's sessions on any node. The node with the link of the account's server reads its own tracker; the others read the copy that
/// that node writes (<see cref="PresenceCopyWriter"/>): at most a second late, and unknown when it is older than <see cref="AgeMax"/>.
/// </summary>
internal sealed class PresenceCopy(
    IDbContextFactory<RelayDb> databases,
    PresenceTracker tracker,
    LeaseTable leases,
    DatabaseClock databaseClock,
    DatabaseFailures failures,
    IdSequence sequence,
    IOptions<RetentionOptions> retention,
    TimeProvider clock
)
{
    public static readonly TimeSpan AgeMax = TimeSpan.FromSeconds(5);

    /// <summary><see cref="AgeMax"/> but in tests, where a slow machine may take longer.</summary>
    internal TimeSpan AgeTolerated { get; set; } = AgeMax;

    private readonly ConcurrentDictionary<string, PresenceCopyWriter> writers = new(StringComparer.Ordinal);

    /// <summary>From here until <see cref="End"/> this node writes the copy of these servers, and reads its own tracker.</summary>
    /// <param name="servers">The virtual hosts behind a link.</param>
    /// <param name="term">Of the link's lease: each write shows it.</param>
    public PresenceCopyWriter Begin(IReadOnlyList<string> servers, LeaseTerm term)
    {
        var writer = new PresenceCopyWriter(databases, tracker, leases, failures, sequence, retention.Value.Presence, clock, servers, term);
        foreach (var server in servers)
        {
            writers[server] = writer;
            tracker.MarkAllChanged(server);
        }

        return writer;
    }

    public void End(PresenceCopyWriter writer)
    {
        foreach (var server in writer.Servers)
        {
            writers.TryRemove(KeyValuePair.Create(server, writer));
        }
    }

    /// <summary>This node has the server's link, or is about to open it.</summary>
    public bool Holds(string server) => writers.ContainsKey(server);

    /// <summary>An account, from this node's own link or else from the copy.</summary>
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
                .. sessions.Select(s => new Session(s.Sid, s.Resource, s.State, s.Available, s.Priority, s.Show, s.Since)
                {
                    AwayIsForeground = tracker.AwayIsForeground,
                }),
            ])
            : AccountPresence.Unknown;
    }

    private async Task<bool> IsKnownAsync(RelayDb db, string server, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var streams = await db.Set<StoredStream>()
            .AsNoTracking()
            .Where(s => s.Server == server)
            .Select(s => new { s.Live, s.AsOf })
            .ToListAsync(cancellationToken);
        return streams.Count > 0 && streams.TrueForAll(s => s.Live && now - s.AsOf <= AgeTolerated);
    }
}

internal static class PresenceServices
{
    public static IServiceCollection AddPresence(this IServiceCollection services)
    {
        services.AddSingleton<PresenceTracker>(services => new PresenceTracker(
            awayIsForeground: services
                .GetRequiredService<Microsoft.Extensions.Options.IOptions<Apps.AlertsOptions>>()
                .Value.AwayIsForeground
        ));
        services.AddSingleton<PresenceCopy>();
        return services;
    }
}
