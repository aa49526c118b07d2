using Microsoft.EntityFrameworkCore;
using PushRelay.Audit;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Hostile;

/// <summary>What one event costs is bounded, whatever its account has in the ledger.</summary>
public abstract class CostAttacks : Attack
{
    private const int Many = 20_000;

    // on SQLite some ten steps a row
    private const int FewRows = 500;

    [Fact]
    public async Task A_message_reported_again_is_found_without_reading_what_else_the_account_has()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, Many, (i, row) => Withheld(row, $"stanza {i}", $"message {i}"));
        var since = await Relay.NowAsync() - TimeSpan.FromHours(1);
        await using var db = Relay.NewDb();

        foreach (var message in new[] { Again with { StanzaId = "stanza 7" }, Again with { Id = "message 7" }, Again with { Id = "x" } })
        {
            await using var command = WithheldAlerts.CommandFor(db, since, message);
            Assert.InRange(await CostAsync(db, command), 0, FewRows);
        }
    }

    [Fact]
    public async Task A_sender_who_gives_every_message_the_same_id_does_not_make_a_repeat_dear()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, Many, (_, row) => Withheld(row, "same", "same"));
        await using var db = Relay.NewDb();

        foreach (var message in new[] { Again with { StanzaId = "same" }, Again with { Id = "same", From = "eve@example.com" } })
        {
            await using var command = WithheldAlerts.CommandFor(db, await Relay.NowAsync() - TimeSpan.FromHours(1), message);
            Assert.InRange(await CostAsync(db, command), 0, db.IsSqlite ? 60_000 : 10_000);
        }
    }

    [Fact]
    public async Task What_the_same_transaction_has_cancelled_is_seen_by_a_message_reported_again()
    {
        var device = await Relay.RegisterAsync();
        await CommitAsync(Again with { Unacked = false, StanzaId = "77" });

        await CommitAsync(
            Again with
            {
                StanzaId = "78",
                Id = "other",
            },
            new RelayEvent.PresenceChanged(new PresenceChange(TestRelay.Bob, ["phone"], LeftForeground: false), Relay.Clock.GetUtcNow()),
            Again with
            {
                StanzaId = "77",
            }
        );

        var rows = await Relay.RowsAsync();
        Assert.Equal([DeliveryState.Cancelled, DeliveryState.Pending], rows.Select(r => r.State));
        Assert.All(rows, r => Assert.Equal(device.Key, r.DeviceKey));
    }

    [Fact]
    public async Task Pruning_reads_nothing_where_nothing_is_old()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, Many, (i, row) => Withheld(row, null, null));
        var before = await Relay.NowAsync() - TimeSpan.FromDays(1);
        await using var db = Relay.NewDb();

        Assert.InRange(await CostAsync(db, OutboxUpkeep.Oldest(db, before, 1000).CreateDbCommand()), 0, FewRows);
        Assert.InRange(await CostAsync(db, OutboxQueue.LastAcceptedOfOldest(db, before, 1000).CreateDbCommand()), 0, FewRows);
        Assert.InRange(await CostAsync(db, AuditTrail.OlderThan(db, before).CreateDbCommand()), 0, FewRows);
        Assert.Equal(0, await OutboxUpkeep.PruneAsync(db, before, 1000, Token));
    }

    private RelayEvent.Message Again =>
        new(TestRelay.Bob, Relay.Clock.GetUtcNow())
        {
            Key = Guid.NewGuid().ToString(),
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            From = TestRelay.Alice,
            Type = "chat",
            Content = new AlertContent { Body = "hello" },
            Unacked = true,
            Presence = new AccountPresence(AccountState.Background, []),
        };

    private static Delivery Withheld(Delivery of, string? stanzaId, string? messageId) =>
        new()
        {
            Id = of.Id,
            Server = of.Server,
            Account = of.Account,
            DeviceKey = of.DeviceKey,
            Device = of.Device,
            App = of.App,
            Platform = of.Platform,
            Lane = of.Lane,
            EventKey = of.EventKey,
            Source = of.Source,
            Class = of.Class,
            Sender = of.Sender,
            Conversation = of.Conversation,
            StanzaId = stanzaId,
            MessageId = messageId,
            EventAt = of.EventAt,
            OrderingKey = of.OrderingKey,
            State = DeliveryState.Suppressed,
            Reason = Reasons.Foreground,
            CreatedAt = of.CreatedAt,
            DueAt = of.DueAt,
            ExpiresAt = of.ExpiresAt,
            SettledAt = of.CreatedAt,
        };
}

public sealed class SqliteCostAttacks : CostAttacks;

public sealed class PostgreSqlCostAttacks : CostAttacks
{
    public PostgreSqlCostAttacks(PostgreSqlServer server) => Server = server;
}
