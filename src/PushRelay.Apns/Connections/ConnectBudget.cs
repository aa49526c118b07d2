namespace PushRelay.Apns.Connections;

/// <summary>
/// How often connecting may be tried. Apple takes rapid connecting and disconnecting for an attack. Two bounds: so many in a minute,
/// whatever comes of them, and a growing pause after connections that never carried an answer. Not thread-safe.
/// </summary>
internal sealed class ConnectBudget(TimeProvider clock)
{
    public const int AttemptsPerMinuteMax = 30;

    private static readonly TimeSpan PauseFirst = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan PauseMax = TimeSpan.FromSeconds(10);

    private readonly Queue<long> attempts = new();
    private int failuresInARow;
    private long pausedAt;
    private TimeSpan pause;

    public bool TrySpend()
    {
        if (clock.GetElapsedTime(pausedAt) < this.pause)
        {
            return false;
        }

        while (attempts.TryPeek(out var oldest) && clock.GetElapsedTime(oldest) >= TimeSpan.FromMinutes(1))
        {
            attempts.Dequeue();
        }

        if (attempts.Count >= AttemptsPerMinuteMax)
        {
            return false;
        }

        attempts.Enqueue(clock.GetTimestamp());
        return true;
    }

    public void Succeeded()
    {
        failuresInARow = 0;
        this.pause = TimeSpan.Zero;
    }

    public void Failed()
    {
        // After the first the next attempt follows at once: connections do end, and what waits should not pay for it.
        if (++failuresInARow == 1)
        {
            return;
        }

        var pause = PauseFirst * Math.Pow(2, Math.Min(failuresInARow - 2, 10));
        // Between half and all of it, so that the nodes of a cluster do not knock in step.
        this.pause = (pause < PauseMax ? pause : PauseMax) * (0.5 + (Random.Shared.NextDouble() / 2));
        pausedAt = clock.GetTimestamp();
    }
}
