using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;
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

        var first = await ClaimAsync(10);
        var second = await ClaimAsync(10);

        Assert.Equal(id, Assert.Single(first).Head.Id);
        Assert.Equal(DeliveryState.Sending, first[0].Head.State);
        Assert.Equal(1, first[0].Head.Attempts);
        Assert.Empty(second);
    }

    [Fact]
    public async Task Claimers_at_once_never_get_the_same_entry()
    {
        for (var i = 0; i < 60; i++)
        {
            await AppendAsync(slot: Guid.NewGuid());
        }

        var claims = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() => ClaimAsync(10))));

        var ids = claims.SelectMany(c => c).Select(d => d.Head.Id).ToList();
        Assert.Equal(ids.Count, ids.Distinct().Count());
        ids.AddRange((await ClaimAsync(100)).Select(d => d.Head.Id));
        Assert.Equal(60, ids.Distinct().Count());
    }

    [Fact]
    public async Task An_entry_that_is_not_due_waits()
    {
        await AppendAsync(due: TimeSpan.FromSeconds(30));
        Assert.Empty(await ClaimAsync(10));

        relay.Advance(TimeSpan.FromSeconds(31));

        Assert.Single(await ClaimAsync(10));
    }

    [Fact]
    public async Task A_claim_takes_every_due_row_of_a_slot_and_sends_it_as_one_alert()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var second = await AppendAsync(slot);
        var later = await AppendAsync(slot, due: TimeSpan.FromSeconds(30));

        var claimed = Assert.Single(await ClaimAsync(10));

        Assert.Equal([first, second], claimed.Rows.Select(r => r.Id));
        Assert.True(await SettleAsync(claimed, new Settlement.Accepted(), Attempt(claimed)));
        var rows = (await relay.RowsAsync()).ToDictionary(r => r.Id);
        Assert.Equal(
            (DeliveryState.Accepted, 2, 1, 3),
            (rows[first].State, rows[first].Count, rows[first].Attempts, rows[first].AnswerMs!.Value)
        );
        Assert.Equal((DeliveryState.Coalesced, first, 0), (rows[second].State, rows[second].CoalescedInto!.Value, rows[second].Attempts));
        Assert.Equal(DeliveryState.Pending, rows[later].State);
    }

    [Fact]
    public async Task What_is_due_before_the_next_look_goes_with_the_first()
    {
        var slot = Guid.NewGuid();
        await AppendAsync(slot);
        await AppendAsync(slot, due: TimeSpan.FromMilliseconds(900));

        Assert.Equal(2, Assert.Single(await ClaimAsync(10, horizon: TimeSpan.FromSeconds(1))).Rows.Count);
    }

    [Fact]
    public async Task A_slot_gives_nothing_while_one_of_its_alerts_is_in_flight()
    {
        var slot = Guid.NewGuid();
        await AppendAsync(slot);
        var claimed = Assert.Single(await ClaimAsync(10));
        var second = await AppendAsync(slot);

        Assert.Empty(await ClaimAsync(10));
        Assert.True(await SettleAsync(claimed, new Settlement.Accepted(), null));

        Assert.Equal(second, Assert.Single(await ClaimAsync(10)).Head.Id);
    }

    [Fact]
    public async Task A_retry_keeps_its_turn_within_the_slot_and_its_id_at_the_head()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var claimed = Assert.Single(await ClaimAsync(10));
        await SettleAsync(claimed, new Settlement.Retry(TimeSpan.FromSeconds(5), Excused: false), null);
        var second = await AppendAsync(slot);

        Assert.Empty(await ClaimAsync(10));
        relay.Advance(TimeSpan.FromSeconds(6));

        var again = Assert.Single(await ClaimAsync(10));
        Assert.Equal([first, second], again.Rows.Select(r => r.Id));
        Assert.Equal((2, second), (again.Head.Attempts, again.Newest.Id));
    }

    [Fact]
    public async Task Where_the_head_ends_as_dead_the_next_becomes_head()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var second = await AppendAsync(slot);
        await SettleAsync(Assert.Single(await ClaimAsync(10)), new Settlement.Dead(), null);

        var next = Assert.Single(await ClaimAsync(10));

        Assert.Equal((second, 1, 1), (next.Head.Id, next.Rows.Count, next.Head.Attempts));
        Assert.Equal(DeliveryState.Dead, (await relay.RowsAsync()).Single(r => r.Id == first).State);
    }

    [Fact]
    public async Task A_token_that_is_refused_ends_all_that_the_alert_spoke_for()
    {
        var slot = Guid.NewGuid();
        await AppendAsync(slot);
        await AppendAsync(slot);

        await SettleAsync(Assert.Single(await ClaimAsync(10)), new Settlement.Rejected("apns_Unregistered", DeviceInvalid: true), null);

        Assert.Equal(
            [(DeliveryState.Rejected, "apns_Unregistered"), (DeliveryState.Cancelled, Reasons.DeviceInvalid)],
            (await relay.RowsAsync()).Select(r => (r.State, r.Reason))
        );
    }

    [Fact]
    public async Task A_text_that_is_refused_ends_alone_and_the_rows_it_spoke_for_go_on()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var second = await AppendAsync(slot);
        var third = await AppendAsync(slot);
        var claimed = Assert.Single(await ClaimAsync(10));

        await SettleAsync(claimed, new Settlement.Rejected("apns_PayloadTooLarge"), Refused(claimed));

        var next = Assert.Single(await ClaimAsync(10));
        Assert.Equal([first, second], next.Rows.Select(r => r.Id));
        // tried once more, and none of its chances used up
        Assert.Equal((2, 1), (next.Head.Attempts, next.Head.AttemptsExcused));
        var refused = (await relay.RowsAsync()).Single(r => r.Id == third);
        Assert.Equal((DeliveryState.Rejected, "apns_PayloadTooLarge", 1), (refused.State, refused.Reason, refused.Attempts));
        // the request is told of both: with the id of the one, for the text of the other
        await using var db = relay.NewDb();
        var told = await db.Set<Attempt>().OrderBy(a => a.DeliveryId).ToListAsync(Token);
        Assert.Equal([(first, 1), (third, 1)], told.Select(a => (a.DeliveryId, a.Number)));
        Assert.All(told, a => Assert.Equal((413, first.ToString()), (a.Status, a.ProviderId)));
    }

    [Fact]
    public async Task A_lost_lease_brings_back_every_row_of_the_alert()
    {
        var slot = Guid.NewGuid();
        var first = await AppendAsync(slot);
        var second = await AppendAsync(slot);
        var late = Assert.Single(await ClaimAsync(10));

        relay.Advance(Lease + TimeSpan.FromSeconds(1));
        Assert.Equal(2, await relay.Outbox.ReleaseExpiredAsync(8, Token));

        Assert.Equal([first, second], Assert.Single(await ClaimAsync(10)).Rows.Select(r => r.Id));
        Assert.False(await SettleAsync(late, new Settlement.Accepted(), null));
        Assert.All(await relay.RowsAsync(), r => Assert.Equal(DeliveryState.Sending, r.State));
    }

    [Fact]
    public async Task Each_app_has_its_own_room()
    {
        await AppendAsync(app: "one");
        await AppendAsync(app: "one");
        await AppendAsync(app: "two");
        await AppendAsync(app: "shut");

        var claimed = await relay.Outbox.ClaimAsync(
            new Dictionary<Lane, int> { [TestRelay.LaneOf("one")] = 1, [TestRelay.LaneOf("two")] = 5 },
            Lease,
            TimeSpan.Zero,
            Token
        );

        Assert.Equal(["one", "two"], claimed.Select(c => c.Head.App!).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Whoever_serves_gets_a_new_row_without_claiming_it()
    {
        var permits = relay.OpenPermits(Lease);
        var slot = Guid.NewGuid();

        var first = await AppendAsync(slot);
        Assert.True(relay.Get<ReadyQueue>().Reader.TryRead(out var ready));
        Assert.Equal((first, DeliveryState.Sending, 1), (ready.Head.Id, ready.Head.State, ready.Head.Attempts));
        await AppendAsync(slot);

        Assert.False(relay.Get<ReadyQueue>().Reader.TryRead(out _));
        Assert.Equal(1, permits.InFlight);
        Assert.Equal([DeliveryState.Sending, DeliveryState.Pending], (await relay.RowsAsync()).Select(r => r.State));
        Assert.True(await SettleAsync(ready, new Settlement.Accepted(), Attempt(ready)));
        Assert.Single(await ClaimAsync(1));
    }

    [Fact]
    public async Task What_an_insert_claims_for_a_server_that_stops_is_handed_back()
    {
        var permits = relay.OpenPermits(Lease);
        await using var db = relay.NewDb();
        await using var transaction = await db.Database.BeginTransactionAsync(Token);
        var now = await relay.NowAsync();
        var id = relay.Get<IdSequence>().Next(now);
        using var appended = await relay.Outbox.AppendAsync(db, [relay.NewRow(device, id, now, Guid.NewGuid())], claim: true, now, Token);
        await transaction.CommitAsync(Token);
        permits.Close();
        relay.Get<ReadyQueue>().Complete();

        await relay.Get<ReadyQueue>().PublishAsync(appended, Token);

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Pending, 0), (row.State, row.Attempts));
        Assert.Equal(0, permits.InFlight);
    }

    [Fact]
    public async Task An_entry_whose_lease_ran_out_is_claimed_again_and_the_first_owner_can_no_longer_settle_it()
    {
        await AppendAsync();
        var late = Assert.Single(await ClaimAsync(1));

        relay.Advance(Lease + TimeSpan.FromSeconds(1));
        Assert.Equal(1, await relay.Outbox.ReleaseExpiredAsync(8, Token));
        var again = Assert.Single(await ClaimAsync(1));

        Assert.Equal(2, again.Head.Attempts);
        Assert.False(await SettleAsync(late, new Settlement.Accepted(), Attempt(late)));
        Assert.True(await SettleAsync(again, new Settlement.Accepted(), Attempt(again)));
        Assert.Equal(2, Assert.Single(await AttemptsAsync()).Number);
    }

    [Fact]
    public async Task A_lease_that_holds_is_not_released()
    {
        await AppendAsync();
        await ClaimAsync(1);

        relay.Advance(Lease - TimeSpan.FromSeconds(5));

        Assert.Equal(0, await relay.Outbox.ReleaseExpiredAsync(8, Token));
    }

    [Fact]
    public async Task An_entry_that_takes_its_node_down_each_time_is_dead_in_the_end()
    {
        await AppendAsync();
        for (var i = 0; i < 3; i++)
        {
            Assert.Single(await ClaimAsync(1));
            relay.Advance(Lease + TimeSpan.FromSeconds(1));
            await relay.Outbox.ReleaseExpiredAsync(3, Token);
        }

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Dead, Reasons.AttemptsExhausted), (row.State, row.Reason));
        Assert.Empty(await ClaimAsync(1));
    }

    [Theory]
    [InlineData("accepted", "Accepted", "offline")]
    [InlineData("rejected", "Rejected", "apns_PayloadTooLarge")]
    [InlineData("dead", "Dead", "attempts_exhausted")]
    [InlineData("cancelled", "Cancelled", "device_removed")]
    public async Task An_end_blanks_the_content_and_keeps_the_time(string settlement, string state, string reason)
    {
        await AppendAsync();
        var claimed = Assert.Single(await ClaimAsync(1));
        Assert.NotNull(claimed.Head.Content);

        await SettleAsync(
            claimed,
            settlement switch
            {
                "accepted" => new Settlement.Accepted(),
                "rejected" => new Settlement.Rejected("apns_PayloadTooLarge"),
                "dead" => new Settlement.Dead(),
                _ => new Settlement.Cancelled(Reasons.DeviceRemoved),
            },
            Attempt(claimed)
        );

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
        var claimed = Assert.Single(await ClaimAsync(1));

        await SettleAsync(claimed, new Settlement.HandBack(), null);

        Assert.Equal(1, Assert.Single(await ClaimAsync(1)).Head.Attempts);
    }

    [Fact]
    public async Task An_excused_attempt_does_not_bring_the_end_nearer()
    {
        await AppendAsync();
        for (var i = 0; i < 5; i++)
        {
            var claimed = Assert.Single(await ClaimAsync(1));
            await SettleAsync(claimed, new Settlement.Retry(TimeSpan.Zero, Excused: true), Attempt(claimed));
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

        Assert.Empty(await ClaimAsync(1));
        Assert.Equal(1, await relay.Outbox.ExpireAsync(Token));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Expired, Reasons.Ttl), (row.State, row.Reason));
    }

    [Fact]
    public async Task Cancelling_reaches_what_is_pending_and_leaves_what_is_sending()
    {
        var sending = await AppendAsync();
        Assert.Single(await ClaimAsync(1));
        var pending = await AppendAsync();

        await using var db = relay.NewDb();
        var cancelled = await relay.Outbox.CancelAsync(db, d => d.Account == TestRelay.Bob, Reasons.ReadElsewhere, Token);

        Assert.Equal(1, cancelled);
        var rows = await relay.RowsAsync();
        Assert.Equal(DeliveryState.Sending, rows.Single(r => r.Id == sending).State);
        Assert.Equal(
            (DeliveryState.Cancelled, Reasons.ReadElsewhere),
            (rows.Single(r => r.Id == pending).State, rows.Single(r => r.Id == pending).Reason)
        );
    }

    [Fact]
    public async Task Only_what_is_settled_and_old_is_pruned_with_its_attempts_and_the_device_remembers_when_it_was_reached()
    {
        Assert.Null(await ReachedAsync());
        await AppendAsync();
        var claimed = Assert.Single(await ClaimAsync(1));
        await SettleAsync(claimed, new Settlement.Accepted(), Attempt(claimed));
        var reached = await ReachedAsync();
        Assert.NotNull(reached);
        relay.Advance(relay.Get<IOptions<RetentionOptions>>().Value.Deliveries + TimeSpan.FromHours(1));
        var young = await AppendAsync();

        Assert.Equal(1, await relay.Get<Housekeeping>().PruneAsync(Token));

        Assert.Equal(young, Assert.Single(await relay.RowsAsync()).Id);
        Assert.Empty(await AttemptsAsync());
        Assert.Equal(reached, await ReachedAsync());

        async Task<DateTimeOffset?> ReachedAsync()
        {
            var known = Assert.Single(await relay.Devices.FindAsync(null, device.Id, Token));
            return (await relay.Get<DeviceQueries>().ShowAsync(known, Token)).LastAcceptedAt;
        }
    }

    [Theory]
    [InlineData("UPDATE deliveries SET state = 1")]
    [InlineData("UPDATE deliveries SET state = 2")]
    [InlineData("UPDATE deliveries SET lease = id")]
    [InlineData("UPDATE deliveries SET device = NULL")]
    [InlineData("UPDATE deliveries SET coalesced_into = id")]
    public async Task The_database_refuses_an_impossible_row(string statement)
    {
        await AppendAsync();
        await using var db = relay.NewDb();

        await Assert.ThrowsAnyAsync<System.Data.Common.DbException>(() => db.Database.ExecuteSqlRawAsync(statement, Token));
    }

    [Fact]
    public async Task The_same_event_for_the_same_device_is_left_out_a_second_time()
    {
        var first = await AppendAsync(eventKey: "e:1:1");
        await AppendAsync(eventKey: "e:1:1");

        Assert.Equal(first, Assert.Single(await relay.RowsAsync()).Id);
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private Task<IReadOnlyList<ClaimedAlert>> ClaimAsync(int max, TimeSpan horizon = default) =>
        relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [TestRelay.Lane] = max }, Lease, horizon, Token);

    private static Attempt Refused(ClaimedAlert alert) =>
        new()
        {
            DeliveryId = alert.Head.Id,
            Number = alert.Head.Attempts,
            At = alert.Head.CreatedAt,
            DurationMs = 1,
            Status = 413,
            Code = "apns_PayloadTooLarge",
            Outcome = "rejected",
            ProviderId = alert.Head.Id.ToString(),
        };

    private async Task<bool> SettleAsync(ClaimedAlert alert, Settlement settlement, Attempt? attempt) =>
        (await relay.Outbox.SettleAsync([new SettledAlert(alert, settlement, attempt)], Token)).Count == 0;

    private async Task<Guid> AppendAsync(Guid? slot = null, TimeSpan? due = null, string? eventKey = null, string app = TestRelay.App)
    {
        var now = await relay.NowAsync();
        var id = relay.Get<IdSequence>().Next(now);
        await using var db = relay.NewDb();
        await using var transaction = await db.Database.BeginTransactionAsync(Token);
        using var appended = await relay.Outbox.AppendAsync(
            db,
            [relay.NewRow(device, id, now, slot ?? Guid.NewGuid(), due, eventKey, app)],
            claim: true,
            now,
            Token
        );
        await transaction.CommitAsync(Token);
        await relay.Get<ReadyQueue>().PublishAsync(appended, Token);
        return id;
    }

    private static Attempt Attempt(ClaimedAlert alert) =>
        new()
        {
            DeliveryId = alert.Head.Id,
            Number = alert.Head.Attempts,
            At = alert.Head.CreatedAt,
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
