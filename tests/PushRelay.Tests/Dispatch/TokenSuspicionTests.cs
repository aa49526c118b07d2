using Microsoft.Extensions.Time.Testing;
using PushRelay.Dispatch;

namespace PushRelay.Tests.Dispatch;

public sealed class TokenSuspicionTests
{
    [Theory]
    // sends, accounts, of them reached before, seconds between sends, seconds since one was accepted (-1: never), lane has accepted ever
    [InlineData(20, 3, 3, 1, 60, true, true)]
    [InlineData(20, 3, 3, 3, 60, true, true)] // 20 sends take 57 s
    [InlineData(20, 3, 3, 4, 60, true, false)] // not within a minute
    [InlineData(19, 3, 3, 1, 60, true, false)]
    [InlineData(20, 2, 2, 1, 60, true, false)]
    [InlineData(200, 3, 2, 0, 60, true, false)] // a third account was never reached
    [InlineData(20, 3, 3, 1, 10, true, false)] // one was accepted within the minute
    [InlineData(20, 3, 0, 1, -1, false, true)] // a lane that never accepted anything
    [InlineData(20, 2, 0, 1, -1, false, false)]
    public void A_refusal_in_numbers(int sends, int accounts, int reached, int apart, int acceptedAgo, bool laneHasAccepted, bool expected)
    {
        var clock = new FakeTimeProvider();
        var suspicion = new TokenSuspicion(clock);
        if (acceptedAgo >= 0)
        {
            suspicion.Accepted();
            clock.Advance(TimeSpan.FromSeconds(acceptedAgo));
        }

        var doubted = false;
        for (var send = 0; send < sends; send++)
        {
            doubted = suspicion.Doubts(new RefusedToken($"u{send % accounts}", send % accounts < reached), laneHasAccepted);
            clock.Advance(TimeSpan.FromSeconds(apart));
        }

        Assert.Equal(expected, doubted);
    }

    [Fact]
    public void Once_doubted_none_is_believed_until_one_is_accepted()
    {
        var clock = new FakeTimeProvider();
        var suspicion = new TokenSuspicion(clock);
        for (var send = 1; send < TokenSuspicion.SendsMin; send++)
        {
            Assert.False(suspicion.Doubts(new RefusedToken($"u{send}", true), true));
        }

        Assert.True(suspicion.Doubts(new RefusedToken("u", false), true));
        clock.Advance(TimeSpan.FromHours(1));
        Assert.False(suspicion.IsIdle);
        Assert.True(suspicion.Doubts(new RefusedToken("u", false), true));

        suspicion.Accepted();
        Assert.True(suspicion.IsIdle);
        Assert.False(suspicion.Doubts(new RefusedToken("u", false), true));
    }
}
