using System.Data.Common;
using System.Text.Json;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Tests.Storage;
using SQLitePCL;

namespace PushRelay.Tests.Hostile;

/// <summary>
/// What an attack on the relay needs: a relay on either database, a ledger of any size, what a statement costs there, and a clock that goes
/// both ways. A new attack is a test in one of the classes beside this one: fill, do, and state the bound that must hold.
/// </summary>
public abstract class Attack : IAsyncLifetime
{
    /// <summary>The trait of what takes long: <c>[Trait(Attack.Pace, Attack.Slow)]</c>.</summary>
    public const string Pace = "hostile";
    public const string Slow = "slow";

    /// <summary>Null: SQLite.</summary>
    private protected PostgreSqlServer? Server { get; init; }

    private protected TestRelay Relay { get; private set; } = null!;

    private protected static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() =>
        Relay = await TestRelay.OpenAsync(Server is null ? null : await Server.NewDatabaseAsync(Token), Settings);

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return Relay.DisposeAsync();
    }

    private protected virtual string[] Settings => [];

    /// <summary>Adds so many rows of the device, as they are after the event has been decided.</summary>
    private protected async Task FillAsync(Device device, int count, Func<int, Delivery, Delivery>? change = null)
    {
        var now = await Relay.NowAsync();
        var ids = Relay.Get<IdSequence>();
        await using var db = Relay.NewDb();
        foreach (var some in Enumerable.Range(0, count).Chunk(5000))
        {
            await using var transaction = await db.Database.BeginTransactionAsync(Token);
            var rows = some.Select(i =>
                {
                    var row = Relay.NewRow(device, ids.Next(now), now, Guid.NewGuid());
                    return change is null ? row : change(i, row);
                })
                .ToList();
            await Relay.Outbox.AppendAsync(db, rows, claim: false, now, Token);
            await transaction.CommitAsync(Token);
        }

        if (!db.IsSqlite)
        {
            await db.Database.ExecuteSqlRawAsync("ANALYZE deliveries", Token);
        }
    }

    /// <summary>The rows that a statement looks at, on SQLite the steps of its program (some ten a row): the same on every
    /// machine.</summary>
    private protected static async Task<long> CostAsync(RelayDb db, DbCommand command)
    {
        await db.Database.OpenConnectionAsync(Token);
        return db.IsSqlite ? Steps((SqliteConnection)db.Database.GetDbConnection(), command) : await LookedAtAsync(command);
    }

    /// <summary>Moves the time of this process and of the database, also back.</summary>
    private protected void Step(TimeSpan by)
    {
        if (by > TimeSpan.Zero)
        {
            Relay.Advance(by);
            return;
        }

        Relay.Get<DatabaseClock>().Offset += by;
        Relay.Clock.AdjustTime(Relay.Clock.GetUtcNow() + by);
    }

    private protected Task CommitAsync(params RelayEvent[] events) =>
        Relay.Get<EventIngest>().CommitAsync([new EventBatch(new StreamName(TestRelay.Server, ""), events, null)], null, Token);

    private static long Steps(SqliteConnection connection, DbCommand command)
    {
        const int VmStep = 4; // https://sqlite.org/c3ref/c_stmtstatus_counter.html
        Assert.Equal(raw.SQLITE_OK, raw.sqlite3_prepare_v2(connection.Handle!, command.CommandText, out var statement));
        using (statement)
        {
            foreach (DbParameter parameter in command.Parameters)
            {
                var index = raw.sqlite3_bind_parameter_index(
                    statement,
                    parameter.ParameterName[0] is '@' or '$' ? parameter.ParameterName : "@" + parameter.ParameterName
                );
                _ = parameter.Value switch
                {
                    long number => raw.sqlite3_bind_int64(statement, index, number),
                    int number => raw.sqlite3_bind_int64(statement, index, number),
                    short number => raw.sqlite3_bind_int64(statement, index, number),
                    Guid id => raw.sqlite3_bind_text(statement, index, id.ToString().ToUpperInvariant()),
                    var text => raw.sqlite3_bind_text(statement, index, (string)text!),
                };
            }

            while (raw.sqlite3_step(statement) == raw.SQLITE_ROW)
            {
                // all of it
            }

            return raw.sqlite3_stmt_status(statement, VmStep, 0);
        }
    }

    private static async Task<long> LookedAtAsync(DbCommand command)
    {
        command.CommandText = "EXPLAIN (ANALYZE, FORMAT JSON) " + command.CommandText;
        using var plan = JsonDocument.Parse((string)(await command.ExecuteScalarAsync(Token))!);
        return Rows(plan.RootElement[0].GetProperty("Plan"));

        static long Rows(JsonElement node) =>
            (long)(
                (Number(node, "Actual Rows") + Number(node, "Rows Removed by Filter") + Number(node, "Rows Removed by Index Recheck"))
                * Number(node, "Actual Loops")
            ) + (node.TryGetProperty("Plans", out var plans) ? plans.EnumerateArray().Sum(Rows) : 0);

        static double Number(JsonElement node, string name) => node.TryGetProperty(name, out var value) ? value.GetDouble() : 0;
    }
}
