using System.Buffers;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Everything that is kept about an account: to be given to it, or to be erased. For REST and the command line.</summary>
internal sealed class AccountData(
    IDbContextFactory<RelayDb> databases,
    ServedAccounts accounts,
    DeviceQueries devices,
    AuditTrail audit,
    DatabaseClock clock,
    WriteGate gate,
    RecentDevices recent
)
{
    private const int RowsAtOnce = 500;

    private static readonly JsonSerializerOptions Written = new(ApiBody.Json) { Converters = { new ApiTime() } };

    /// <summary>The account's name as it is kept; null: of no configured server.</summary>
    public string? NameOf(string account) => accounts.TryName(account, out var name, out _) ? name : null;

    /// <summary>Writes one JSON object: devices, tokens, unread counts, sessions, history, audit, deliveries with their attempts. Tokens of
    /// push networks and texts of messages are not in it: what is kept of them is sealed.</summary>
    /// <param name="account">As <see cref="NameOf"/> says.</param>
    /// <param name="output">Gets UTF-8, bit by bit: an account may have any number of rows.</param>
    /// <param name="cancellationToken">Stops it in the middle.</param>
    public async Task ExportAsync(string account, Stream output, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        // the serializer flushes its writer, and a response takes nothing but what is written asynchronously
        var buffer = new ArrayBufferWriter<byte>();
        await using var json = new Utf8JsonWriter(buffer);
        async Task FlushAsync()
        {
            await json.FlushAsync(cancellationToken);
            await output.WriteAsync(buffer.WrittenMemory, cancellationToken);
            buffer.Clear();
        }

        json.WriteStartObject();
        json.WriteString("account", account);
        json.WriteString("exportedAt", await clock.NowAsync(db, cancellationToken));
        Write(json, "devices", await devices.OfAccountAsync(account, int.MaxValue, cancellationToken));
        Write(
            json,
            "tokens",
            await db.Set<AccountToken>()
                .Where(t => t.Account == account)
                .Select(t => new
                {
                    t.Id,
                    t.CreatedAt,
                    t.ExpiresAt,
                })
                .ToListAsync(cancellationToken)
        );
        Write(
            json,
            "unread",
            await db.Set<UnreadCount>()
                .Where(u => u.Account == account)
                .Select(u => new { u.Conversation, u.Count })
                .ToListAsync(cancellationToken)
        );
        Write(
            json,
            "sessions",
            await db.Set<StoredSession>()
                .Where(s => s.Account == account)
                .Select(s => new
                {
                    s.Resource,
                    s.State,
                    s.Available,
                    s.Priority,
                    s.Show,
                    s.Since,
                })
                .ToListAsync(cancellationToken)
        );
        await WriteAllAsync(
            json,
            "history",
            after =>
                db.Set<HistoryEntry>()
                    .AsNoTracking()
                    .Where(h => h.Account == account && h.Id.CompareTo(after) > 0)
                    .OrderBy(h => h.Id)
                    .Take(RowsAtOnce)
                    .ToListAsync(cancellationToken),
            h => h.Id,
            h => new
            {
                kind = h.Kind.ToString().ToLowerInvariant(),
                h.At,
                data = JsonDocument.Parse(h.Data).RootElement,
            },
            FlushAsync
        );
        await WriteAllAsync(
            json,
            "audit",
            after =>
                db.Set<AuditRecord>()
                    .AsNoTracking()
                    .Where(r => r.Account == account && r.Id.CompareTo(after) > 0)
                    .OrderBy(r => r.Id)
                    .Take(RowsAtOnce)
                    .ToListAsync(cancellationToken),
            r => r.Id,
            r => new
            {
                r.At,
                r.Actor,
                r.Action,
                r.Target,
                r.Result,
            },
            FlushAsync
        );
        await WriteAllAsync(
            json,
            "deliveries",
            async after =>
            {
                var rows = await db.Set<Delivery>()
                    .AsNoTracking()
                    .Where(d => d.Account == account && d.Id.CompareTo(after) > 0)
                    .OrderBy(d => d.Id)
                    .Take(RowsAtOnce)
                    .ToListAsync(cancellationToken);
                var ids = rows.ConvertAll(d => d.Id);
                var attempts = (
                    await db.Set<Attempt>().AsNoTracking().Where(a => ids.Contains(a.DeliveryId)).ToListAsync(cancellationToken)
                ).ToLookup(a => a.DeliveryId);
                return rows.ConvertAll(d => new DeliveryDetail(d, DeliveryQueries.Log(d, [.. attempts[d.Id]])));
            },
            d => d.Id,
            d => d,
            FlushAsync
        );
        json.WriteEndObject();
        await FlushAsync();
    }

    /// <summary>Erases all of it from every table; the audit keeps one record, that it happened. A session that is connected stays in
    /// memory.</summary>
    public async Task EraseAsync(string account, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var held = await gate.EnterAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var keys = await db.Set<Device>().Where(d => d.Account == account).Select(d => d.Key).ToListAsync(cancellationToken);
        await db.Set<Delivery>().Where(d => d.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<Device>().Where(d => d.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<AccountToken>().Where(t => t.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<UnreadCount>().Where(u => u.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<StoredSession>().Where(s => s.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<HistoryEntry>().Where(h => h.Account == account).ExecuteDeleteAsync(cancellationToken);
        await db.Set<AuditRecord>().Where(r => r.Account == account).ExecuteDeleteAsync(cancellationToken);
        var record = audit.Record(
            db,
            await clock.NowAsync(db, cancellationToken),
            actor,
            AuditActions.AccountErased,
            account,
            target: null
        );
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        recent.Forget(keys);
        audit.Log(record);
    }

    private static void Write<T>(Utf8JsonWriter json, string name, T value)
    {
        json.WritePropertyName(name);
        JsonSerializer.Serialize(json, value, Written);
    }

    private static async Task WriteAllAsync<TRow>(
        Utf8JsonWriter json,
        string name,
        Func<Guid, Task<List<TRow>>> readAfterAsync,
        Func<TRow, Guid> idOf,
        Func<TRow, object> show,
        Func<Task> flushAsync
    )
    {
        json.WriteStartArray(name);
        var after = Guid.Empty;
        while (await readAfterAsync(after) is { Count: > 0 } rows)
        {
            foreach (var row in rows)
            {
                JsonSerializer.Serialize(json, show(row), Written);
            }

            after = idOf(rows[^1]);
            await flushAsync();
        }

        json.WriteEndArray();
    }
}
