using System.Globalization;
using System.Net;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Limits;

namespace PushRelay.Tests.Limits;

public sealed class RateLimitTests
{
    private readonly FakeTimeProvider clock = new();

    [Fact]
    public void A_burst_goes_through_then_the_rate_and_the_wait_is_told()
    {
        var limit = new RateLimit(2, TimeSpan.FromSeconds(1), 3, clock);

        Assert.Equal([true, true, true, false], Enumerable.Range(0, 4).Select(_ => limit.TryTake("a", out TimeSpan _)));
        Assert.False(limit.TryTake("a", out var wait));
        Assert.Equal(TimeSpan.FromMilliseconds(500), wait);
        Assert.True(limit.TryTake("b", out _));
        clock.Advance(wait);
        Assert.True(limit.TryTake("a", out _));
        Assert.False(limit.TryTake("a", out _));
    }

    [Fact]
    public void Zero_is_without_limit() =>
        Assert.All(
            Enumerable.Range(0, 100),
            _ => Assert.True(new RateLimit(0, TimeSpan.FromSeconds(1), 0, clock).TryTake("a", out TimeSpan _))
        );

    [Fact]
    public void Beyond_so_many_busy_keys_the_newcomers_share_one_and_idle_keys_are_forgotten()
    {
        var limit = new RateLimit(1, TimeSpan.FromSeconds(1), 1, clock);
        for (var i = 0; i < RateLimit.KeysMax; i++)
        {
            Assert.True(limit.TryTake(i.ToString(CultureInfo.InvariantCulture), out _));
        }

        Assert.True(limit.TryTake("new 1", out _));
        Assert.False(limit.TryTake("new 2", out _));
        clock.Advance(TimeSpan.FromSeconds(2));
        Assert.True(limit.TryTake("new 3", out _));
        Assert.True(limit.TryTake("new 4", out _));
    }

    [Fact]
    public void A_clock_that_is_set_back_shuts_nobody_out()
    {
        var clock = new WrongClock();
        var limit = new RateLimit(1, TimeSpan.FromSeconds(1), 1, clock);
        Assert.True(limit.TryTake("a", out _));

        clock.Wrong = TimeSpan.FromHours(-1);

        Assert.False(limit.TryTake("a", out var wait));
        Assert.Equal(TimeSpan.FromSeconds(1), wait);
        clock.Advance(wait);
        Assert.True(limit.TryTake("a", out _));
    }

    [Theory]
    [InlineData("192.0.2.1", "192.0.2.1", true)]
    [InlineData("192.0.2.1", "192.0.2.2", false)]
    [InlineData("::ffff:192.0.2.1", "192.0.2.1", true)]
    [InlineData("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true)]
    [InlineData("2001:db8:1:2::1", "2001:db8:1:3::1", false)]
    public void A_person_has_one_IPv4_address_or_a_64_of_IPv6(string one, string other, bool same) =>
        Assert.Equal(same, RateLimit.KeyOf(IPAddress.Parse(one)) == RateLimit.KeyOf(IPAddress.Parse(other)));

    private sealed class WrongClock : FakeTimeProvider
    {
        public TimeSpan Wrong { get; set; }

        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + Wrong;

        public override long GetTimestamp() => base.GetUtcNow().Ticks;
    }
}
