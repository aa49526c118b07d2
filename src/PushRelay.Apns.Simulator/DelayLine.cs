namespace PushRelay.Apns.Simulator;

/// <summary>Runs actions when they are due, in the order of their times; one timer for thousands of them. Safe for concurrent use.</summary>
internal sealed class DelayLine : IAsyncDisposable
{
    private readonly TimeProvider _clock;
    private readonly Lock _lock = new();
    private readonly PriorityQueue<Action, long> _waiting = new();
    private readonly ITimer _timer;
    private long _armedFor = long.MaxValue;

    public DelayLine(TimeProvider clock)
    {
        _clock = clock;
        _timer = clock.CreateTimer(_ => RunDue(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    public void Add(TimeSpan delay, Action action)
    {
        var due = _clock.GetTimestamp() + (long)(delay.TotalSeconds * _clock.TimestampFrequency);
        lock (_lock)
        {
            _waiting.Enqueue(action, due);
            Arm();
        }
    }

    public ValueTask DisposeAsync() => _timer.DisposeAsync();

    private void RunDue()
    {
        List<Action> due = [];
        lock (_lock)
        {
            _armedFor = long.MaxValue;
            var now = _clock.GetTimestamp();
            while (_waiting.TryPeek(out _, out var at) && at <= now)
            {
                due.Add(_waiting.Dequeue());
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
        if (!_waiting.TryPeek(out _, out var at) || at >= _armedFor)
        {
            return;
        }

        _armedFor = at;
        var wait = _clock.GetElapsedTime(_clock.GetTimestamp(), at);
        // A whole millisecond: the timer of the system rounds down, and would fire again and again just before the time.
        _timer.Change(wait > TimeSpan.Zero ? TimeSpan.FromMilliseconds(Math.Ceiling(wait.TotalMilliseconds)) : TimeSpan.Zero, Timeout.InfiniteTimeSpan);
    }
}
