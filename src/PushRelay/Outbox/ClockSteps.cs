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

    /// <summary>The clock may have gone back while this process did not run, and the waits are not corrected yet.</summary>
    public bool MayHaveGoneBack { get; private set; }

    /// <summary>It went back while this process ran, and the waits are not corrected yet: each was counted by the clock before the
    /// step.</summary>
    public bool HasGoneBack { get; private set; }

    /// <summary>Compares the clock again.</summary>
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

    /// <summary>The corrected times are stored.</summary>
    public void Mended() => (MayHaveGoneBack, HasGoneBack) = (false, false);

    /// <summary>
    /// A lease that ends later than this was taken by the clock before the step. There is no such bound until one lease duration after the
    /// step, because the holder may still be sending.
    /// </summary>
    public DateTimeOffset LatestLeaseEnd(DateTimeOffset now, TimeSpan? duration) =>
        duration is { } longest && timers.GetElapsedTime(watchedSince) >= longest ? now + longest + Least : DateTimeOffset.MaxValue;
}
