using System.Diagnostics;

namespace PushRelay.Outbox;

/// <summary>Watches the database's clock for steps back, by this machine's own count of seconds. For one caller at a time.</summary>
/// <param name="timers">For how long leases are watched.</param>
internal sealed class ClockSteps(TimeProvider timers)
{
    /// <summary>Smaller steps are only waited for.</summary>
    public static readonly TimeSpan Least = TimeSpan.FromSeconds(5);

    private DateTimeOffset? last;
    private long lastStamp;
    private long watchedSince;

    /// <summary>The clock may have gone back while this process did not run, and what follows from that is not done.</summary>
    public bool MayHaveGoneBack { get; private set; }

    /// <summary>It went back under this process, and what follows is not done: every wait was counted by the clock of before.</summary>
    public bool HasGoneBack { get; private set; }

    /// <summary>Looks at it once more.</summary>
    public void Look(DateTimeOffset now)
    {
        var stamp = Stopwatch.GetTimestamp();
        if (last is null)
        {
            (MayHaveGoneBack, watchedSince) = (true, timers.GetTimestamp());
        }
        else if (now - last < Stopwatch.GetElapsedTime(lastStamp, stamp) - Least)
        {
            (MayHaveGoneBack, HasGoneBack, watchedSince) = (true, true, timers.GetTimestamp());
        }

        (last, lastStamp) = (now, stamp);
    }

    /// <summary>What follows from a step is stored.</summary>
    public void Mended() => (MayHaveGoneBack, HasGoneBack) = (false, false);

    /// <summary>
    /// A lease that ends later than this was taken by the clock of before. There is no such bound until a lease's duration after the step:
    /// whoever holds it may still be sending.
    /// </summary>
    public DateTimeOffset LatestLeaseEnd(DateTimeOffset now, TimeSpan? duration) =>
        duration is { } longest && timers.GetElapsedTime(watchedSince) >= longest ? now + longest + Least : DateTimeOffset.MaxValue;
}
