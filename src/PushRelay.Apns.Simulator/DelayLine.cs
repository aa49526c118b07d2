namespace PushRelay.Apns.Simulator;

/// <summary>Runs actions when they are due, in the order of their times; one timer for thousands of them. Safe for concurrent
/// use.</summary>
internal sealed class DelayLine : IAsyncDisposable
{
    private readonly TimeProvider clock;
    private readonly Lock sync = new();
    private readonly PriorityQueue<Action, long> waiting = new();
    private readonly ITimer timer;
    private long armedFor = long.MaxValue;

    public DelayLine(TimeProvider clock)
    {
        this.clock = clock;
        timer = clock.CreateTimer(_ => RunDue(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    public void Add(TimeSpan delay, Action action)
    {
        var due = this.clock.GetTimestamp() + (long)(delay.TotalSeconds * this.clock.TimestampFrequency);
        lock (sync)
        {
            waiting.Enqueue(action, due);
            Arm();
        }
    }

    public ValueTask DisposeAsync() => timer.DisposeAsync();

    private void RunDue()
    {
        List<Action> due = [];
        lock (sync)
        {
            armedFor = long.MaxValue;
            var now = this.clock.GetTimestamp();
            while (waiting.TryPeek(out _, out var at) && at <= now)
            {
                due.Add(waiting.Dequeue());
            }

            Arm();
        }

        foreach (var action in due)
        {
            action();
        }
    }

    /// <summary>Called under the lock.</summary>
    private void Arm()
    {
        if (!waiting.TryPeek(out _, out var at) || at >= armedFor)
        {
            return;
        }

        armedFor = at;
        var wait = this.clock.GetElapsedTime(this.clock.GetTimestamp(), at);
        // A whole millisecond: the timer of the system rounds down, and would fire again and again just before the time.
        timer.Change(
            wait > TimeSpan.Zero ? TimeSpan.FromMilliseconds(Math.Ceiling(wait.TotalMilliseconds)) : TimeSpan.Zero,
            Timeout.InfiniteTimeSpan
        );
    }
}
