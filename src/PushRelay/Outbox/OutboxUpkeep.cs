using Microsoft.EntityFrameworkCore;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>Finds rows that no node holds any more: returns those whose lease ended, expires those past their life, deletes old
/// ones.</summary>
internal sealed class OutboxUpkeep(
    IDbContextFactory<RelayDb> databases,
    DatabaseClock clock,
    Permits permits,
    EndedCount ended,
    TimeProvider timers
)
{
    /// <summary>Rows that one <see cref="ExpireAsync"/> ends at most.</summary>
    public const int ExpireMax = 1000;

    // the longest wait between two attempts, and its jitter
    private static readonly TimeSpan WaitMax = TimeSpan.FromMinutes(61);

    private readonly ClockSteps steps = new(timers);

    /// <summary>
    /// Returns the rows whose holder died or stalled; those whose attempts are used up are dead. Also what a clock that was ahead has left:
    /// leases and due times that end later than they ever could.
    /// </summary>
    public async Task<int> ReleaseExpiredAsync(int attemptsMax, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        steps.Look(now);
        var latest = steps.LatestLeaseEnd(now, permits.LeaseMax);
        var lost = db.Set<Delivery>().Where(d => d.State == DeliveryState.Sending && (d.LeaseUntil <= now || d.LeaseUntil > latest));
        var released =
            await ended.EndAsync(
                lost.Where(d => d.Attempts - d.AttemptsExcused >= attemptsMax),
                DeliveryState.Dead,
                Reasons.AttemptsExhausted,
                now,
                cancellationToken
            ) + await Transitions.ReleaseAsync(lost, now, cancellationToken);
        if (steps.MayHaveGoneBack)
        {
            var (all, soon, furthest) = (steps.HasGoneBack, now + ClockSteps.Least, now + WaitMax);
            released += await db.Set<Delivery>()
                .Where(d => d.State == DeliveryState.Pending && d.DueAt > soon && (all || d.CreatedAt > soon || d.DueAt > furthest))
                .ExecuteUpdateAsync(set => set.SetProperty(d => d.DueAt, now), cancellationToken);
            steps.Mended();
        }

        return released;
    }

    /// <summary>
    /// With SQLite one process uses the database, so the rows that an earlier process had in flight have no holder. They come back now,
    /// and not when their lease ends: the clock may have been set back since. Rows that were tried before come back within one lease, so
    /// that a process that dies after each start does not use up their attempts in seconds. Call it before the first claim.
    /// </summary>
    public async Task RecoverAfterCrashAsync(int attemptsMax, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite)
        {
            var now = await clock.NowAsync(db, cancellationToken);
            var last = now + lease;
            var held = db.Set<Delivery>().Where(d => d.State == DeliveryState.Sending);
            await held.Where(d => d.Attempts <= 1).ExecuteUpdateAsync(set => set.SetProperty(d => d.LeaseUntil, now), cancellationToken);
            await held.Where(d => d.LeaseUntil > last)
                .ExecuteUpdateAsync(set => set.SetProperty(d => d.LeaseUntil, last), cancellationToken);
            await ReleaseExpiredAsync(attemptsMax, cancellationToken);
        }
    }

    /// <summary>Ends pending rows that are past their time to live, some at a time: nothing stale is ever sent.</summary>
    public async Task<int> ExpireAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var stale = db.Set<Delivery>()
            .Where(d => d.State == DeliveryState.Pending && d.ExpiresAt <= now)
            .OrderBy(d => d.ExpiresAt)
            .Take(ExpireMax)
            .Select(d => d.Id);
        return await ended.EndAsync(
            db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending && stale.Contains(d.Id)),
            DeliveryState.Expired,
            Reasons.Ttl,
            now,
            cancellationToken
        );
    }

    /// <summary>Deletes rows that were settled before, their attempts with them: the oldest, at most <paramref name="max"/>.</summary>
    public static async Task<int> PruneAsync(RelayDb db, DateTimeOffset before, int max, CancellationToken cancellationToken)
    {
        var old = Oldest(db, before, max).Select(d => d.Id);
        // the condition is checked again: an operator may have sent one of them again in this moment
        return await db.Set<Delivery>()
            .Where(d => d.SettledAt != null && d.SettledAt < before && old.Contains(d.Id))
            .ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>Ids begin with their time: the oldest are the first of the primary key, no index of their end is needed, and where
    /// nothing is that old nothing is read.</summary>
    internal static IQueryable<Delivery> Oldest(RelayDb db, DateTimeOffset before, int max)
    {
        var first = IdSequence.First(before);
        return db.Set<Delivery>()
            .Where(d => d.Id.CompareTo(first) < 0 && d.SettledAt != null && d.SettledAt < before)
            .OrderBy(d => d.Id)
            .Take(max);
    }
}
