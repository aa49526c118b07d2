using CsCheck;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Outbox;
using PushRelay.Push;

namespace PushRelay.Tests.Outbox;

/// <summary>The arithmetic of permits, without anything around it.</summary>
public sealed class PermitsTests
{
    private readonly WorkSignal signal = new(new FakeTimeProvider());

    [Fact]
    public void A_permit_comes_back_once_however_often_it_is_disposed_of()
    {
        var permits = Open(1, "one");
        var permit = permits.TryTake(Row("one"))!;
        using var other = permits.TryTake(Row("one"));

        Parallel.For(0, 100, _ => permit.Dispose());

        Assert.Equal(1, permits.InFlight);
    }

    [Fact]
    public void One_app_may_have_everything_and_as_many_again_wait_in_memory()
    {
        var permits = Open(100, "one");

        Assert.Equal(300, TakeAll(permits, "one").Count);
    }

    [Fact]
    public void Two_apps_have_a_quarter_each_and_half_is_for_whoever_needs_it()
    {
        var permits = Open(100, "one", "two");

        Assert.Equal(75, TakeAll(permits, "one").Count);
        Assert.Equal(25, TakeAll(permits, "two").Count);
    }

    [Fact]
    public void A_limited_lane_gets_no_more_than_its_limit_and_another_lane_of_the_app_what_it_did()
    {
        var permits = Open(100, "one");
        permits.Limit(Lane("one"), 1);

        var one = Assert.Single(TakeAll(permits, "one"));
        one.Dispose();
        Assert.Single(TakeAll(permits, "one"));
        Assert.Equal(299, TakeAll(permits, "one", host: "other").Count);
    }

    [Fact]
    public void A_lane_of_which_little_is_free_is_not_worth_a_claim_until_more_comes_back()
    {
        var permits = Open(160, "one", "two");
        WaitingLane[] waiting = [new(Lane("one"), "one", "test")];
        // all that an insert may take, and what only claims may
        var taken = TakeAll(permits, "one");
        taken.AddRange(Enumerable.Range(0, 10).Select(_ => permits.Take(Row("one"))));

        taken[0].Dispose();
        Assert.Empty(permits.Claimable(waiting, 500));
        taken[1..5].ForEach(permit => permit.Dispose());

        Assert.Equal(5, permits.Claimable(waiting, 500)[Lane("one")]);
    }

    [Fact]
    public void An_app_that_is_not_configured_gets_none()
    {
        var permits = Open(100, "one");

        Assert.Null(permits.TryTake(Row("gone")));
        Assert.Empty(permits.Claimable([new(Lane("gone"), "gone", "test")], 500));
    }

    [Fact]
    public async Task Whoever_had_to_wait_is_woken_by_the_next_permit_that_comes_back()
    {
        var permits = Open(1, "one");
        var taken = TakeAll(permits, "one");
        taken.Add(permits.Take(Row("one")));
        Assert.False(permits.AnyFree() || permits.Claimable([new(Lane("one"), "one", "test")], 500).Count > 0);

        taken[0].Dispose();

        await signal.WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);
    }

    [Fact]
    public void Whatever_is_taken_and_comes_back_the_bounds_hold_and_nothing_is_left_over() =>
        Gen.Select(Gen.Int[0, 3], Gen.Bool)
            .Array[1, 400]
            .Sample(steps =>
            {
                var permits = Open(40, "0", "1", "2");
                var taken = new List<Permit>();
                foreach (var (app, takes) in steps)
                {
                    if (takes && permits.TryTake(Row($"{app}")) is { } permit)
                    {
                        taken.Add(permit);
                    }
                    else if (!takes && taken.Count > 0)
                    {
                        taken[app % taken.Count].Dispose();
                        taken.RemoveAt(app % taken.Count);
                    }

                    Assert.Equal(taken.Count, permits.InFlight);
                    Assert.True(taken.Count <= 40);
                }

                taken.ForEach(permit => permit.Dispose());
                Assert.Equal(0, permits.InFlight);
                Assert.Equal(28, TakeAll(permits, "0").Count);
            });

    private Permits Open(int concurrency, params string[] apps)
    {
        var permits = new Permits(signal);
        permits.Open(
            new DispatchCapacity(
                concurrency,
                apps.Select(app => (app, "test")).ToHashSet(),
                new Dictionary<string, int>(),
                TimeSpan.FromSeconds(30)
            )
        );
        return permits;
    }

    private static List<Permit> TakeAll(Permits permits, string app, string host = "host")
    {
        var taken = new List<Permit>();
        while (permits.TryTake(Row(app, host)) is { } permit)
        {
            taken.Add(permit);
        }

        return taken;
    }

    private static Lane Lane(string app, string host = "host") => new($"{app}/test/{host}");

    private static Delivery Row(string app, string host = "host") =>
        new()
        {
            Id = Guid.NewGuid(),
            Server = TestRelay.Server,
            Account = TestRelay.Bob,
            DeviceKey = Guid.NewGuid(),
            App = app,
            Platform = "test",
            Lane = Lane(app, host),
            EventKey = "e:1:1",
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            EventAt = DateTimeOffset.UnixEpoch,
            OrderingKey = Guid.NewGuid(),
            Reason = Reasons.Offline,
            CreatedAt = DateTimeOffset.UnixEpoch,
            DueAt = DateTimeOffset.UnixEpoch,
            ExpiresAt = DateTimeOffset.UnixEpoch,
        };
}
