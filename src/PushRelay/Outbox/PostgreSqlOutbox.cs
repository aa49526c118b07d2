using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using Npgsql;
using PushRelay.Faults;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>Arrays in, one statement each: a thousand rows cost little more than one.</summary>
internal sealed class PostgreSqlOutbox : OutboxSql
{
    public static readonly PostgreSqlOutbox Instance = new();

    // OFFSET 0 keeps the planner from asking "is the ordering key free" once for each column that depends on it
    private const string Insert = $"""
        INSERT INTO deliveries (
            id, server, account, device_key, device, app, platform, lane, event_key, source, class, sender, message_id, stanza_id, event_at,
            message_type, conversation, call_id,
            author, collapse_key, ordering_key, content, badge, reason, situation, created_at, due_at, expires_at,
                settled_at,
            state, lease, lease_until, attempts, attempts_excused, count)
        SELECT
            u.id, u.server, u.account, u.device_key, u.device, u.app, u.platform, u.lane, u.event_key, u.source, u.class, u.sender,
                u.message_id, u.stanza_id,
            u.event_at, u.message_type, u.conversation, u.call_id,
            u.author, u.collapse_key, u.ordering_key, u.content, u.badge, u.reason, u.situation,
                u.created_at, u.due_at, u.expires_at, u.settled_at,
            CASE WHEN m.mine THEN {States.Sending}::smallint ELSE u.state END,
            CASE WHEN m.mine THEN u.lease END, CASE WHEN m.mine THEN u.lease_until END,
            CASE WHEN m.mine THEN 1 ELSE 0 END, 0, 1
        FROM unnest(@id, @server, @account, @device_key, @device, @app, @platform, @lane, @event_key, @source, @class, @sender,
            @message_id, @stanza_id, @event_at,
            @message_type, @conversation, @call_id,
            @author, @collapse_key, @ordering_key, @content, @badge, @reason, @situation, @created_at, @due_at,
                @expires_at, @settled_at, @state, @lease, @lease_until)
            AS u(id, server, account, device_key, device, app, platform, lane, event_key, source, class, sender, message_id, stanza_id,
                event_at,
            message_type, conversation, call_id,
            author, collapse_key, ordering_key, content, badge, reason, situation, created_at, due_at, expires_at,
                settled_at, state, lease, lease_until)
        CROSS JOIN LATERAL (
            SELECT u.lease IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.device_key = u.device_key AND o.ordering_key = u.ordering_key
                    AND o.state = {States.Pending})
                AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.device_key = u.device_key AND o.ordering_key = u.ordering_key
                    AND o.state = {States.Sending} AND o.coalesced_into IS NULL)
                AS mine OFFSET 0) m
        ON CONFLICT (server, account, device_key, event_key) DO NOTHING
        RETURNING id, state = {States.Sending}
        """;

    private const string Claim = $$"""
        WITH heads AS MATERIALIZED (
            SELECT h.id, h.device_key, h.ordering_key
            FROM unnest({0}, {1}) AS a(lane, most)
            CROSS JOIN LATERAL (
                SELECT d.id, d.device_key, d.ordering_key FROM deliveries d
                WHERE d.state = {{States.Pending}} AND d.lane = a.lane AND d.due_at <= {2} AND d.expires_at > {2}
                AND NOT EXISTS (
                    SELECT 1 FROM deliveries o
                    WHERE o.state = {{States.Pending}} AND o.device_key = d.device_key AND o.ordering_key = d.ordering_key
                        AND o.id < d.id AND o.expires_at > {2})
                AND NOT EXISTS (
                    SELECT 1 FROM deliveries o
                    WHERE o.state = {{States.Sending}} AND o.coalesced_into IS NULL AND o.device_key = d.device_key
                        AND o.ordering_key = d.ordering_key)
                ORDER BY d.due_at LIMIT a.most FOR UPDATE OF d SKIP LOCKED) h),
        taken AS MATERIALIZED (
            SELECT f.id, heads.id AS head FROM heads
            CROSS JOIN LATERAL (
                SELECT d.id FROM deliveries d
                WHERE d.state = {{States.Pending}} AND d.device_key = heads.device_key AND d.ordering_key = heads.ordering_key
                    AND d.due_at <= {3} AND d.expires_at > {2}
                ORDER BY d.id LIMIT {4} FOR UPDATE OF d SKIP LOCKED) f)
        UPDATE deliveries d SET
            state = {{States.Sending}}, lease = {5}, lease_until = {6}, attempts = d.attempts + CASE WHEN d.id = t.head THEN 1 ELSE 0 END,
            coalesced_into = CASE WHEN d.id = t.head THEN NULL ELSE t.head END
        FROM taken t WHERE d.id = t.id AND d.state = {{States.Pending}}
        RETURNING d.*
        """;

    private const string Settle = $"""
        WITH changed AS (
            UPDATE deliveries d SET
                state = CASE
                    WHEN u.state = {States.Accepted} AND d.opened_at IS NOT NULL THEN {States.Opened}::smallint
                    WHEN u.state = {States.Accepted} AND d.received_at IS NOT NULL THEN {States.Received}::smallint
                    ELSE u.state END,
                reason = COALESCE(u.reason, d.reason),
                due_at = CASE WHEN u.state = {States.Pending}
                    THEN statement_timestamp() + @offset + u.delay * interval '1 millisecond' ELSE d.due_at END,
                settled_at = CASE WHEN u.state = {States.Pending} THEN NULL ELSE statement_timestamp() + @offset END,
                content = CASE WHEN u.state = {States.Pending} THEN d.content END,
                attempts = d.attempts + u.attempts,
                attempts_excused = d.attempts_excused + u.excused,
                count = u.count,
                coalesced_into = u.coalesced_into,
                status = CASE WHEN u.answer_ms IS NULL THEN d.status ELSE u.status END,
                code = CASE WHEN u.answer_ms IS NULL THEN d.code ELSE u.code END,
                provider_id = CASE WHEN u.answer_ms IS NULL THEN d.provider_id ELSE u.provider_id END,
                answer_ms = COALESCE(u.answer_ms, d.answer_ms),
                lease = NULL,
                lease_until = NULL
            FROM unnest(@id, @lease, @state, @reason, @delay, @attempts, @excused, @count, @coalesced_into, @answer_ms, @status, @code,
                @provider_id)
                AS u(id, lease, state, reason, delay, attempts, excused, count, coalesced_into, answer_ms, status, code, provider_id)
            WHERE d.id = u.id AND d.state = {States.Sending} AND d.lease = u.lease
            RETURNING d.id),
        tried AS (
            INSERT INTO attempts (delivery_id, number, at, duration_ms, status, code, outcome, provider_id)
            SELECT a.* FROM unnest(@a_delivery, @a_number, @a_at, @a_duration, @a_status, @a_code, @a_outcome, @a_provider)
                AS a(delivery_id, number, at, duration_ms, status, code, outcome, provider_id)
            WHERE a.delivery_id IN (SELECT id FROM changed))
        SELECT id FROM changed
        """;

    public override async Task<Dictionary<Guid, bool>> InsertAsync(
        RelayDb db,
        IReadOnlyList<Delivery> rows,
        CancellationToken cancellationToken
    )
    {
        await using var command = NewCommand(db, Insert);
        Add(command, "id", rows, d => d.Id);
        Add(command, "server", rows, d => d.Server);
        Add(command, "account", rows, d => d.Account);
        Add(command, "device_key", rows, d => d.DeviceKey);
        Add(command, "device", rows, d => d.Device);
        Add(command, "app", rows, d => d.App);
        Add(command, "platform", rows, d => d.Platform);
        Add(command, "lane", rows, d => d.Lane?.Id);
        Add(command, "event_key", rows, d => d.EventKey);
        Add(command, "source", rows, d => (short)d.Source);
        Add(command, "class", rows, d => (short)d.Class);
        Add(command, "sender", rows, d => d.Sender);
        Add(command, "message_id", rows, d => d.MessageId);
        Add(command, "stanza_id", rows, d => d.StanzaId);
        Add(command, "event_at", rows, d => d.EventAt.UtcDateTime);
        Add(command, "message_type", rows, d => d.MessageType);
        Add(command, "conversation", rows, d => d.Conversation);
        Add(command, "call_id", rows, d => d.CallId);
        Add(command, "author", rows, d => d.Author);
        Add(command, "collapse_key", rows, d => d.CollapseKey);
        Add(command, "ordering_key", rows, d => d.OrderingKey);
        Add(command, "content", rows, d => d.Content);
        Add(command, "badge", rows, d => d.Badge);
        Add(command, "reason", rows, d => d.Reason);
        Add(command, "situation", rows, d => d.Situation);
        Add(command, "created_at", rows, d => d.CreatedAt.UtcDateTime);
        Add(command, "due_at", rows, d => d.DueAt.UtcDateTime);
        Add(command, "expires_at", rows, d => d.ExpiresAt.UtcDateTime);
        Add(command, "settled_at", rows, d => d.SettledAt?.UtcDateTime);
        Add(command, "state", rows, d => (short)d.State);
        Add(command, "lease", rows, d => d.Lease);
        Add(command, "lease_until", rows, d => d.LeaseUntil?.UtcDateTime);
        return (await ReadAsync(command, row => (row.GetGuid(0), row.GetBoolean(1)), cancellationToken)).ToDictionary(
            r => r.Item1,
            r => r.Item2
        );
    }

    public override Task<List<Delivery>> ClaimAsync(
        RelayDb db,
        IReadOnlyDictionary<Lane, int> lanes,
        Guid holder,
        TimeSpan duration,
        TimeSpan horizon,
        DateTimeOffset now,
        CancellationToken cancellationToken
    ) =>
        db.Set<Delivery>()
            .FromSqlRaw(
                Claim,
                lanes.Keys.Select(l => l.Id).ToArray(),
                lanes.Values.ToArray(),
                now.UtcDateTime,
                (now + horizon).UtcDateTime,
                KeyRowsMax,
                holder,
                (now + duration).UtcDateTime
            )
            .AsNoTracking()
            .ToListAsync(cancellationToken);

    public override async Task<HashSet<Guid>> SettleAsync(
        RelayDb db,
        IReadOnlyList<RowChange> changes,
        IReadOnlyList<Attempt> attempts,
        DatabaseClock clock,
        CancellationToken cancellationToken
    )
    {
        // one statement, which is its own transaction and reads the clock itself: one round trip
        await db.Database.OpenConnectionAsync(cancellationToken);
        await using var command = NewCommand(db, Settle);
        command.Parameters.Add(new NpgsqlParameter<TimeSpan>("offset", clock.Offset));
        Add(command, "id", changes, c => c.Id);
        Add(command, "lease", changes, c => c.Lease);
        Add(command, "state", changes, c => (short)c.State);
        Add(command, "reason", changes, c => c.Reason);
        Add(command, "delay", changes, c => c.Delay.TotalMilliseconds);
        Add(command, "attempts", changes, c => c.Attempts);
        Add(command, "excused", changes, c => c.Excused);
        Add(command, "count", changes, c => c.Count);
        Add(command, "coalesced_into", changes, c => c.CoalescedInto);
        Add(command, "answer_ms", changes, c => c.Attempt?.DurationMs);
        Add(command, "status", changes, c => c.Attempt?.Status);
        Add(command, "code", changes, c => c.Attempt?.Code);
        Add(command, "provider_id", changes, c => Delivery.StoredProviderId(c.Id, c.Attempt?.ProviderId));
        Add(command, "a_delivery", attempts, a => a.DeliveryId);
        Add(command, "a_number", attempts, a => a.Number);
        Add(command, "a_at", attempts, a => a.At.UtcDateTime);
        Add(command, "a_duration", attempts, a => a.DurationMs);
        Add(command, "a_status", attempts, a => a.Status);
        Add(command, "a_code", attempts, a => a.Code);
        Add(command, "a_outcome", attempts, a => a.Outcome);
        Add(command, "a_provider", attempts, a => a.ProviderId);
        Failpoint.Reach("mid_settle");
        return [.. await ReadAsync(command, row => row.GetGuid(0), cancellationToken)];
    }

    private static NpgsqlCommand NewCommand(RelayDb db, string text) =>
        new(text, (NpgsqlConnection)db.Database.GetDbConnection(), (NpgsqlTransaction?)db.Database.CurrentTransaction?.GetDbTransaction());

    private static void Add<TItem, TValue>(NpgsqlCommand command, string name, IReadOnlyList<TItem> items, Func<TItem, TValue> value)
    {
        var values = new TValue[items.Count];
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = value(items[i]);
        }

        command.Parameters.Add(new NpgsqlParameter<TValue[]>(name, values));
    }
}
