using System.Linq.Expressions;
using System.Threading.Channels;
using Microsoft.EntityFrameworkCore;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>
/// The one class that changes a delivery's state; each transition is one statement, fenced by the state it leaves or by the lease.
/// The chart is docs/outbox.md.
/// </summary>
internal sealed class OutboxQueue(IDbContextFactory<RelayDb> databases, DatabaseClock clock)
{
    private const string Claim =
        """
        UPDATE deliveries SET state = 1, lease = {0}, lease_until = {1}, attempts = attempts + 1
        WHERE id IN (
            SELECT d.id FROM deliveries d
            WHERE d.state = 0 AND d.due_at <= {2} AND d.expires_at > {2}
            AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.state = 1 AND o.device_key = d.device_key AND o.slot = d.slot)
            AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.state = 0 AND o.device_key = d.device_key AND o.slot = d.slot AND o.id < d.id)
            ORDER BY d.due_at LIMIT {3}
        """;

    private const string ClaimEnd = ") RETURNING *";

    // one word is enough: "there may be work"
    private readonly Channel<bool> work = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    /// <summary>Adds rows to the caller's transaction. The caller calls <see cref="Wake"/> once that is committed.</summary>
    public static async Task AppendAsync(RelayDb db, IReadOnlyCollection<Delivery> deliveries, CancellationToken cancellationToken)
    {
        db.AddRange(deliveries);
        await db.SaveChangesAsync(cancellationToken);
    }

    /// <summary>
    /// Takes up to <paramref name="max"/> due rows for <paramref name="lease"/>, the longest due first; two callers never get the same one.
    /// A slot gives its oldest row, and none while one of its rows is in flight. The attempt counts from here.
    /// </summary>
    public async Task<IReadOnlyList<Delivery>> ClaimAsync(int max, TimeSpan lease, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var (at, until) = (DatabaseClock.Parameter(db, now), DatabaseClock.Parameter(db, now + lease));
        var claimed = await db.Set<Delivery>().FromSqlRaw(
            db.IsSqlite ? Claim + ClaimEnd : Claim + " FOR UPDATE OF d SKIP LOCKED" + ClaimEnd, Guid.NewGuid(), until, at, max)
            .AsNoTracking().ToListAsync(cancellationToken);
        claimed.Sort((a, b) => a.DueAt.CompareTo(b.DueAt));
        return claimed;
    }

    /// <summary>Ends or defers a claimed delivery and records the attempt, if one was made.</summary>
    /// <returns>False: the lease ran out and the row is somebody else's; nothing was changed.</returns>
    public async Task<bool> SettleAsync(Delivery claimed, Settlement settlement, Attempt? attempt, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var held = db.Set<Delivery>().Where(d => d.Id == claimed.Id && d.State == DeliveryState.Sending && d.Lease == claimed.Lease);
        var changed = settlement switch
        {
            // a receipt may have overtaken the answer
            Settlement.Accepted => await EndAsync(
                held, d => d.OpenedAt != null ? DeliveryState.Opened : d.ReceivedAt != null ? DeliveryState.Received : DeliveryState.Accepted, null, now, cancellationToken),
            Settlement.Rejected rejected => await EndAsync(held, d => DeliveryState.Rejected, rejected.Reason, now, cancellationToken),
            Settlement.Dead => await EndAsync(held, d => DeliveryState.Dead, Reasons.AttemptsExhausted, now, cancellationToken),
            Settlement.Cancelled cancelled => await EndAsync(held, d => DeliveryState.Cancelled, cancelled.Reason, now, cancellationToken),
            Settlement.Retry retry => await ReturnAsync(held, now + retry.Delay, given: 0, excused: retry.Excused ? 1 : 0, cancellationToken),
            Settlement.HandBack => await ReturnAsync(held, now, given: 1, excused: 0, cancellationToken),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
        if (changed == 0)
        {
            return false;
        }

        if (attempt is not null)
        {
            db.Add(attempt);
            await db.SaveChangesAsync(cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        Wake();
        return true;
    }

    /// <summary>Returns the rows whose holder died or stalled; those whose attempts are used up are dead.</summary>
    public async Task<int> ReleaseExpiredAsync(int attemptsMax, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var lost = db.Set<Delivery>().Where(d => d.State == DeliveryState.Sending && d.LeaseUntil <= now);
        return await EndAsync(lost.Where(d => d.Attempts - d.AttemptsExcused >= attemptsMax), d => DeliveryState.Dead, Reasons.AttemptsExhausted, now, cancellationToken)
            + await ReturnAsync(lost, now, given: 0, excused: 0, cancellationToken);
    }

    /// <summary>Ends pending rows that are past their time to live: nothing stale is ever sent.</summary>
    public async Task<int> ExpireAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        return await EndAsync(
            db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending && d.ExpiresAt <= now), d => DeliveryState.Expired, Reasons.Ttl, now, cancellationToken);
    }

    /// <summary>Cancels what is still pending of <paramref name="which"/>, on whichever node; a row already sending goes out.</summary>
    public async Task<int> CancelAsync(RelayDb db, Expression<Func<Delivery, bool>> which, string reason, CancellationToken cancellationToken)
    {
        var now = await clock.NowAsync(db, cancellationToken);
        return await EndAsync(
            db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending).Where(which), d => DeliveryState.Cancelled, reason, now, cancellationToken);
    }

    /// <summary>
    /// A newer row of these slots is due now: the older ones that wait for a grace, and were never tried, go with it, or it would have to
    /// wait for them.
    /// </summary>
    public async Task HastenAsync(RelayDb db, Guid deviceKey, Guid slot, CancellationToken cancellationToken)
    {
        var now = await clock.NowAsync(db, cancellationToken);
        await db.Set<Delivery>()
            .Where(d => d.State == DeliveryState.Pending && d.DeviceKey == deviceKey && d.Slot == slot && d.DueAt > now && d.Attempts == 0)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.DueAt, now), cancellationToken);
    }

    /// <summary>
    /// An operator wants what has ended as <c>dead</c>, <c>rejected</c> or <c>expired</c> sent after all: due now, with a budget of attempts
    /// as if it were new, for as long again as it lived. Its text is gone.
    /// </summary>
    /// <returns>False: it has not ended so.</returns>
    public async Task<bool> RetryAsync(RelayDb db, Delivery ended, CancellationToken cancellationToken)
    {
        var now = await clock.NowAsync(db, cancellationToken);
        var expires = now + (ended.ExpiresAt - ended.EventAt);
        return await db.Set<Delivery>()
            .Where(d => d.Id == ended.Id && (d.State == DeliveryState.Dead || d.State == DeliveryState.Rejected || d.State == DeliveryState.Expired))
            .ExecuteUpdateAsync(
                set => set.SetProperty(d => d.State, DeliveryState.Pending)
                    .SetProperty(d => d.Reason, Reasons.Operator)
                    .SetProperty(d => d.AttemptsExcused, d => d.Attempts)
                    .SetProperty(d => d.DueAt, now)
                    .SetProperty(d => d.ExpiresAt, expires)
                    .SetProperty(d => d.SettledAt, (DateTimeOffset?)null),
                cancellationToken) > 0;
    }

    /// <summary>Deletes settled rows older than <paramref name="age"/>, their attempts with them, at most <paramref name="max"/> at a time.</summary>
    public async Task<int> PruneAsync(TimeSpan age, int max, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var before = await clock.NowAsync(db, cancellationToken) - age;
        var old = db.Set<Delivery>().Where(d => d.SettledAt != null && d.SettledAt < before).OrderBy(d => d.SettledAt).Take(max).Select(d => d.Id);
        return await db.Set<Delivery>().Where(d => old.Contains(d.Id)).ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>Says that there may be something to claim now.</summary>
    public void Wake() => work.Writer.TryWrite(true);

    /// <summary>Waits until somebody calls <see cref="Wake"/>, at most <paramref name="poll"/>: other nodes' rows and due times wake nobody.</summary>
    public async Task WaitAsync(TimeSpan poll, TimeProvider timers, CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(poll, timers);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            await work.Reader.ReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // the poll's turn
        }
    }

    /// <summary>A final state: the content goes, the time is kept, the lease is nobody's.</summary>
    private static Task<int> EndAsync(
        IQueryable<Delivery> which, Expression<Func<Delivery, DeliveryState>> state, string? reason, DateTimeOffset now, CancellationToken cancellationToken) =>
        which.ExecuteUpdateAsync(
            set =>
            {
                set.SetProperty(d => d.State, state)
                    .SetProperty(d => d.SettledAt, now)
                    .SetProperty(d => d.Content, (byte[]?)null)
                    .SetProperty(d => d.Lease, (Guid?)null)
                    .SetProperty(d => d.LeaseUntil, (DateTimeOffset?)null);
                if (reason is not null)
                {
                    set.SetProperty(d => d.Reason, reason);
                }
            },
            cancellationToken);

    private static Task<int> ReturnAsync(IQueryable<Delivery> which, DateTimeOffset due, int given, int excused, CancellationToken cancellationToken) =>
        which.ExecuteUpdateAsync(
            set => set.SetProperty(d => d.State, DeliveryState.Pending)
                .SetProperty(d => d.DueAt, due)
                .SetProperty(d => d.Attempts, d => d.Attempts - given)
                .SetProperty(d => d.AttemptsExcused, d => d.AttemptsExcused + excused)
                .SetProperty(d => d.Lease, (Guid?)null)
                .SetProperty(d => d.LeaseUntil, (DateTimeOffset?)null),
            cancellationToken);
}
