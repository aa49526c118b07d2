using System.Linq.Expressions;
using Microsoft.EntityFrameworkCore;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>
/// Changes deliveries' states; each transition (<see cref="Transitions"/>) is one statement, fenced by the state it leaves or by the lease.
/// The chart is docs/outbox.md.
/// </summary>
internal sealed class OutboxQueue(
    IDbContextFactory<RelayDb> databases,
    DatabaseClock clock,
    WriteGate turns,
    Permits permits,
    WorkSignal signal,
    EndedCount ended,
    TimeProvider timers
)
{
    private const int ReachedRowsMax = 1000;

    /// <summary>The push network has accepted this row's alert, or one that spoke for it.</summary>
    public async Task<bool> IsShownAsync(Guid delivery, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await db.Set<Delivery>()
            .AnyAsync(
                d =>
                    d.Id == delivery
                    && (
                        d.State == DeliveryState.Accepted
                        || d.State == DeliveryState.Received
                        || d.State == DeliveryState.Opened
                        || d.State == DeliveryState.Coalesced
                    ),
                cancellationToken
            );
    }

    // no alert waits longer than this
    private static readonly TimeSpan FirstBy = TimeSpan.FromDays(365);

    /// <summary>
    /// Adds rows to the caller's transaction; a row that is there already is left out. What is due and gets a permit is claimed at once.
    /// </summary>
    /// <param name="db">With the caller's transaction.</param>
    /// <param name="rows">In their order.</param>
    /// <param name="claim">False: leave even what is due to the claims; after a clash over an ordering key.</param>
    /// <param name="now">By the database's clock.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>To be published once the transaction is committed, and disposed of in any case.</returns>
    public async Task<AppendedRows> AppendAsync(
        RelayDb db,
        IReadOnlyList<Delivery> rows,
        bool claim,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        if (rows.Count == 0)
        {
            return new AppendedRows([], []);
        }

        var claimedAt = timers.GetTimestamp();
        var taken = new Dictionary<Guid, Permit>();
        try
        {
            if (claim)
            {
                TakePermits(rows, now, taken);
            }

            var added = await OutboxSql.Of(db).InsertAsync(db, rows, cancellationToken);
            var claimed = new List<ClaimedAlert>(taken.Count);
            var due = new List<Delivery>();
            foreach (var row in rows)
            {
                if (added.TryGetValue(row.Id, out var mine) && mine)
                {
                    Transitions.Claim(row);
                    taken.Remove(row.Id, out var permit);
                    claimed.Add(new ClaimedAlert([row], permit!, claimedAt, row.ExpiresAt - now));
                    continue;
                }

                (row.Lease, row.LeaseUntil) = (null, null);
                if (row.State == DeliveryState.Pending && row.DueAt <= now && added.ContainsKey(row.Id))
                {
                    due.Add(row);
                }
            }

            return new AppendedRows(claimed, due);
        }
        finally
        {
            foreach (var permit in taken.Values)
            {
                permit.Dispose();
            }
        }
    }

    /// <summary>A lease for each row that is due and gets a permit, of an ordering key the first.</summary>
    private void TakePermits(IReadOnlyList<Delivery> rows, DateTimeOffset now, Dictionary<Guid, Permit> taken)
    {
        var (lease, keys) = (Guid.NewGuid(), new HashSet<(Guid, Guid)>());
        foreach (var row in rows)
        {
            if (
                row.State == DeliveryState.Pending
                && row.DueAt <= now
                && row.ExpiresAt > now
                && keys.Add((row.DeviceKey, row.OrderingKey))
                && permits.TryTake(row) is { } permit
            )
            {
                taken[row.Id] = permit;
                (row.Lease, row.LeaseUntil) = (lease, now + permits.Lease);
            }
        }
    }

    /// <summary>
    /// Claims due ordering keys for <paramref name="lease"/>, the longest due first; two callers never get the same one, and none while one
    /// of its rows is in flight. An ordering key gives one alert: its oldest row, whose attempt counts from here, and what else of it is
    /// due
    /// or will be within <paramref name="horizon"/>.
    /// </summary>
    /// <param name="lanes">Alerts at most, for each lane that may send.</param>
    /// <param name="lease">How long they are the caller's.</param>
    /// <param name="horizon">How much earlier than due a later row may go with the first.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    public async Task<IReadOnlyList<ClaimedAlert>> ClaimAsync(
        IReadOnlyDictionary<Lane, int> lanes,
        TimeSpan lease,
        TimeSpan horizon,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.EnterAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var claimedAt = timers.GetTimestamp();
        var now = await clock.NowAsync(db, cancellationToken);
        List<Delivery> rows;
        try
        {
            rows = await OutboxSql.Of(db).ClaimAsync(db, lanes, Guid.NewGuid(), lease, horizon, now, cancellationToken);
        }
        catch (Npgsql.PostgresException exception) when (exception.ConstraintName == Delivery.SendingKeyIndex)
        {
            // another node claimed one of the keys first: the next poll finds the others
            signal.Wake();
            return [];
        }

        await transaction.CommitAsync(cancellationToken);
        return
        [
            .. rows.GroupBy(r => r.CoalescedInto ?? r.Id)
                .Select(g =>
                    g.OrderBy(r => r.CoalescedInto is not null)
                        .ThenBy(r => r.CreatedAt)
                        .ThenBy(r => r.Id.ToString("N"), StringComparer.Ordinal)
                        .ToList()
                )
                .Select(alert => new ClaimedAlert(alert, permits.Take(alert[0]), claimedAt, alert[^1].ExpiresAt - now))
                .OrderBy(a => a.Head.DueAt),
        ];
    }

    /// <summary>The lanes that have pending rows, due or not.</summary>
    public async Task<IReadOnlyList<WaitingLane>> WaitingLanesAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await OutboxSql.WaitingLanesAsync(db, cancellationToken);
    }

    /// <summary>Ends or defers claimed alerts and records their attempts. Their permits stay out.</summary>
    /// <returns>Those whose lease ran out: another node may hold the rows, and they were not changed.</returns>
    public async Task<IReadOnlyList<SettledAlert>> SettleAsync(IReadOnlyList<SettledAlert> settled, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.EnterAsync(cancellationToken);
        var changes = settled.SelectMany(Transitions.Of).ToList();
        var attempts = settled.SelectMany(Transitions.Attempts).ToList();
        var changed = await OutboxSql.Of(db).SettleAsync(db, changes, attempts, clock, cancellationToken);
        if (settled.Any(s => s.Settlement is not Settlement.Accepted))
        {
            signal.Wake();
        }

        foreach (var change in changes.Where(c => c.State != DeliveryState.Pending && changed.Contains(c.Id)))
        {
            ended.Count(change);
        }

        return [.. settled.Where(s => !changed.Contains(s.Alert.Head.Id))];
    }

    /// <summary>
    /// Cancels the pending rows of <paramref name="which"/>, on every node. A row that is being sent is sent; if that attempt fails, the
    /// row expires.
    /// </summary>
    public async Task<int> CancelAsync(
        RelayDb db,
        Expression<Func<Delivery, bool>> which,
        string reason,
        CancellationToken cancellationToken
    )
    {
        var now = await clock.NowAsync(db, cancellationToken);
        await db.Set<Delivery>()
            .Where(d => d.State == DeliveryState.Sending && d.ExpiresAt > now)
            .Where(which)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.ExpiresAt, now), cancellationToken);
        return await ended.EndAsync(
            db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending).Where(which),
            DeliveryState.Cancelled,
            reason,
            now,
            cancellationToken
        );
    }

    /// <summary>Another text for a row that is still pending.</summary>
    /// <returns>False: it is not pending any more.</returns>
    public static async Task<bool> ReplaceTextAsync(RelayDb db, Delivery row, byte[]? content, CancellationToken cancellationToken) =>
        await db.Set<Delivery>()
            .Where(d => d.Id == row.Id && d.State == DeliveryState.Pending)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.Content, content), cancellationToken) > 0;

    /// <summary>Which of these accounts have a pending or sending row: few statements for the many events that have nothing to
    /// cancel.</summary>
    public static async Task<IReadOnlySet<string>> PendingOfAsync(
        RelayDb db,
        IReadOnlyCollection<string> accounts,
        CancellationToken cancellationToken
    )
    {
        var pending = new HashSet<string>(StringComparer.Ordinal);
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            pending.UnionWith(
                await db.Set<Delivery>()
                    .Where(d => d.State == DeliveryState.Pending && some.Contains(d.Account))
                    .Select(d => d.Account)
                    .Union(
                        db.Set<Delivery>().Where(d => d.State == DeliveryState.Sending && some.Contains(d.Account)).Select(d => d.Account)
                    )
                    .ToListAsync(cancellationToken)
            );
        }

        return pending;
    }

    /// <summary>
    /// A newer row of this ordering key is due at <paramref name="due"/>. Older rows that wait for <c>OtherDeviceDelay</c> and were never
    /// tried become due with it; otherwise it would have to wait for them.
    /// </summary>
    public static Task BringForwardAsync(
        RelayDb db,
        Guid deviceKey,
        Guid orderingKey,
        DateTimeOffset due,
        CancellationToken cancellationToken
    ) =>
        db.Set<Delivery>()
            .Where(d =>
                d.State == DeliveryState.Pending
                && d.DeviceKey == deviceKey
                && d.OrderingKey == orderingKey
                && d.DueAt > due
                && d.Attempts == 0
            )
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.DueAt, due), cancellationToken);

    /// <summary>
    /// Sends a <c>dead</c>, <c>rejected</c> or <c>expired</c> delivery again, for an operator: due now, with the attempts of a new one,
    /// for <paramref name="life"/> from now. Its text is already deleted.
    /// </summary>
    /// <returns>False: it has another state.</returns>
    public async Task<bool> RetryAsync(RelayDb db, Delivery ended, TimeSpan life, CancellationToken cancellationToken)
    {
        var now = await clock.NowAsync(db, cancellationToken);
        return await Transitions.RenewAsync(
                db.Set<Delivery>()
                    .Where(d =>
                        d.Id == ended.Id
                        && (d.State == DeliveryState.Dead || d.State == DeliveryState.Rejected || d.State == DeliveryState.Expired)
                    ),
                now,
                now + life,
                cancellationToken
            ) > 0;
    }

    /// <summary>When a push network last accepted an alert for each of these devices, as far as the ledger goes back.</summary>
    public static async Task<IReadOnlyDictionary<Guid, DateTimeOffset>> LastAcceptedAsync(
        RelayDb db,
        IQueryable<DeliveryTarget> devices,
        CancellationToken cancellationToken
    )
    {
        var last = await devices
            .Select(device => new
            {
                device.DeviceKey,
                At = db.Set<Delivery>()
                    .Where(d =>
                        d.Account == device.Account
                        && d.DeviceKey == device.DeviceKey
                        && (d.State == DeliveryState.Accepted || d.State == DeliveryState.Received || d.State == DeliveryState.Opened)
                    )
                    .OrderByDescending(d => d.Id)
                    .Select(d => d.SettledAt)
                    .FirstOrDefault(),
            })
            .ToListAsync(cancellationToken);
        return last.Where(device => device.At is not null).ToDictionary(device => device.DeviceKey, device => device.At!.Value);
    }

    /// <summary>Whether one of the newest deliveries of this device was accepted. It reads a bounded number of rows.</summary>
    public static Task<bool> WasReachedAsync(RelayDb db, string account, Guid deviceKey, CancellationToken cancellationToken) =>
        db.Set<Delivery>()
            .Where(d => d.Account == account)
            .OrderByDescending(d => d.Id)
            .Take(ReachedRowsMax)
            .AnyAsync(
                d =>
                    d.DeviceKey == deviceKey
                    && (d.State == DeliveryState.Accepted || d.State == DeliveryState.Received || d.State == DeliveryState.Opened),
                cancellationToken
            );

    /// <summary>
    /// Due heads of a lane to choose a probe from: the longest due and the latest due, so that those who wait in numbers do not hide the
    /// others.
    /// </summary>
    public static async Task<IReadOnlyList<ProbeCandidate>> ProbeCandidatesAsync(
        RelayDb db,
        Lane lane,
        DateTimeOffset now,
        int max,
        CancellationToken cancellationToken
    )
    {
        var due = db.Set<Delivery>().Where(d => d.State == DeliveryState.Pending && d.Lane == lane && d.DueAt <= now && d.ExpiresAt > now);
        var oldest = await due.OrderBy(d => d.DueAt)
            .Take(max)
            .Select(d => new ProbeCandidate(d.Id, d.Account, d.DeviceKey, d.OrderingKey))
            .ToListAsync(cancellationToken);
        if (oldest.Count < max)
        {
            return oldest;
        }

        var newest = await due.OrderByDescending(d => d.DueAt)
            .Take(max)
            .Select(d => new ProbeCandidate(d.Id, d.Account, d.DeviceKey, d.OrderingKey))
            .ToListAsync(cancellationToken);
        return [.. oldest, .. newest];
    }

    /// <summary>These rows are the next of their lane that are claimed.</summary>
    public static Task PutFirstAsync(RelayDb db, ProbeCandidate chosen, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var first = now - FirstBy;
        return db.Set<Delivery>()
            .Where(d =>
                d.State == DeliveryState.Pending && d.DeviceKey == chosen.DeviceKey && d.OrderingKey == chosen.OrderingKey && d.DueAt <= now
            )
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.DueAt, first), cancellationToken);
    }

    /// <summary>The same, of just the rows that <see cref="OutboxUpkeep.PruneAsync"/> would delete.</summary>
    public static IQueryable<LastAccepted> LastAcceptedOfOldest(RelayDb db, DateTimeOffset before, int max) =>
        OutboxUpkeep
            .Oldest(db, before, max)
            .Where(d => d.State == DeliveryState.Accepted || d.State == DeliveryState.Received || d.State == DeliveryState.Opened)
            .GroupBy(d => d.DeviceKey)
            .Select(device => new LastAccepted { DeviceKey = device.Key, At = device.Max(d => d.SettledAt) });
}
