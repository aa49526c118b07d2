using System.Data.Common;
using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>
/// Which devices a message was withheld from when it came first, for the messages that a server reports again because their reader never
/// acknowledged them. A transaction reads what it needs with one statement, which looks at a bounded number of ledger rows.
/// </summary>
internal sealed class WithheldAlerts(RelayDb db, DateTimeOffset now)
{
    private const int MessagesMax = 100;

    // the newest rows of an account that carry the message's id: a sender can give many messages the same one
    private const int RowsMax = 2000;
    private static readonly TimeSpan AgeMax = TimeSpan.FromHours(1);

    private readonly Dictionary<MessageKey, List<EarlierRow>> stored = [];
    private readonly Dictionary<MessageKey, List<Delivery>> made = [];
    private readonly HashSet<string> changed = new(StringComparer.Ordinal);

    private readonly record struct MessageKey(string Account, string? StanzaId, string? From, string? Id);

    private sealed record EarlierRow(Guid DeviceKey, DeliveryState State, string Reason)
    {
        public bool WasWithheld => State is DeliveryState.Suppressed or DeliveryState.Cancelled && Reason == Reasons.Foreground;
    }

    /// <summary>Reads what the ledger has of these messages.</summary>
    public async Task LoadAsync(IEnumerable<RelayEvent.Message> messages, CancellationToken cancellationToken)
    {
        foreach (var some in messages.Where(m => m.Unacked).Select(KeyOf).OfType<MessageKey>().Distinct().Chunk(MessagesMax))
        {
            foreach (var key in some)
            {
                stored[key] = [];
            }

            await using var command = NewCommand(db, now - AgeMax, some);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                stored[some[reader.GetInt32(0)]]
                    .Add(new EarlierRow(reader.GetGuid(1), (DeliveryState)reader.GetInt16(2), reader.GetString(3)));
            }
        }
    }

    /// <summary>A row that this transaction made of a message.</summary>
    public void Add(RelayEvent.Message message, Delivery row)
    {
        if (stored.Count == 0)
        {
            return;
        }

        // a repeat may go by either id
        foreach (var key in new[] { KeyOf(message), KeyOf(message with { StanzaId = null }) }.OfType<MessageKey>().Distinct())
        {
            if (!made.TryGetValue(key, out var rows))
            {
                made[key] = rows = [];
            }

            rows.Add(row);
        }
    }

    /// <summary>This transaction has changed stored rows of the account: they are read again when they are needed.</summary>
    public void Changed(string account) => changed.Add(account);

    /// <summary>The devices whose rows of this message were all withheld because its reader seemed to be in front.</summary>
    public async Task<IReadOnlySet<Guid>> DevicesOfAsync(RelayEvent.Message message, CancellationToken cancellationToken)
    {
        if (KeyOf(message) is not { } key)
        {
            return new HashSet<Guid>();
        }

        if (changed.Contains(message.Account))
        {
            await LoadAsync([message], cancellationToken);
        }

        return stored
            .GetValueOrDefault(key, [])
            .Concat(made.GetValueOrDefault(key, []).Select(row => new EarlierRow(row.DeviceKey, row.State, row.Reason)))
            .Where(row => row.DeviceKey != Guid.Empty)
            .GroupBy(row => row.DeviceKey)
            .Where(device => device.All(row => row.WasWithheld))
            .Select(device => device.Key)
            .ToHashSet();
    }

    private static MessageKey? KeyOf(RelayEvent.Message message) =>
        message.StanzaId is not null ? new MessageKey(message.Account, message.StanzaId, null, null)
        : message.Id is not null ? new MessageKey(message.Account, null, message.From, message.Id)
        : null;

    /// <summary>For each message by its number here: device, state and reason of its rows.</summary>
    private static DbCommand NewCommand(RelayDb db, DateTimeOffset since, IReadOnlyList<MessageKey> messages)
    {
        var command = db.Database.GetDbConnection().CreateCommand();
        command.Transaction = db.Database.CurrentTransaction?.GetDbTransaction();
        Add(command, "since", IdSequence.First(since));
        var parts = new List<string>(messages.Count);
        for (var i = 0; i < messages.Count; i++)
        {
            var number = i.ToString(CultureInfo.InvariantCulture);
            var (column, id, sender) = messages[i].StanzaId is { } stanzaId
                ? ("stanza_id", stanzaId, "")
                : ("message_id", messages[i].Id!, $" WHERE sender = @sender{number}");
            Add(command, "account" + number, messages[i].Account);
            Add(command, "id" + number, id);
            if (sender.Length > 0)
            {
                Add(command, "sender" + number, messages[i].From!);
            }

            parts.Add(
                $"SELECT {number} AS n, device_key, state, reason FROM (SELECT device_key, state, reason, sender FROM deliveries "
                    + $"WHERE account = @account{number} AND {column} = @id{number} AND id >= @since ORDER BY id DESC LIMIT {RowsMax}) "
                    + $"AS same{number}{sender}"
            );
        }

        command.CommandText = string.Join(" UNION ALL ", parts);
        return command;
    }

    private static void Add(DbCommand command, string name, object value)
    {
        var parameter = command.CreateParameter();
        (parameter.ParameterName, parameter.Value) = ("@" + name, value);
        command.Parameters.Add(parameter);
    }

    /// <summary>The statement for one message, for the test of its plan.</summary>
    internal static DbCommand CommandFor(RelayDb db, DateTimeOffset since, RelayEvent.Message message) =>
        NewCommand(db, since, [KeyOf(message)!.Value]);
}
