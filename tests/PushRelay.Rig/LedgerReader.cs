using System.Data.Common;
using System.Globalization;
using Microsoft.Data.Sqlite;
using Npgsql;

namespace PushRelay.Rig;

/// <summary>A row of <c>deliveries</c>, as far as the oracle asks.</summary>
internal sealed record LedgerRow(
    Guid Id,
    int Event,
    int Device,
    DeliveryStateNumber State,
    string Reason,
    int Attempts,
    Guid? CoalescedInto
);

/// <summary>What the table stores; it is part of the schema and never changes.</summary>
internal enum DeliveryStateNumber : short
{
    Pending = 0,
    Sending = 1,
    Accepted = 2,
    Received = 3,
    Opened = 4,
    Suppressed = 5,
    Coalesced = 6,
    Cancelled = 7,
    Expired = 8,
    Rejected = 9,
    Dead = 10,
}

/// <summary>Reads the relay's database from outside, beside it.</summary>
internal sealed class LedgerReader(string? postgreSql, string folder)
{
    public bool IsSqlite => postgreSql is null;

    public async Task<List<LedgerRow>> ReadAsync(CancellationToken cancellationToken)
    {
        var rows = new List<LedgerRow>();
        await using var connection = await OpenAsync(cancellationToken);
        await using var command = connection.CreateCommand();
        command.CommandText =
            "SELECT id, message_id, account, state, reason, attempts, coalesced_into FROM deliveries WHERE message_id IS NOT NULL";
        command.CommandTimeout = 120;
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            var account = reader.GetString(2);
            rows.Add(
                new LedgerRow(
                    reader.GetGuid(0),
                    Rehearsal.EventOfId(reader.GetString(1)),
                    int.Parse(account.AsSpan(1, account.IndexOf('@', StringComparison.Ordinal) - 1), CultureInfo.InvariantCulture),
                    (DeliveryStateNumber)reader.GetInt16(3),
                    reader.GetString(4),
                    reader.GetInt32(5),
                    await reader.IsDBNullAsync(6, cancellationToken) ? null : reader.GetGuid(6)
                )
            );
        }

        return rows;
    }

    /// <summary>Rows that are not final.</summary>
    public Task<long> OpenRowsAsync(CancellationToken cancellationToken) => CountAsync("state = 0 OR state = 1", cancellationToken);

    public Task<long> SendingRowsAsync(CancellationToken cancellationToken) => CountAsync("state = 1", cancellationToken);

    /// <param name="condition">SQL.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async Task<long> CountAsync(string condition, CancellationToken cancellationToken) =>
        Convert.ToInt64(
            await ScalarAsync($"SELECT count(*) FROM deliveries WHERE {condition}", cancellationToken),
            CultureInfo.InvariantCulture
        );

    public async Task<object?> ScalarAsync(string sql, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        await using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.CommandTimeout = 600;
        return await command.ExecuteScalarAsync(cancellationToken);
    }

    /// <summary>Waits until no row is open; a database that is away for the moment is asked again.</summary>
    /// <exception cref="TimeoutException">Some still were after that time.</exception>
    public Task DrainedAsync(TimeSpan patience, CancellationToken cancellationToken) =>
        Until.TrueAsync(
            async () =>
            {
                try
                {
                    return await OpenRowsAsync(cancellationToken) == 0;
                }
                catch (DbException)
                {
                    return false;
                }
            },
            "every row is final",
            patience,
            cancellationToken,
            TimeSpan.FromMilliseconds(250)
        );

    /// <summary>Adds settled rows of the past: copies of one that is there, under ids of their own, which the oracle passes over.</summary>
    public async Task FillAsync(int rows, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        var columns = new List<string>();
        await using (var look = connection.CreateCommand())
        {
            look.CommandText = "SELECT * FROM deliveries LIMIT 0";
            await using var reader = await look.ExecuteReaderAsync(cancellationToken);
            columns.AddRange(Enumerable.Range(0, reader.FieldCount).Select(reader.GetName));
        }

        const string SqliteId = "upper(printf('%08x-0000-7000-8000-%012x', n, n))";
        var values = columns.Select(column =>
            column switch
            {
                "id" => IsSqlite ? SqliteId : "gen_random_uuid()",
                "event_key" => "'past:' || n",
                "message_id" => "'past'",
                _ => $"d.\"{column}\"",
            }
        );
        var series = IsSqlite
            ? "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < @rows) SELECT n FROM s)"
            : "(SELECT n FROM generate_series(1, @rows) AS g(n))";
        await using var command = connection.CreateCommand();
        command.CommandText = $"""
            INSERT INTO deliveries ({string.Join(", ", columns.Select(c => $"\"{c}\""))})
            SELECT {string.Join(", ", values)} FROM (SELECT * FROM deliveries WHERE state = 2 LIMIT 1) AS d CROSS JOIN {series} AS numbers
            """;
        command.CommandTimeout = 600;
        var parameter = command.CreateParameter();
        (parameter.ParameterName, parameter.Value) = ("@rows", rows);
        command.Parameters.Add(parameter);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    public async Task<DbConnection> OpenAsync(CancellationToken cancellationToken)
    {
        DbConnection connection = postgreSql is null
            ? new SqliteConnection($"Data Source={Path.Combine(folder, "pushrelay.db")};Pooling=false;Default Timeout=30")
            : new NpgsqlConnection(postgreSql + ";Pooling=false;Timeout=5");
        await connection.OpenAsync(cancellationToken);
        return connection;
    }
}
