using PushRelay.Api;
using PushRelay.Ledger;
using PushRelay.Outbox;

namespace PushRelay.Tests.Ledger;

/// <summary>What REST shows, asked without it: nothing listens here.</summary>
public sealed class QueryTests : IAsyncLifetime
{
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => relay = await TestRelay.OpenAsync();

    public ValueTask DisposeAsync() => relay.DisposeAsync();

    [Fact]
    public async Task Deliveries_are_listed_part_by_part_newest_first()
    {
        for (var i = 0; i < 5; i++)
        {
            await relay.CommitMessageAsync($"{i}");
        }

        var (seen, cursor) = (new List<Guid>(), (string?)null);
        do
        {
            Assert.True(relay.Get<ListPages>().TryRead("deliveries", null, cursor, "2", out var page, out _));
            var part = await relay.Get<DeliveryQueries>().ListAsync(new DeliveryFilter { Account = TestRelay.Bob }, page, Token);
            seen.AddRange(part.Items.Select(d => d.Id));
            cursor = part.Next;
        } while (cursor is not null);

        Assert.Equal((await relay.RowsAsync()).Select(r => r.Id).Reverse(), seen);
    }

    [Theory]
    [InlineData("pending", 1)]
    [InlineData("suppressed", 1)]
    [InlineData("dead", 0)]
    public async Task Deliveries_are_filtered_by_state(string state, int count)
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2", m => m with { Account = "carol@example.com" });
        Assert.True(Names.TryParse(state, out DeliveryState wanted));
        Assert.True(relay.Get<ListPages>().TryRead("deliveries", null, null, null, out var page, out _));

        var part = await relay.Get<DeliveryQueries>().ListAsync(new DeliveryFilter { State = wanted }, page, Token);

        Assert.Equal(count, part.Items.Count);
    }

    [Fact]
    public async Task A_delivery_is_found_by_its_owner_and_by_an_operator_and_by_nobody_else()
    {
        await relay.CommitMessageAsync("1");
        var id = Assert.Single(await relay.RowsAsync()).Id;
        var deliveries = relay.Get<DeliveryQueries>();

        Assert.Equal(id, (await deliveries.FindAsync(null, id, Token))?.Id);
        Assert.Equal(id, (await deliveries.FindAsync(TestRelay.Bob, id, Token))?.Id);
        Assert.Null(await deliveries.FindAsync("carol@example.com", id, Token));
        Assert.Null(await deliveries.FindAsync(null, Guid.NewGuid(), Token));
    }

    [Fact]
    public async Task An_account_is_found_however_it_is_spelt_and_only_on_a_served_host()
    {
        var device = await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");

        var account = await relay.Get<AccountQueries>().FindAsync("BOB@Example.com", Token);

        Assert.Equal((TestRelay.Bob, "unknown", 1), (account!.Account, account.State, account.Unread));
        Assert.Equal(device.Id, Assert.Single(account.Devices).Id);
        Assert.Null(await relay.Get<AccountQueries>().FindAsync("bob@elsewhere.example", Token));
    }
}
