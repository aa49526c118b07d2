using PushRelay.Devices;
using PushRelay.Ledger;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Ledger;

/// <summary>What the phone says of its alerts, and what becomes of the ledger by it.</summary>
public abstract class ReceiptContract : IAsyncLifetime
{
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync();
        relay.OpenPermits(TimeSpan.FromSeconds(30));
        relay.Get<Permits>().Close();
        await relay.RegisterAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    private protected abstract Task<TestRelay> OpenAsync();

    [Theory]
    [InlineData("pending", "received", "received")]
    [InlineData("pending", "opened", "opened")]
    [InlineData("accepted", "received", "received")]
    [InlineData("accepted", "opened", "opened")]
    [InlineData("expired", "received", "received")]
    [InlineData("dead", "received", "received")]
    [InlineData("rejected", "received", "rejected")]
    [InlineData("cancelled", "received", "cancelled")]
    public async Task A_receipt_is_taken_in_any_state(string before, string @event, string after)
    {
        var row = await RowAsync(before);

        Assert.True(await SendAsync(Receipts.For(relay.MasterKey, row.Id), @event));

        var changed = Assert.Single(await relay.RowsAsync());
        Assert.Equal((after, row.Reason), (Names.Of(changed.State), changed.Reason));
        Assert.NotNull(changed.ReceivedAt);
        Assert.NotNull(changed.SettledAt);
        Assert.Null(changed.Content);
        Assert.Equal(@event == "opened", changed.OpenedAt is not null);
        Assert.NotNull((await DeviceAsync()).LastReceivedAt);
    }

    [Fact]
    public async Task Opened_after_received_keeps_the_first_time_and_again_changes_nothing()
    {
        var row = await RowAsync("accepted");
        var receipt = Receipts.For(relay.MasterKey, row.Id);
        await SendAsync(receipt, "received");
        var first = Assert.Single(await relay.RowsAsync());

        relay.Advance(TimeSpan.FromMinutes(1));
        await SendAsync(receipt, "opened");
        await SendAsync(receipt, "received");
        await SendAsync(receipt, "opened");

        var last = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Opened, first.ReceivedAt), (last.State, last.ReceivedAt));
        Assert.True(last.OpenedAt > last.ReceivedAt);
    }

    [Fact]
    public async Task A_receipt_that_overtakes_the_answer_counts_with_it()
    {
        await relay.CommitMessageAsync("hello");
        relay.Advance(TimeSpan.FromSeconds(10));
        var alert = Assert.Single(
            await relay.Outbox.ClaimAsync(
                new Dictionary<Lane, int> { [TestRelay.Lane] = 10 },
                TimeSpan.FromSeconds(30),
                TimeSpan.Zero,
                Token
            )
        );

        await SendAsync(Receipts.For(relay.MasterKey, alert.Head.Id), "received");
        Assert.Equal(DeliveryState.Sending, Assert.Single(await relay.RowsAsync()).State);
        await relay.Outbox.SettleAsync([new SettledAlert(alert, new Settlement.Accepted(), null)], Token);
        alert.Dispose();

        Assert.Equal(DeliveryState.Received, Assert.Single(await relay.RowsAsync()).State);
    }

    [Fact]
    public async Task The_phones_time_counts_between_the_rows_creation_and_five_minutes_ahead()
    {
        var row = await RowAsync("accepted");
        var receipt = Receipts.For(relay.MasterKey, row.Id);
        relay.Advance(TimeSpan.FromMinutes(2));
        var at = row.CreatedAt + TimeSpan.FromSeconds(1);

        await SendAsync(receipt, "received", at);
        await SendAsync(receipt, "opened", row.CreatedAt - TimeSpan.FromHours(1));

        var changed = Assert.Single(await relay.RowsAsync());
        Assert.Equal(at, changed.ReceivedAt!.Value, TimeSpan.FromMilliseconds(1));
        Assert.True(changed.OpenedAt > row.CreatedAt + TimeSpan.FromMinutes(1));
    }

    [Theory]
    [InlineData("")]
    [InlineData("x")]
    [InlineData("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    public async Task A_receipt_that_we_never_made_is_refused(string receipt) => Assert.False(await SendAsync(receipt, "received"));

    [Fact]
    public async Task One_changed_character_makes_it_another_and_a_row_that_is_gone_is_no_fault()
    {
        var row = await RowAsync("accepted");
        var receipt = Receipts.For(relay.MasterKey, row.Id);

        Assert.False(await SendAsync(receipt[..^2] + (receipt[^2] == 'A' ? "B" : "A") + receipt[^1], "received"));
        Assert.True(await SendAsync(Receipts.For(relay.MasterKey, Guid.CreateVersion7()), "received"));
        Assert.Equal(DeliveryState.Accepted, Assert.Single(await relay.RowsAsync()).State);
    }

    [Fact]
    public async Task A_device_confirms_until_it_is_silent_for_a_day()
    {
        async Task<bool> ConfirmsAsync() => (await relay.Get<DeviceQueries>().ShowAsync(await DeviceAsync(), Token)).Confirms;
        Assert.False(await ConfirmsAsync());

        await SendAsync(Receipts.For(relay.MasterKey, (await RowAsync("accepted")).Id), "received");

        Assert.True(await ConfirmsAsync());
        var device = await DeviceAsync();
        var received = device.LastReceivedAt!.Value;
        Assert.True(device.Confirms(received, received + TimeSpan.FromDays(2)));
        Assert.False(device.Confirms(received + TimeSpan.FromHours(1), received + TimeSpan.FromDays(2)));
    }

    private async Task<Device> DeviceAsync() => Assert.Single(await relay.Devices.ListAsync(TestRelay.Bob, null, 10, Token));

    /// <summary>A row in this state.</summary>
    private async Task<Delivery> RowAsync(string state)
    {
        await relay.CommitMessageAsync("hello");
        Settlement? settlement = state switch
        {
            "accepted" => new Settlement.Accepted(),
            "rejected" => new Settlement.Rejected("apns_TopicDisallowed", false),
            "dead" => new Settlement.Dead(),
            "cancelled" => new Settlement.Cancelled(Reasons.Retracted),
            _ => null,
        };
        if (settlement is not null)
        {
            relay.Advance(TimeSpan.FromSeconds(10));
            foreach (
                var alert in await relay.Outbox.ClaimAsync(
                    new Dictionary<Lane, int> { [TestRelay.Lane] = 10 },
                    TimeSpan.FromSeconds(30),
                    TimeSpan.Zero,
                    Token
                )
            )
            {
                await relay.Outbox.SettleAsync([new SettledAlert(alert, settlement, null)], Token);
                alert.Dispose();
            }
        }
        else if (state == "expired")
        {
            relay.Advance(TimeSpan.FromDays(2));
            await relay.Get<OutboxUpkeep>().ExpireAsync(Token);
        }

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal(state, Names.Of(row.State));
        return row;
    }

    private Task<bool> SendAsync(string receipt, string @event, DateTimeOffset? at = null) =>
        relay.Get<ReceiptWriter>().WriteAsync(receipt, @event == "opened", at, Token);
}

public sealed class SqliteReceiptTests : ReceiptContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlReceiptTests(PostgreSqlServer server) : ReceiptContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
