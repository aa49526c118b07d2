using PushRelay.Cluster;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Hostile;

/// <summary>A clock that was wrong and is set right stops nothing for longer than a lease.</summary>
public abstract class ClockAttacks : Attack
{
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData(-1.0)]
    [InlineData(-26.0)]
    public async Task A_lease_taken_by_a_clock_that_was_ahead_is_over_when_the_clock_is_right(double hours)
    {
        var leases = Relay.Get<LeaseTable>();
        var former = Assert.NotNull(await leases.TakeAsync("link:push.example.com", Token));
        await leases.TakeAsync("link:push.example.com", Token);

        Step(TimeSpan.FromHours(hours));

        Assert.Null(await leases.HolderOfAsync("link:push.example.com", Token));
        var term = Assert.NotNull(await leases.TakeAsync("link:push.example.com", Token));
        Assert.True(term.Term > former.Term);
        // who waited for it by the old clock waits no more
        Assert.Equal(LeaseRenewal.Held, await leases.RenewAsync(term, inUse: true, Token));
        Assert.NotNull(await leases.HolderOfAsync("link:push.example.com", Token));
    }

    [Fact]
    public async Task A_lease_is_not_taken_from_a_holder_for_a_second_that_the_clock_went_back()
    {
        var leases = Relay.Get<LeaseTable>();
        Assert.NotNull(await leases.TakeAsync("link:push.example.com", Token));

        Step(TimeSpan.FromSeconds(-1));

        Assert.NotNull(await leases.HolderOfAsync("link:push.example.com", Token));
    }

    [Fact]
    public async Task What_waits_goes_out_after_the_clock_of_a_running_relay_went_back()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, 2, (i, row) => Due(row, i == 0 ? TimeSpan.FromMinutes(2) : TimeSpan.FromSeconds(2)));
        await SweepAsync();

        Step(TimeSpan.FromHours(-2));
        await SweepAsync();

        var now = await Relay.NowAsync();
        Assert.All(await Relay.RowsAsync(), row => Assert.InRange(row.DueAt, now.AddSeconds(-5), now.AddSeconds(5)));
    }

    [Fact]
    public async Task What_was_written_by_a_clock_that_was_ahead_before_the_start_goes_out()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, 1, (_, row) => Due(row, TimeSpan.FromSeconds(2)));
        Step(TimeSpan.FromMinutes(-30));
        await FillAsync(device, 1, (_, row) => Due(row, TimeSpan.FromSeconds(40)));

        await SweepAsync();

        var (now, rows) = (await Relay.NowAsync(), (await Relay.RowsAsync()).OrderBy(r => r.CreatedAt).ToList());
        // what waits by the right clock goes on waiting
        Assert.InRange(rows[0].DueAt - now, TimeSpan.FromSeconds(20), TimeSpan.FromSeconds(45));
        Assert.InRange(rows[1].DueAt, now.AddSeconds(-5), now.AddSeconds(5));
    }

    [Fact]
    public async Task A_row_in_flight_by_the_old_clock_is_kept_for_a_lease_and_then_returned()
    {
        var device = await Relay.RegisterAsync();
        Relay.OpenPermits(Lease);
        await FillAsync(device, 1);
        var claimed = await Relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [TestRelay.Lane] = 10 }, Lease, TimeSpan.Zero, Token);
        Assert.Single(claimed);
        await SweepAsync();

        Step(TimeSpan.FromHours(-1));
        await SweepAsync();
        Assert.Equal(DeliveryState.Sending, Assert.Single(await Relay.RowsAsync()).State);

        Step(Lease);
        await SweepAsync();
        Assert.Equal(DeliveryState.Pending, Assert.Single(await Relay.RowsAsync()).State);
    }

    [Fact]
    public async Task A_clock_that_goes_forward_hurts_nothing()
    {
        var device = await Relay.RegisterAsync();
        await FillAsync(device, 1, (_, row) => Due(row, TimeSpan.FromSeconds(40)));
        await SweepAsync();

        Step(TimeSpan.FromHours(2));
        await SweepAsync();

        Assert.Single(await Relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [TestRelay.Lane] = 10 }, Lease, TimeSpan.Zero, Token));
    }

    private Task SweepAsync() => Relay.Get<Housekeeping>().SweepAsync(Token);

    private static Delivery Due(Delivery row, TimeSpan after)
    {
        row.DueAt = row.CreatedAt + after;
        return row;
    }
}

public sealed class SqliteClockAttacks : ClockAttacks;

public sealed class PostgreSqlClockAttacks : ClockAttacks
{
    public PostgreSqlClockAttacks(PostgreSqlServer server) => Server = server;
}
