using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using PushRelay.Faults;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>Statements prepared once for each batch, run for each row.</summary>
internal sealed class SqliteOutbox : OutboxSql
{
    public static readonly SqliteOutbox Instance = new();

    private const string Insert = $"""
        INSERT INTO deliveries (
            id, server, account, device_key, device, app, platform, lane, event_key, source, class, sender, message_id, stanza_id, event_at,
            message_type, conversation, call_id,
            author, collapse_key, ordering_key, content, badge, reason, situation, created_at, due_at, expires_at,
                settled_at,
            state, lease, lease_until, attempts, attempts_excused, count)
        VALUES (
            $id, $server, $account, $device_key, $device, $app, $platform, $lane, $event_key, $source, $class, $sender, $message_id,
                $stanza_id, $event_at,
            $message_type, $conversation, $call_id,
            $author, $collapse_key, $ordering_key, $content, $badge, $reason, $situation, $created_at, $due_at,
                $expires_at, $settled_at,
            $state, $lease, $lease_until, $attempts, 0, 1)
        ON CONFLICT (server, account, device_key, event_key) DO NOTHING
        """;

    private const string Busy = $"""
        SELECT EXISTS (SELECT 1 FROM deliveries WHERE device_key = $device_key AND ordering_key = $ordering_key
            AND state = {States.Pending})
            OR EXISTS (SELECT 1 FROM deliveries WHERE device_key = $device_key AND ordering_key = $ordering_key
                AND state = {States.Sending} AND coalesced_into IS NULL)
        """;

    private const string Claim = $$"""
        WITH heads AS MATERIALIZED (
            SELECT d.id, d.device_key, d.ordering_key FROM deliveries d
            WHERE d.state = {{States.Pending}} AND d.lane = {0} AND d.due_at <= {2} AND d.expires_at > {2}
            AND NOT EXISTS (
                SELECT 1 FROM deliveries o
                WHERE o.state = {{States.Pending}} AND o.device_key = d.device_key AND o.ordering_key = d.ordering_key
                    AND o.id < d.id AND o.expires_at > {2})
            AND NOT EXISTS (
                SELECT 1 FROM deliveries o
                WHERE o.state = {{States.Sending}} AND o.coalesced_into IS NULL AND o.device_key = d.device_key
                    AND o.ordering_key = d.ordering_key)
            ORDER BY d.due_at LIMIT {1}),
        taken AS MATERIALIZED (
            SELECT f.id, heads.id AS head FROM heads
            JOIN deliveries f ON f.id IN (
                SELECT d.id FROM deliveries d
                WHERE d.state = {{States.Pending}} AND d.device_key = heads.device_key AND d.ordering_key = heads.ordering_key
                    AND d.due_at <= {3} AND d.expires_at > {2}
                ORDER BY d.id LIMIT {4}))
        UPDATE deliveries SET
            state = {{States.Sending}}, lease = {5}, lease_until = {6}, attempts = attempts + (deliveries.id = t.head),
            coalesced_into = CASE WHEN deliveries.id = t.head THEN NULL ELSE t.head END
        FROM taken t WHERE deliveries.id = t.id
        RETURNING *
        """;

    private const string Settle = $"""
        UPDATE deliveries SET
            state = CASE WHEN $state = {States.Accepted} AND opened_at IS NOT NULL THEN {States.Opened}
                WHEN $state = {States.Accepted} AND received_at IS NOT NULL THEN {States.Received} ELSE $state END,
            reason = COALESCE($reason, reason),
            due_at = CASE WHEN $state = {States.Pending} THEN $due_at ELSE due_at END,
            settled_at = CASE WHEN $state = {States.Pending} THEN NULL ELSE $now END,
            content = CASE WHEN $state = {States.Pending} THEN content END,
            attempts = attempts + $attempts,
            attempts_excused = attempts_excused + $excused,
            count = $count,
            coalesced_into = $coalesced_into,
            status = CASE WHEN $answer_ms IS NULL THEN status ELSE $status END,
            code = CASE WHEN $answer_ms IS NULL THEN code ELSE $code END,
            provider_id = CASE WHEN $answer_ms IS NULL THEN provider_id ELSE $provider_id END,
            answer_ms = COALESCE($answer_ms, answer_ms),
            lease = NULL,
            lease_until = NULL
        WHERE id = $id AND state = {States.Sending} AND lease = $lease
        """;

    private const string Try = $"""
        INSERT INTO attempts (delivery_id, number, at, duration_ms, status, code, outcome, provider_id)
        VALUES ($delivery_id, $number, $at, $duration_ms, $status, $code, $outcome, $provider_id)
        """;

    public override async Task<Dictionary<Guid, bool>> InsertAsync(
        RelayDb db,
        IReadOnlyList<Delivery> rows,
        CancellationToken cancellationToken
    )
    {
        await using var statements = new Statements(db);
        var added = new Dictionary<Guid, bool>(rows.Count);
        foreach (var row in rows)
        {
            var mine =
                row.Lease is not null
                && Equals(
                    0L,
                    await statements
                        .With(Busy, ("device_key", row.DeviceKey), ("ordering_key", row.OrderingKey))
                        .ExecuteScalarAsync(cancellationToken)
                );
            var command = statements.With(
                Insert,
                ("id", row.Id),
                ("server", row.Server),
                ("account", row.Account),
                ("device_key", row.DeviceKey),
                ("device", row.Device),
                ("app", row.App),
                ("platform", row.Platform),
                ("lane", row.Lane?.Id),
                ("event_key", row.EventKey),
                ("source", (short)row.Source),
                ("class", (short)row.Class),
                ("sender", row.Sender),
                ("message_id", row.MessageId),
                ("stanza_id", row.StanzaId),
                ("event_at", row.EventAt.UtcTicks),
                ("message_type", row.MessageType),
                ("conversation", row.Conversation),
                ("call_id", row.CallId),
                ("author", row.Author),
                ("collapse_key", row.CollapseKey),
                ("ordering_key", row.OrderingKey),
                ("content", row.Content),
                ("badge", row.Badge),
                ("reason", row.Reason),
                ("situation", row.Situation),
                ("created_at", row.CreatedAt.UtcTicks),
                ("due_at", row.DueAt.UtcTicks),
                ("expires_at", row.ExpiresAt.UtcTicks),
                ("settled_at", row.SettledAt?.UtcTicks),
                ("state", mine ? (short)DeliveryState.Sending : (short)row.State),
                ("lease", mine ? row.Lease : null),
                ("lease_until", mine ? row.LeaseUntil?.UtcTicks : null),
                ("attempts", mine ? 1 : 0)
            );
            if (await command.ExecuteNonQueryAsync(cancellationToken) > 0)
            {
                added[row.Id] = mine;
            }
        }

        return added;
    }

    public override async Task<List<Delivery>> ClaimAsync(
        RelayDb db,
        IReadOnlyDictionary<Lane, int> lanes,
        Guid holder,
        TimeSpan duration,
        TimeSpan horizon,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var taken = new List<Delivery>();
        foreach (var (lane, most) in lanes)
        {
            taken.AddRange(
                await db.Set<Delivery>()
                    .FromSqlRaw(Claim, lane.Id, most, now.UtcTicks, (now + horizon).UtcTicks, KeyRowsMax, holder, (now + duration).UtcTicks)
                    .AsNoTracking()
                    .ToListAsync(cancellationToken)
            );
        }

        return taken;
    }

    public override async Task<HashSet<Guid>> SettleAsync(
        RelayDb db,
        IReadOnlyList<RowChange> changes,
        IReadOnlyList<Attempt> attempts,
        DatabaseClock clock,
        CancellationToken cancellationToken
    )
    {
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        await using var statements = new Statements(db);
        var changed = new HashSet<Guid>(changes.Count);
        foreach (var change in changes)
        {
            var command = statements.With(
                Settle,
                ("id", change.Id),
                ("lease", change.Lease),
                ("state", (short)change.State),
                ("reason", change.Reason),
                ("due_at", (now + change.Delay).UtcTicks),
                ("now", now.UtcTicks),
                ("attempts", change.Attempts),
                ("excused", change.Excused),
                ("count", change.Count),
                ("coalesced_into", change.CoalescedInto),
                ("answer_ms", change.Attempt?.DurationMs),
                ("status", change.Attempt?.Status),
                ("code", change.Attempt?.Code),
                ("provider_id", Delivery.StoredProviderId(change.Id, change.Attempt?.ProviderId))
            );
            if (await command.ExecuteNonQueryAsync(cancellationToken) > 0)
            {
                changed.Add(change.Id);
            }
        }

        foreach (var attempt in attempts.Where(a => changed.Contains(a.DeliveryId)))
        {
            await statements
                .With(
                    Try,
                    ("delivery_id", attempt.DeliveryId),
                    ("number", attempt.Number),
                    ("at", attempt.At.UtcTicks),
                    ("duration_ms", attempt.DurationMs),
                    ("status", attempt.Status),
                    ("code", attempt.Code),
                    ("outcome", attempt.Outcome),
                    ("provider_id", attempt.ProviderId)
                )
                .ExecuteNonQueryAsync(cancellationToken);
        }

        Failpoint.Reach("mid_settle");
        await transaction.CommitAsync(cancellationToken);
        return changed;
    }

    /// <summary>Prepared at their first use, gone with the transaction.</summary>
    private sealed class Statements(RelayDb db) : IAsyncDisposable
    {
        private readonly Dictionary<string, SqliteCommand> prepared = [];

        public SqliteCommand With(string text, params ReadOnlySpan<(string Name, object? Value)> parameters)
        {
            if (!prepared.TryGetValue(text, out var command))
            {
                prepared[text] = command = new SqliteCommand(
                    text,
                    (SqliteConnection)db.Database.GetDbConnection(),
                    (SqliteTransaction?)db.Database.CurrentTransaction?.GetDbTransaction()
                );
                foreach (var (name, _) in parameters)
                {
                    command.Parameters.Add(new SqliteParameter { ParameterName = "$" + name });
                }
            }

            for (var i = 0; i < parameters.Length; i++)
            {
                // a type that another value left behind would turn this one into text
                command.Parameters[i].ResetSqliteType();
                command.Parameters[i].Value = parameters[i].Value ?? DBNull.Value;
            }

            return command;
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var command in prepared.Values)
            {
                await command.DisposeAsync();
            }
        }
    }
}
