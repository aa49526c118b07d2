using System.Data.Common;
using System.Globalization;
using System.Security.Cryptography;
using PushRelay.Devices;
using PushRelay.Push;
using PushRelay.Rig;
using PushRelay.Secrets;

namespace PushRelay.Benchmarks;

/// <summary>
/// Devices by the hundred thousand, beside the running relay: each is the row that the first one got over REST, under its own account, id
/// and
/// node, with its own token sealed with the relay's master key. One request for each would take longer than what is measured.
/// </summary>
internal static class DeviceFill
{
    /// <summary>What each device has of its own; the rest is the first one's.</summary>
    private static readonly string[] Own = ["key", "id", "account", "token_index", "tokens", "node"];

    private const int TogetherMax = 2000;

    /// <param name="ledger">The relay's database.</param>
    /// <param name="masterKeyFile">The relay's.</param>
    /// <param name="devices">So many in all; device 0 is there.</param>
    /// <param name="cancellationToken">Stops it; nothing is added then.</param>
    public static async Task FillAsync(LedgerReader ledger, string masterKeyFile, int devices, CancellationToken cancellationToken)
    {
        var masterKey = new MasterKey(Convert.FromHexString((await File.ReadAllTextAsync(masterKeyFile, cancellationToken)).Trim()));
        await using var connection = await ledger.OpenAsync(cancellationToken);
        await using (var known = connection.CreateCommand())
        {
            known.CommandText = "SELECT naming FROM known_keys";
            masterKey.UseNaming((byte[])(await known.ExecuteScalarAsync(cancellationToken))!);
        }

        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var insert = connection.CreateCommand();
        insert.Transaction = transaction;
        var columns = await ColumnsAsync(connection, transaction, cancellationToken);
        var rows = ledger.IsSqlite
            ? $"(SELECT {string.Join(", ", Own.Select(c => $"@{c} AS \"{c}\""))})"
            : $"unnest({string.Join(", ", Own.Select(c => $"@{c}"))})";
        insert.CommandText = $"""
            INSERT INTO devices ({string.Join(", ", columns.Select(c => $"\"{c}\""))})
            SELECT {string.Join(", ", columns.Select(c => $"{(Own.Contains(c) ? "u" : "d")}.\"{c}\""))}
            FROM {rows} AS u{(
                ledger.IsSqlite ? "" : $"({string.Join(", ", Own)})"
            )}, (SELECT * FROM devices WHERE account = '{Rehearsal.Account(0)}') AS d
            """;
        for (var first = 1; first < devices; first += TogetherMax)
        {
            var values = Enumerable
                .Range(first, Math.Min(TogetherMax, devices - first))
                .Select(device => Values(masterKey, device))
                .ToArray();
            foreach (var row in ledger.IsSqlite ? values : [Columns(values)])
            {
                insert.Parameters.Clear();
                for (var i = 0; i < Own.Length; i++)
                {
                    var parameter = insert.CreateParameter();
                    (parameter.ParameterName, parameter.Value) = ($"@{Own[i]}", row[i]);
                    insert.Parameters.Add(parameter);
                }

                await insert.ExecuteNonQueryAsync(cancellationToken);
            }
        }

        await transaction.CommitAsync(cancellationToken);
    }

    private static object[] Values(MasterKey masterKey, int device)
    {
        var (key, token) = (Guid.CreateVersion7(), Rehearsal.Token(device));
        return
        [
            key,
            string.Create(CultureInfo.InvariantCulture, $"d{device}"),
            Rehearsal.Account(device),
            DeviceTokens.IndexOf(Rehearsal.App, token, masterKey),
            DeviceTokens.Seal(new Dictionary<string, string> { [Channels.Alert] = token }, key, masterKey).ToJson(),
            Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16)),
        ];
    }

    /// <summary>Rows as PostgreSQL takes them fastest: an array for each column.</summary>
    private static object[] Columns(object[][] rows) =>
        [
            .. Enumerable
                .Range(0, Own.Length)
                .Select(column =>
                    rows[0][column] switch
                    {
                        Guid => (object)rows.Select(r => (Guid)r[column]).ToArray(),
                        byte[] => rows.Select(r => (byte[])r[column]).ToArray(),
                        _ => rows.Select(r => (string)r[column]).ToArray(),
                    }
                ),
        ];

    private static async Task<List<string>> ColumnsAsync(
        DbConnection connection,
        DbTransaction transaction,
        CancellationToken cancellationToken
    )
    {
        await using var look = connection.CreateCommand();
        look.Transaction = transaction;
        look.CommandText = "SELECT * FROM devices LIMIT 0";
        await using var reader = await look.ExecuteReaderAsync(cancellationToken);
        return [.. Enumerable.Range(0, reader.FieldCount).Select(reader.GetName)];
    }
}
