using System.Globalization;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Storage;

namespace PushRelay.Cluster;

/// <summary>The row of something that one node at a time may hold: holder, expiry, and term (how often it was taken).</summary>
internal sealed class Lease
{
    public required string Name { get; init; }

    /// <summary>The relay process that holds it (<see cref="LeaseTable.Node"/>); empty after a release.</summary>
    public required string Holder { get; init; }

    /// <summary>Rises each time the lease is taken, and never falls: work begun under an older term is refused.</summary>
    public required long Term { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Until then another node is waiting for this lease; each of its tries moves this time forward.</summary>
    public required DateTimeOffset AwaitedUntil { get; init; }

    /// <summary>The holder uses it: for a link, it was up when the lease was last renewed.</summary>
    public required bool InUse { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<Lease>
    {
        public void Configure(EntityTypeBuilder<Lease> builder)
        {
            builder.ToTable("leases");
            builder.HasKey(l => l.Name);
            builder.Property(l => l.Name).HasMaxLength(300);
            builder.Property(l => l.Holder).HasMaxLength(200);
        }
    }
}

/// <summary>One holding of a lease, which <see cref="LeaseTable.FenceAsync"/> checks.</summary>
internal readonly record struct LeaseTerm(string Name, long Term);

/// <summary>Another node has taken the lease: nothing was committed, and nothing of this term will be.</summary>
internal sealed class LeaseLostException(LeaseTerm term) : Exception($"Another node has taken {term.Name}.");

/// <summary>What a renewal found.</summary>
internal enum LeaseRenewal
{
    /// <summary>Held for another <see cref="LeaseTable.Duration"/>; no other node waits for it.</summary>
    Held,

    /// <summary>The same, and another node waits for it.</summary>
    HeldAndAwaited,

    /// <summary>Another node has it.</summary>
    Lost,
}

/// <summary>
/// Leases: a node takes one for <see cref="Duration"/> by the database's clock and keeps it by renewing it; another node can take it once
/// it has expired. Two nodes may both believe that they hold it, after one was paused. That does no harm, because everything that counts is
/// committed in a transaction that begins with <see cref="FenceAsync"/>.
/// </summary>
internal sealed class LeaseTable(IDbContextFactory<RelayDb> databases, DatabaseClock clock)
{
    /// <summary>Not longer than the shortest <c>Dispatch:LeaseDuration</c>; long enough that three renewals may fail.</summary>
    public static readonly TimeSpan Duration = TimeSpan.FromSeconds(15);

    // what ends later was written by a clock that was ahead and has been set right since: it is over. Smaller steps are only waited for
    private static readonly TimeSpan EndMax = Duration + TimeSpan.FromSeconds(5);

    /// <summary>This process; a process that is started again has another name.</summary>
    public string Node { get; } =
        string.Create(
            CultureInfo.InvariantCulture,
            $"{Environment.MachineName}:{Environment.ProcessId}:{RandomNumberGenerator.GetHexString(8, lowercase: true)}"
        );

    /// <returns>Null: another node holds it; that this one waits is recorded.</returns>
    public async Task<LeaseTerm?> TakeAsync(string name, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var latest = now + EndMax;
        // on SQLite the process lock proves that the former holder is dead
        var free = db.Set<Lease>().Where(l => l.Name == name && (db.IsSqlite || l.ExpiresAt <= now || l.ExpiresAt > latest));
        if (
            await free.ExecuteUpdateAsync(
                set =>
                    set.SetProperty(l => l.Holder, Node)
                        .SetProperty(l => l.Term, l => l.Term + 1)
                        .SetProperty(l => l.ExpiresAt, now + Duration)
                        .SetProperty(l => l.InUse, false),
                cancellationToken
            ) == 0
            && !await TryCreateAsync(db, name, now, cancellationToken)
        )
        {
            await db.Set<Lease>()
                .Where(l => l.Name == name)
                .ExecuteUpdateAsync(set => set.SetProperty(l => l.AwaitedUntil, now + Duration), cancellationToken);
            return null;
        }

        var mine = await db.Set<Lease>()
            .Where(l => l.Name == name && l.Holder == Node)
            .Select(l => (long?)l.Term)
            .SingleOrDefaultAsync(cancellationToken);
        return mine is { } term ? new LeaseTerm(name, term) : null;
    }

    /// <summary>Extends a lease, also one that has expired, as long as no other node has taken it.</summary>
    /// <param name="term">What <see cref="TakeAsync"/> returned.</param>
    /// <param name="inUse">Stored as <see cref="Lease.InUse"/>.</param>
    /// <param name="cancellationToken">Ends the wait for the database.</param>
    public async Task<LeaseRenewal> RenewAsync(LeaseTerm term, bool inUse, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        if (
            await Mine(db, term)
                .ExecuteUpdateAsync(
                    set => set.SetProperty(l => l.ExpiresAt, now + Duration).SetProperty(l => l.InUse, inUse),
                    cancellationToken
                ) == 0
        )
        {
            return LeaseRenewal.Lost;
        }

        var latest = now + EndMax;
        return await Mine(db, term).AnyAsync(l => l.AwaitedUntil > now && l.AwaitedUntil <= latest, cancellationToken)
            ? LeaseRenewal.HeldAndAwaited
            : LeaseRenewal.Held;
    }

    /// <summary>The present holder; null: none.</summary>
    public async Task<Lease?> HolderOfAsync(string name, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var latest = now + EndMax;
        return await db.Set<Lease>()
            .AsNoTracking()
            .SingleOrDefaultAsync(l => l.Name == name && l.Holder != "" && l.ExpiresAt > now && l.ExpiresAt <= latest, cancellationToken);
    }

    /// <summary>Gives it back, so that the next node need not wait for its expiry.</summary>
    public async Task ReleaseAsync(LeaseTerm term, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        await Mine(db, term)
            .ExecuteUpdateAsync(
                set => set.SetProperty(l => l.Holder, "").SetProperty(l => l.ExpiresAt, now).SetProperty(l => l.InUse, false),
                cancellationToken
            );
    }

    /// <summary>
    /// Call it first in a transaction: the transaction is committed only if no other node has taken the lease. A node that wants to take it
    /// waits for the end of the transaction, at most 10 seconds: then PostgreSQL ends a transaction whose process is paused.
    /// </summary>
    /// <returns>The database's time.</returns>
    /// <exception cref="LeaseLostException">Another node has taken it.</exception>
    public async Task<DateTimeOffset> FenceAsync(RelayDb db, LeaseTerm term, CancellationToken cancellationToken)
    {
        if (db.IsSqlite)
        {
            return await Mine(db, term).AnyAsync(cancellationToken)
                ? await clock.NowAsync(db, cancellationToken)
                : throw new LeaseLostException(term);
        }

        // time and fence in one round trip; ToList, because EF would wrap the query for anything else
        var times = await db
            .Database.SqlQuery<DateTimeOffset>(
                $"""
                SELECT clock_timestamp() AS "Value" FROM leases
                WHERE name = {term.Name} AND term = {term.Term}
                    AND set_config('idle_in_transaction_session_timeout', '10s', true) IS NOT NULL
                FOR SHARE
                """
            )
            .ToListAsync(cancellationToken);
        return times is [var now] ? now + clock.Offset : throw new LeaseLostException(term);
    }

    private static IQueryable<Lease> Mine(RelayDb db, LeaseTerm term) =>
        db.Set<Lease>().Where(l => l.Name == term.Name && l.Term == term.Term);

    private async Task<bool> TryCreateAsync(RelayDb db, string name, DateTimeOffset now, CancellationToken cancellationToken)
    {
        if (await db.Set<Lease>().AnyAsync(l => l.Name == name, cancellationToken))
        {
            return false;
        }

        db.Add(
            new Lease
            {
                Name = name,
                Holder = Node,
                Term = 1,
                ExpiresAt = now + Duration,
                AwaitedUntil = now,
                InUse = false,
            }
        );
        try
        {
            await db.SaveChangesAsync(cancellationToken);
            return true;
        }
        catch (DbUpdateException exception) when (DatabaseErrors.IsClash(exception))
        {
            // another node was first
            return false;
        }
    }
}
