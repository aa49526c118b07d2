using Microsoft.Extensions.Time.Testing;
using PushRelay.Apps;
using PushRelay.Ingest;

namespace PushRelay.Tests.Ingest;

/// <summary>Times are in seconds. Each case: the alerts of one device, as <c>at:key</c>, and how long each waits.</summary>
public sealed class AlertPacerTests
{
    private static readonly Guid Device = Guid.NewGuid();

    [Theory]
    // the first of a key at once, those of its window together at its end, and the first after it at once again
    [InlineData("0:a", "0")]
    [InlineData("0:a 1:a 1:a 2:a", "0 1 1 0")]
    [InlineData("0:a 5:a", "0 0")]
    // the window of what went out at 2 lasts to 4
    [InlineData("0:a 1:a 3:a 4:a", "0 1 1 0")]
    // other keys do not wait for it
    [InlineData("0:a 0:b 0:c", "0 0 0")]
    // beyond the burst of 3 one in each 10 seconds, and what waits of a key waits together
    [InlineData("0:a 0:b 0:c 0:d 0:e 0:d", "0 0 0 10 20 10")]
    [InlineData("0:a 0:b 0:c 9:d 10:e", "0 0 0 1 10")]
    // what waited long enough has its burst again
    [InlineData("0:a 0:b 0:c 40:d 40:e 40:f 40:g", "0 0 0 0 0 0 10")]
    public void An_alert_waits_for_its_key_and_for_its_device(string alerts, string waits)
    {
        var (pacer, clock) = New();
        var waited = new List<double>();

        foreach (var alert in alerts.Split(' ').Select(a => a.Split(':')))
        {
            MoveTo(clock, alert[0]);
            var plan = pacer.Begin();
            waited.Add(plan.Next(Device, KeyOf(alert[1])).TotalSeconds);
            plan.Commit();
        }

        Assert.Equal(waits, string.Join(' ', waited));
    }

    [Fact]
    public void What_one_transaction_plans_counts_for_its_own_later_alerts()
    {
        var (pacer, clock) = New();
        MoveTo(clock, "0");
        var plan = pacer.Begin();

        var waits = Enumerable.Range('a', 4).Select(key => plan.Next(Device, KeyOf($"{(char)key}")).TotalSeconds);

        Assert.Equal("0 0 0 10", string.Join(' ', waits));
    }

    [Fact]
    public void What_was_not_committed_counts_for_nobody()
    {
        var (pacer, _) = New();
        pacer.Begin().Next(Device, KeyOf("a"));

        var plan = pacer.Begin();

        Assert.Equal(TimeSpan.Zero, plan.Next(Device, KeyOf("a")));
    }

    [Fact]
    public void Another_device_does_not_wait_for_this_one()
    {
        var (pacer, _) = New();
        var plan = pacer.Begin();
        foreach (var key in (string[])["a", "b", "c", "d"])
        {
            plan.Next(Device, KeyOf(key));
        }

        Assert.Equal(TimeSpan.Zero, plan.Next(Guid.NewGuid(), KeyOf("a")));
    }

    [Fact]
    public void A_flood_from_very_many_senders_delays_no_alert_by_more_than_forty_intervals()
    {
        var (pacer, _) = New();
        var plan = pacer.Begin();

        var waits = Enumerable.Range(0, 200).Select(_ => plan.Next(Device, Guid.NewGuid()).TotalSeconds).ToList();

        Assert.Equal(400, waits.Max());
        Assert.Equal(400, waits[^1]);
    }

    private static (AlertPacer Pacer, FakeTimeProvider Clock) New()
    {
        var clock = new FakeTimeProvider();
        var options = new AlertsOptions
        {
            CoalesceWindow = TimeSpan.FromSeconds(2),
            DeviceBurst = 3,
            DeviceInterval = TimeSpan.FromSeconds(10),
        };
        var pacer = AlertPacer.OfAlerts(options, clock);
        return (pacer, clock);
    }

    private static Guid KeyOf(string name) => new(name[0], 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]);

    private static void MoveTo(FakeTimeProvider clock, string seconds) =>
        clock.Advance(
            TimeSpan.FromSeconds(double.Parse(seconds, System.Globalization.CultureInfo.InvariantCulture))
                - (clock.GetUtcNow() - clock.Start)
        );
}
