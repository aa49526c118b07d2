using Microsoft.Extensions.Time.Testing;
using PushRelay.Push.JPush;

namespace PushRelay.Tests.Push.JPush;

public sealed class RequestRateTests
{
    private readonly FakeTimeProvider clock = new();

    [Fact]
    public void Before_an_answer_has_said_anything_all_may_go() => Assert.True(Enumerable.Range(0, 500).All(_ => Takes(out var _)));

    [Fact]
    public void What_is_under_way_counts_and_the_reset_ends_it()
    {
        var rate = new RequestRate(clock);
        Assert.True(rate.TryTake(out _));
        rate.Return((2, TimeSpan.FromSeconds(20)));

        Assert.True(rate.TryTake(out _));
        Assert.True(rate.TryTake(out _));
        Assert.False(rate.TryTake(out var wait));
        Assert.Equal(TimeSpan.FromSeconds(20), wait);

        clock.Advance(TimeSpan.FromSeconds(20));
        Assert.True(rate.TryTake(out _));
    }

    [Fact]
    public void An_answer_that_was_overtaken_gives_nothing_back()
    {
        var rate = new RequestRate(clock);
        rate.TryTake(out _);
        rate.TryTake(out _);
        rate.Return((0, TimeSpan.FromSeconds(20)));
        rate.Return((1, TimeSpan.FromSeconds(20)));

        Assert.False(rate.TryTake(out _));
    }

    [Fact]
    public void A_request_without_an_answer_gives_its_place_back()
    {
        var rate = new RequestRate(clock);
        rate.TryTake(out _);
        rate.Return((1, TimeSpan.FromSeconds(20)));
        Assert.True(rate.TryTake(out _));
        rate.Return(null);

        Assert.True(rate.TryTake(out _));
    }

    private readonly RequestRate unknown = new(TimeProvider.System);

    private bool Takes(out TimeSpan wait) => unknown.TryTake(out wait);
}
