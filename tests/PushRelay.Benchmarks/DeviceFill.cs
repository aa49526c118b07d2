using System.Data.Common;
using System.Globalization;
using System.Security.Cryptography;
using PushRelay.Devices;
using PushRelay.Rig;
using PushRelay.Storage;

namespace PushRelay.Benchmarks;

/// <summary>
/// Devices by the hundred thousand, beside the running relay: each is the row that the first one got over REST, under its own account, id and
/// node, with its own token sealed with the relay's master key. One request for each would take longer than what is measured.
/// </summary>
internal static class DeviceFill
{
    /// <param name="ledger">The relay's database.</param>
    /// <param name="masterKeyFile">The relay's.</param>
    /// <param name="devices">So many in all; device 0 is there.</param>
    /// <param name="cancellationToken">Stops it; nothing is added then.</param>
    public static async Task FillAsync(Ledger ledger, string masterKeyFile, int devices, CancellationToken cancellationToken)
    {
        var masterKey = new MasterKey(Convert.FromHexString((await File.ReadAllTextAsync(masterKeyFile, cancellationToken)).Trim()));
        await using var connection = await ledger.OpenAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var insert = connection.CreateCommand();
        insert.Transaction = transaction;
        string[] own = ["key", "id", "account", "token_index", "token", "token_hint", "node"];
        var columns = await ColumnsAsync(connection, transaction, cancellationToken);
        insert.CommandText = $"""
            INSERT INTO devices ({string.Join(", ", columns.Select(c => $"\"{c}\""))})
            SELECT {string.Join(", ", columns.Select(c => own.Contains(c) ? $"@{c}" : $"d.\"{c}\""))} FROM devices AS d WHERE account = '{Rehearsal.Account(0)}'
            """;
        foreach (var name in own)
        {
            var parameter = insert.CreateParameter();
            (parameter.ParameterName, parameter.Value) = ($"@{name}", name == "key" ? Guid.NewGuid() : name is "token_index" or "token" ? Array.Empty<byte>() : "");
            insert.Parameters.Add(parameter);
        }

        await insert.PrepareAsync(cancellationToken);
        for (var device = 1; device < devices; device++)
        {
            var (key, token) = (Guid.CreateVersion7(), Rehearsal.Token(device));
            insert.Parameters["@key"].Value = key;
            insert.Parameters["@id"].Value = string.Create(CultureInfo.InvariantCulture, $"d{device}");
            insert.Parameters["@account"].Value = Rehearsal.Account(device);
            insert.Parameters["@token_index"].Value = masterKey.Mac("token", Rehearsal.App, token);
            insert.Parameters["@token"].Value = masterKey.Seal(token, Device.TableName, key, nameof(Device.Token));
            insert.Parameters["@token_hint"].Value = $"{token[..4]}…{token[^4..]}";
            insert.Parameters["@node"].Value = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));
            await insert.ExecuteNonQueryAsync(cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
    }

    private static async Task<List<string>> ColumnsAsync(DbConnection connection, DbTransaction transaction, CancellationToken cancellationToken)
    {
        await using var look = connection.CreateCommand();
        look.Transaction = transaction;
        look.CommandText = "SELECT * FROM devices LIMIT 0";
        await using var reader = await look.ExecuteReaderAsync(cancellationToken);
        return [.. Enumerable.Range(0, reader.FieldCount).Select(reader.GetName)];
    }
}
