using System.Threading.Channels;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using Npgsql;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Ledger;

/// <summary>What the phone says of an alert.</summary>
/// <param name="Delivery">The head of the alert.</param>
/// <param name="Opened">The user has opened it; else it was only received.</param>
/// <param name="At">By the phone's clock; null: now.</param>
internal sealed record Receipt(Guid Delivery, bool Opened, DateTimeOffset? At);

/// <summary>
/// Writes receipts in groups: those that come in while one statement runs go together into the next. A delivery that waits, was accepted,
/// expired or used up its attempts becomes <c>received</c> or <c>opened</c>; of any other only the time is kept, and a row that is being
/// sent gets its state with the push network's answer. The first time of each kind stays.
/// </summary>
internal sealed class ReceiptWriter(
    IDbContextFactory<RelayDb> databases,
    DatabaseClock clock,
    MasterKey masterKey,
    WriteGate gate,
    RelayMetrics metrics
)
{
    private const int TogetherMax = 500;
    private const int WaitingMax = 10_000;

    /// <summary>A phone's clock may be so much ahead.</summary>
    private static readonly TimeSpan AheadMax = TimeSpan.FromMinutes(5);

    private const string Endable =
        $"{States.Pending}, {States.Accepted}, {States.Received}, {States.Opened}, {States.Expired}, {States.Dead}";

    private const string Changed = "device_key, app, platform, status, settled_at, received_at, opened_at";

    // the earlier of a row's columns count for all: an UPDATE sees the row as it was
    private const string Change = $"""
        UPDATE deliveries SET
            received_at = COALESCE(received_at, CASE WHEN r.at >= created_at AND r.at <= @latest THEN r.at ELSE @now END),
            opened_at = CASE WHEN r.opened
                THEN COALESCE(opened_at, CASE WHEN r.at >= created_at AND r.at <= @latest THEN r.at ELSE @now END) ELSE opened_at END,
            state = CASE WHEN state NOT IN ({Endable}) THEN state
                WHEN r.opened OR opened_at IS NOT NULL THEN {States.Opened} ELSE {States.Received} END,
            settled_at = CASE WHEN state = {States.Pending} THEN @now ELSE settled_at END,
            content = CASE WHEN state = {States.Pending} THEN NULL ELSE content END
        FROM receipts r
        WHERE deliveries.id = r.id AND (received_at IS NULL OR (r.opened AND opened_at IS NULL))
        """;

    private const string PostgreSql = $"""
        WITH receipts AS (
            SELECT DISTINCT ON (id) * FROM unnest(@id, @opened, @at) AS r(id, opened, at) ORDER BY id, opened DESC),
        changed AS ({Change} RETURNING {Changed}, r.opened AS opened),
        touched AS (
            UPDATE devices v SET last_received_at = GREATEST(v.last_received_at, c.at)
            FROM (SELECT device_key, max(COALESCE(opened_at, received_at)) AS at FROM changed GROUP BY device_key) c
            WHERE v.key = c.device_key)
        SELECT app, platform, status, settled_at, received_at, opened FROM changed
        """;

    private const string Sqlite = $"WITH receipts AS (SELECT @id AS id, @opened AS opened, @at AS at) {Change} RETURNING {Changed}";

    private const string SqliteDevice = "UPDATE devices SET last_received_at = MAX(COALESCE(last_received_at, 0), @at) WHERE key = @device";

    private readonly Channel<Waiting> inbox = Channel.CreateBounded<Waiting>(WaitingMax);
    private int writing;

    /// <summary>Returns when it is stored; a receipt of a deleted delivery is ignored.</summary>
    /// <param name="credential">As the alert brought it.</param>
    /// <param name="opened">See <see cref="Receipt.Opened"/>.</param>
    /// <param name="at">See <see cref="Receipt.At"/>.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <returns>False: we never made this credential. Nothing was asked of the database.</returns>
    public async Task<bool> WriteAsync(string credential, bool opened, DateTimeOffset? at, CancellationToken cancellationToken)
    {
        if (!Receipts.TryRead(masterKey, credential, out var delivery))
        {
            return false;
        }

        var waiting = new Waiting(new Receipt(delivery, opened, at));
        await inbox.Writer.WriteAsync(waiting, cancellationToken);
        if (Interlocked.CompareExchange(ref writing, 1, 0) == 0)
        {
            _ = Task.Run(WriteAllAsync, CancellationToken.None);
        }

        await waiting.Written.Task.WaitAsync(cancellationToken);
        return true;
    }

    private async Task WriteAllAsync()
    {
        do
        {
            var batch = new List<Waiting>();
            while (batch.Count < TogetherMax && inbox.Reader.TryRead(out var next))
            {
                batch.Add(next);
            }

            if (batch.Count > 0)
            {
                await WriteAsync(batch);
                continue;
            }

            // a full fence: a receipt that came after the last look either starts the next writer or is seen here
            Interlocked.Exchange(ref writing, 0);
            if (inbox.Reader.Count == 0 || Interlocked.CompareExchange(ref writing, 1, 0) != 0)
            {
                return;
            }
        } while (true);
    }

    private async Task WriteAsync(List<Waiting> batch)
    {
        try
        {
            await DatabaseErrors.RetryClashesAsync(
                async _ =>
                {
                    await StoreAsync(batch.ConvertAll(w => w.Receipt));
                    return true;
                },
                triesMax: 3
            );
            batch.ForEach(w => w.Written.TrySetResult());
        }
        catch (Exception exception)
        {
            batch.ForEach(w => w.Written.TrySetException(exception));
        }
    }

    private async Task StoreAsync(List<Receipt> receipts)
    {
        var none = CancellationToken.None;
        await using var db = await databases.CreateDbContextAsync(none);
        using var held = await gate.EnterAsync(none);
        var now = await clock.NowAsync(db, none);
        if (!db.IsSqlite)
        {
            await db.Database.OpenConnectionAsync(none);
            await using var command = ((NpgsqlConnection)db.Database.GetDbConnection()).CreateCommand();
            command.CommandText = PostgreSql;
            command.Parameters.AddWithValue("id", receipts.Select(r => r.Delivery).ToArray());
            command.Parameters.AddWithValue("opened", receipts.Select(r => r.Opened).ToArray());
            command.Parameters.AddWithValue("at", receipts.Select(r => (r.At ?? now).UtcDateTime).ToArray());
            command.Parameters.AddWithValue("now", now.UtcDateTime);
            command.Parameters.AddWithValue("latest", (now + AheadMax).UtcDateTime);
            await using var rows = await command.ExecuteReaderAsync(none);
            while (await rows.ReadAsync(none))
            {
                Count(
                    rows.GetString(0),
                    rows.GetString(1),
                    rows.IsDBNull(2) ? null : rows.GetInt32(2),
                    rows.IsDBNull(3) ? null : rows.GetFieldValue<DateTimeOffset>(3),
                    rows.GetFieldValue<DateTimeOffset>(4),
                    rows.GetBoolean(5)
                );
            }

            return;
        }

        await using var transaction = await db.Database.BeginTransactionAsync(none);
        foreach (var receipt in receipts)
        {
            await StoreAsync(db, receipt, now);
        }

        await transaction.CommitAsync(none);
    }

    private void Count(string app, string platform, int? status, DateTimeOffset? settledAt, DateTimeOffset receivedAt, bool opened) =>
        metrics.CountReceipt(
            app,
            platform,
            opened ? "opened" : "received",
            // a row that expired has another end than the network's yes
            !opened && status is >= 200 and < 300
                ? receivedAt - settledAt
                : null
        );

    private async Task StoreAsync(RelayDb db, Receipt receipt, DateTimeOffset now)
    {
        await using var change = NewCommand(
            db,
            Sqlite,
            ("id", receipt.Delivery),
            ("opened", receipt.Opened),
            ("at", (receipt.At ?? now).UtcTicks),
            ("now", now.UtcTicks),
            ("latest", (now + AheadMax).UtcTicks)
        );
        object device;
        long at;
        await using (var row = await change.ExecuteReaderAsync(CancellationToken.None))
        {
            if (!await row.ReadAsync(CancellationToken.None))
            {
                return;
            }

            device = row.GetValue(0);
            var receivedAt = row.GetInt64(5);
            at = row.IsDBNull(6) ? receivedAt : row.GetInt64(6);
            Count(
                row.GetString(1),
                row.GetString(2),
                row.IsDBNull(3) ? null : row.GetInt32(3),
                row.IsDBNull(4) ? null : new DateTimeOffset(row.GetInt64(4), TimeSpan.Zero),
                new DateTimeOffset(receivedAt, TimeSpan.Zero),
                receipt.Opened
            );
        }

        await using var touch = NewCommand(db, SqliteDevice, ("device", device), ("at", at));
        await touch.ExecuteNonQueryAsync(CancellationToken.None);
    }

    private static SqliteCommand NewCommand(RelayDb db, string text, params (string Name, object Value)[] parameters)
    {
        var connection = (SqliteConnection)db.Database.GetDbConnection();
        var command = connection.CreateCommand();
        command.CommandText = text;
        command.Transaction = (SqliteTransaction?)db.Database.CurrentTransaction?.GetDbTransaction();
        foreach (var (name, value) in parameters)
        {
            command.Parameters.AddWithValue("@" + name, value);
        }

        return command;
    }

    /// <summary>A receipt that waits to be written.</summary>
    private sealed record Waiting(Receipt Receipt)
    {
        public TaskCompletionSource Written { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
