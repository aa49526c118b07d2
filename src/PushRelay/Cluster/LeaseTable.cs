using System.Globalization;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Storage;

namespace PushRelay.Cluster;

/// <summary>The row of a thing that one node at a time may hold: who, until when, and for the how-manieth time it was taken.</summary>
internal sealed class Lease
{
    public required string Name { get; init; }

    /// <summary>The process, for the operator and for telling its own row; empty where it was given back.</summary>
    public required string Holder { get; init; }

    /// <summary>Rises with each taking and never falls: what was begun under an older one is refused.</summary>
    public required long Term { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Until then another node would take it if it could.</summary>
    public required DateTimeOffset AwaitedUntil { get; init; }

    /// <summary>What is held does its work, as its holder last saw it: a link is up.</summary>
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

/// <summary>One taking of a lease: what a transaction shows to be let through.</summary>
internal readonly record struct LeaseTerm(string Name, long Term);

/// <summary>Another node has taken the lease: nothing was committed, and nothing of this term ever will be.</summary>
internal sealed class LeaseLostException(LeaseTerm term)
    : Exception($"Another node has taken {term.Name}: it is not this node's any more.");

/// <summary>What a renewal found.</summary>
internal enum LeaseRenewal
{
    /// <summary>Held for another <see cref="LeaseTable.Duration"/>, and nobody waits for it.</summary>
    Held,

    /// <summary>Held likewise; another node waits for it to fall.</summary>
    HeldAndAwaited,

    /// <summary>Another node has it.</summary>
    Lost,
}

/// <summary>
/// Gives what one node at a time may hold to one node: taken for <see cref="Duration"/> by the database's clock, kept by renewing it,
/// taken by another once it has run out. That two nodes may both believe to hold it (a paused process) does no harm: whatever counts is
/// committed behind <see cref="FenceAsync"/>.
/// </summary>
internal sealed class LeaseTable(IDbContextFactory<RelayDb> databases, DatabaseClock clock)
{
    /// <summary>Never longer than the least <c>Dispatch:LeaseDuration</c>; three renewals may fail.</summary>
    public static readonly TimeSpan Duration = TimeSpan.FromSeconds(15);

    /// <summary>This process: no two have the same, so a process started again is another one.</summary>
    public string Node { get; } =
        string.Create(
            CultureInfo.InvariantCulture,
            $"{Environment.MachineName}:{Environment.ProcessId}:{RandomNumberGenerator.GetHexString(8, lowercase: true)}"
        );

    /// <returns>Null: another node holds it, and is told that this one waits.</returns>
    public async Task<LeaseTerm?> TakeAsync(string name, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        // on SQLite the process lock says that whoever held it is dead
        var free = db.Set<Lease>().Where(l => l.Name == name && (db.IsSqlite || l.ExpiresAt <= now));
        if (
            await free.ExecuteUpdateAsync(
                set =>
                    set.SetProperty(l => l.Holder, Node)
                        .SetProperty(l => l.Term, l => l.Term + 1)
                        .SetProperty(l => l.ExpiresAt, now + Duration)
                        .SetProperty(l => l.InUse, false),
                cancellationToken
            ) == 0
            && !await MakeAsync(db, name, now, cancellationToken)
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

    /// <summary>Also after it ran out, as long as nobody has taken it.</summary>
    /// <param name="term">Of which taking.</param>
    /// <param name="inUse">For whoever looks at the row.</param>
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

        return await Mine(db, term).AnyAsync(l => l.AwaitedUntil > now, cancellationToken)
            ? LeaseRenewal.HeldAndAwaited
            : LeaseRenewal.Held;
    }

    /// <summary>Who holds it now; null: nobody does.</summary>
    public async Task<Lease?> HolderOfAsync(string name, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        return await db.Set<Lease>()
            .AsNoTracking()
            .SingleOrDefaultAsync(l => l.Name == name && l.Holder != "" && l.ExpiresAt > now, cancellationToken);
    }

    /// <summary>Gives it back: the next node need not wait for its end.</summary>
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
    /// To be called in a transaction before anything else: what follows is committed only if nobody has taken the lease since. Whoever
    /// wants to take it waits for the end of the transaction, at most 10 seconds: then PostgreSQL ends a transaction whose process stands
    /// still.
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

        // the time and the fence in one round trip; a list, because anything else would be composed around it
        var times = await db
            .Database.SqlQuery<DateTimeOffset>(
                $"""
                SELECT clock_timestamp() AS "Value" FROM leases
                WHERE name = {term.Name} AND term = {term.Term} AND set_config('idle_in_transaction_session_timeout', '10s', true) IS NOT NULL
                FOR SHARE
                """
            )
            .ToListAsync(cancellationToken);
        return times is [var now] ? now + clock.Offset : throw new LeaseLostException(term);
    }

    private static IQueryable<Lease> Mine(RelayDb db, LeaseTerm term) =>
        db.Set<Lease>().Where(l => l.Name == term.Name && l.Term == term.Term);

    private async Task<bool> MakeAsync(RelayDb db, string name, DateTimeOffset now, CancellationToken cancellationToken)
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
        catch (DbUpdateException exception) when (!DatabaseErrors.Is(exception))
        {
            // another node was first
            return false;
        }
    }
}
