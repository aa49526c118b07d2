using Microsoft.EntityFrameworkCore;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Outbox;

/// <summary>What the outbox promises, on whichever database.</summary>
public abstract class OutboxContract : IAsyncLifetime
{
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);

    private TestRelay relay = null!;
    private Device device = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync();
        device = await relay.RegisterAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task A_due_entry_is_claimed_once()
    {
        var id = await AppendAsync();

        var first = await relay.Outbox.ClaimAsync(10, Lease, Token);
        var second = await relay.Outbox.ClaimAsync(10, Lease, Token);

        Assert.Equal(id, Assert.Single(first).Id);
        Assert.Equal(DeliveryState.Sending, first[0].State);
        Assert.Equal(1, first[0].Attempts);
        Assert.Empty(second);
    }

    [Fact]
    public async Task Claimers_at_once_never_get_the_same_entry()
    {
        for (var i = 0; i < 60; i++)
        {
            await AppendAsync(slot: Guid.NewGuid());
        }

        var claims = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() => relay.Outbox.ClaimAsync(10, Lease, Token))));

        var ids = claims.SelectMany(c => c).Select(d => d.Id).ToList();
        Assert.Equal(ids.Count, ids.Distinct().Count());
        ids.AddRange((await relay.Outbox.ClaimAsync(100, Lease, Token)).Select(d => d.Id));
        Assert.Equal(60, ids.Distinct().Count());
    }

    [Fact]
    public async Task An_entry_that_is_not_due_waits()
    {
        await AppendAsync(due: TimeSpan.FromSeconds(30));
        Assert.Empty(await relay.Outbox.ClaimAsync(10, Lease, Token));

        relay.Advance(TimeSpan.FromSeconds(31));

        Assert.Single(await relay.Outbox.ClaimAsync(10, Lease, Token));
    }

    [Fact]
    public async Task A_slot_has_one_alert_in_flight_and_gives_its_oldest_first()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var second = await AppendAsync(slot);

        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(10, Lease, Token));
        Assert.Equal(first, claimed.Id);
        Assert.Empty(await relay.Outbox.ClaimAsync(10, Lease, Token));
        Assert.True(await relay.Outbox.SettleAsync(claimed, new Settlement.Accepted(), null, Token));

        Assert.Equal(second, Assert.Single(await relay.Outbox.ClaimAsync(10, Lease, Token)).Id);
    }

    [Fact]
    public async Task A_retry_keeps_its_turn_within_the_slot()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        await AppendAsync(slot);
        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(10, Lease, Token));
        await relay.Outbox.SettleAsync(claimed, new Settlement.Retry(TimeSpan.FromSeconds(5), Excused: false), null, Token);

        Assert.Empty(await relay.Outbox.ClaimAsync(10, Lease, Token));
        relay.Advance(TimeSpan.FromSeconds(6));

        Assert.Equal(first, Assert.Single(await relay.Outbox.ClaimAsync(10, Lease, Token)).Id);
    }

    [Fact]
    public async Task An_entry_whose_lease_ran_out_is_claimed_again_and_the_first_owner_can_no_longer_settle_it()
    {
        await AppendAsync();
        var late = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));

        relay.Advance(Lease + TimeSpan.FromSeconds(1));
        Assert.Equal(1, await relay.Outbox.ReleaseExpiredAsync(8, Token));
        var again = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));

        Assert.Equal(2, again.Attempts);
        Assert.False(await relay.Outbox.SettleAsync(late, new Settlement.Accepted(), Attempt(late), Token));
        Assert.True(await relay.Outbox.SettleAsync(again, new Settlement.Accepted(), Attempt(again), Token));
        Assert.Equal(2, Assert.Single(await AttemptsAsync()).Number);
    }

    [Fact]
    public async Task A_lease_that_holds_is_not_released()
    {
        await AppendAsync();
        await relay.Outbox.ClaimAsync(1, Lease, Token);

        relay.Advance(Lease - TimeSpan.FromSeconds(5));

        Assert.Equal(0, await relay.Outbox.ReleaseExpiredAsync(8, Token));
    }

    [Fact]
    public async Task An_entry_that_takes_its_node_down_each_time_is_dead_in_the_end()
    {
        await AppendAsync();
        for (var i = 0; i < 3; i++)
        {
            Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));
            relay.Advance(Lease + TimeSpan.FromSeconds(1));
            await relay.Outbox.ReleaseExpiredAsync(3, Token);
        }

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Dead, Reasons.AttemptsExhausted), (row.State, row.Reason));
        Assert.Empty(await relay.Outbox.ClaimAsync(1, Lease, Token));
    }

    [Theory]
    [InlineData("accepted", "Accepted", "offline")]
    [InlineData("rejected", "Rejected", "apns_PayloadTooLarge")]
    [InlineData("dead", "Dead", "attempts_exhausted")]
    [InlineData("cancelled", "Cancelled", "device_removed")]
    public async Task An_end_blanks_the_content_and_keeps_the_time(string settlement, string state, string reason)
    {
        await AppendAsync();
        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));
        Assert.NotNull(claimed.Content);

        await relay.Outbox.SettleAsync(
            claimed,
            settlement switch
            {
                "accepted" => new Settlement.Accepted(),
                "rejected" => new Settlement.Rejected("apns_PayloadTooLarge"),
                "dead" => new Settlement.Dead(),
                _ => new Settlement.Cancelled(Reasons.DeviceRemoved),
            },
            Attempt(claimed), Token);

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((state, reason), (row.State.ToString(), row.Reason));
        Assert.Null(row.Content);
        Assert.Null(row.Lease);
        Assert.NotNull(row.SettledAt);
    }

    [Fact]
    public async Task Handing_back_gives_the_attempt_back()
    {
        await AppendAsync();
        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));

        await relay.Outbox.SettleAsync(claimed, new Settlement.HandBack(), null, Token);

        Assert.Equal(1, Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token)).Attempts);
    }

    [Fact]
    public async Task An_excused_attempt_does_not_bring_the_end_nearer()
    {
        await AppendAsync();
        for (var i = 0; i < 5; i++)
        {
            var claimed = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));
            await relay.Outbox.SettleAsync(claimed, new Settlement.Retry(TimeSpan.Zero, Excused: true), Attempt(claimed), Token);
        }

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((5, 5), (row.Attempts, row.AttemptsExcused));
        Assert.Equal([1, 2, 3, 4, 5], (await AttemptsAsync()).Select(a => a.Number));
    }

    [Fact]
    public async Task What_is_past_its_time_to_live_is_neither_claimed_nor_left_pending()
    {
        await AppendAsync();
        relay.Advance(TimeSpan.FromDays(1) + TimeSpan.FromSeconds(1));

        Assert.Empty(await relay.Outbox.ClaimAsync(1, Lease, Token));
        Assert.Equal(1, await relay.Outbox.ExpireAsync(Token));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Expired, Reasons.Ttl), (row.State, row.Reason));
    }

    [Fact]
    public async Task Cancelling_reaches_what_is_pending_and_leaves_what_is_sending()
    {
        var sending = await AppendAsync();
        Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));
        var pending = await AppendAsync();

        await using var db = relay.NewDb();
        var cancelled = await relay.Outbox.CancelAsync(db, d => d.Account == TestRelay.Bob, Reasons.ReadElsewhere, Token);

        Assert.Equal(1, cancelled);
        var rows = await relay.RowsAsync();
        Assert.Equal(DeliveryState.Sending, rows.Single(r => r.Id == sending).State);
        Assert.Equal((DeliveryState.Cancelled, Reasons.ReadElsewhere), (rows.Single(r => r.Id == pending).State, rows.Single(r => r.Id == pending).Reason));
    }

    [Fact]
    public async Task Only_what_is_settled_and_old_is_pruned_with_its_attempts()
    {
        await AppendAsync();
        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(1, Lease, Token));
        await relay.Outbox.SettleAsync(claimed, new Settlement.Accepted(), Attempt(claimed), Token);
        relay.Advance(TimeSpan.FromHours(2));
        var young = await AppendAsync();

        Assert.Equal(1, await relay.Outbox.PruneAsync(TimeSpan.FromHours(1), 100, Token));

        Assert.Equal(young, Assert.Single(await relay.RowsAsync()).Id);
        Assert.Empty(await AttemptsAsync());
    }

    [Theory]
    [InlineData("UPDATE deliveries SET state = 1")]
    [InlineData("UPDATE deliveries SET state = 2")]
    [InlineData("UPDATE deliveries SET lease = id")]
    [InlineData("UPDATE deliveries SET device = NULL")]
    public async Task The_database_refuses_an_impossible_row(string statement)
    {
        await AppendAsync();
        await using var db = relay.NewDb();

        await Assert.ThrowsAnyAsync<System.Data.Common.DbException>(() => db.Database.ExecuteSqlRawAsync(statement, Token));
    }

    [Fact]
    public async Task The_same_event_for_the_same_device_is_refused_a_second_time()
    {
        await AppendAsync(eventKey: "e:1:1");

        await Assert.ThrowsAsync<DbUpdateException>(() => AppendAsync(eventKey: "e:1:1"));
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private async Task<Guid> AppendAsync(Guid? slot = null, TimeSpan? due = null, string? eventKey = null)
    {
        var id = relay.Get<PushRelay.Storage.Sequence>().Next();
        var now = await relay.NowAsync();
        await using var db = relay.NewDb();
        await OutboxQueue.AppendAsync(
            db,
            [
                new Delivery
                {
                    Id = id,
                    Server = TestRelay.Server,
                    Account = TestRelay.Bob,
                    DeviceKey = device.Key,
                    Device = device.Id,
                    App = device.App,
                    Platform = device.Platform,
                    EventKey = eventKey ?? id.ToString(),
                    Source = EventSource.Bridge,
                    Class = EventClass.Text,
                    Sender = TestRelay.Alice,
                    Conversation = TestRelay.Alice,
                    EventAt = now,
                    Slot = slot ?? Guid.NewGuid(),
                    Content = new AlertContent("hello", null).Seal(relay.MasterKey, id),
                    State = DeliveryState.Pending,
                    Reason = Reasons.Offline,
                    CreatedAt = now,
                    DueAt = now + (due ?? TimeSpan.Zero),
                    ExpiresAt = now + TimeSpan.FromDays(1),
                },
            ],
            Token);
        return id;
    }

    private static Attempt Attempt(Delivery delivery) => new()
    {
        DeliveryId = delivery.Id,
        Number = delivery.Attempts,
        At = delivery.CreatedAt,
        DurationMs = 3,
        Status = 200,
        Outcome = "accepted",
    };

    private async Task<List<Attempt>> AttemptsAsync()
    {
        await using var db = relay.NewDb();
        return await db.Set<Attempt>().AsNoTracking().OrderBy(a => a.Number).ToListAsync(Token);
    }
}

public sealed class SqliteOutboxTests : OutboxContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlOutboxTests(PostgreSqlServer server) : OutboxContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
