namespace PushRelay.Apns.Simulator;

/// <summary>What came in, the newest <paramref name="keepMax"/> of it, and who waits for the n-th. Safe for concurrent use.</summary>
internal sealed class ReceivedLog(int keepMax)
{
    private readonly Lock _lock = new();
    private readonly Queue<ReceivedNotification> _kept = new();
    private readonly List<(long Number, TaskCompletionSource<ReceivedNotification> Waiter)> _waiting = [];
    private long _count;

    public long Count => Interlocked.Read(ref _count);

    public void CountOnly() => Interlocked.Increment(ref _count);

    /// <summary>Gives it the next number.</summary>
    public ReceivedNotification Add(Func<long, ReceivedNotification> make)
    {
        lock (_lock)
        {
            var received = make(++_count);
            if (keepMax == 0)
            {
                return received;
            }

            if (_kept.Count == keepMax)
            {
                _kept.Dequeue();
            }

            _kept.Enqueue(received);

            for (var i = _waiting.Count - 1; i >= 0; i--)
            {
                if (_waiting[i].Number == received.Number)
                {
                    _waiting[i].Waiter.TrySetResult(received);
                    _waiting.RemoveAt(i);
                }
            }

            return received;
        }
    }

    public IReadOnlyList<ReceivedNotification> Snapshot(string? token = null)
    {
        lock (_lock)
        {
            return token is null
                ? [.. _kept]
                : [.. _kept.Where(received => received.DeviceToken.Equals(token, StringComparison.OrdinalIgnoreCase))];
        }
    }

    public async Task<ReceivedNotification> WaitAsync(long number, CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(number, 1);
        if (keepMax == 0)
        {
            throw new InvalidOperationException("With KeepMax 0 nothing is kept to wait for.");
        }

        TaskCompletionSource<ReceivedNotification> waiter;
        lock (_lock)
        {
            if (number <= _count)
            {
                return _kept.FirstOrDefault(received => received.Number == number)
                    ?? throw new InvalidOperationException($"Notification {number} came, but is no longer kept.");
            }

            waiter = new TaskCompletionSource<ReceivedNotification>(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiting.Add((number, waiter));
        }

        await using (cancellationToken.UnsafeRegister((_, token) => Forget(waiter, token), null))
        {
            return await waiter.Task;
        }
    }

    /// <summary>Counts from 1 again. Who waits, waits for the new count.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _kept.Clear();
            _count = 0;
        }
    }

    private void Forget(TaskCompletionSource<ReceivedNotification> waiter, CancellationToken token)
    {
        lock (_lock)
        {
            _waiting.RemoveAll(entry => entry.Waiter == waiter);
        }

        waiter.TrySetCanceled(token);
    }
}
