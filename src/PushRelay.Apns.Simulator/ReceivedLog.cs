namespace PushRelay.Apns.Simulator;

/// <summary>What came in, the newest <paramref name="keepMax"/> of it, and who waits for the n-th. Safe for concurrent use.</summary>
internal sealed class ReceivedLog(int keepMax)
{
    private readonly Lock sync = new();
    private readonly Queue<ReceivedNotification> kept = new();
    private readonly List<(long Number, TaskCompletionSource<ReceivedNotification> Waiter)> waiting = [];
    private long count;

    public long Count => Interlocked.Read(ref count);

    public void CountOnly() => Interlocked.Increment(ref count);

    /// <summary>Gives it the next number.</summary>
    public ReceivedNotification Add(Func<long, ReceivedNotification> make)
    {
        lock (sync)
        {
            var received = make(++count);
            if (keepMax == 0)
            {
                return received;
            }

            if (kept.Count == keepMax)
            {
                kept.Dequeue();
            }

            kept.Enqueue(received);

            for (var i = waiting.Count - 1; i >= 0; i--)
            {
                if (waiting[i].Number == received.Number)
                {
                    waiting[i].Waiter.TrySetResult(received);
                    waiting.RemoveAt(i);
                }
            }

            return received;
        }
    }

    public IReadOnlyList<ReceivedNotification> Snapshot(string? token = null)
    {
        lock (sync)
        {
            return token is null
                ? [.. kept]
                : [.. kept.Where(received => received.DeviceToken.Equals(token, StringComparison.OrdinalIgnoreCase))];
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
        lock (sync)
        {
            if (number <= count)
            {
                return kept.FirstOrDefault(received => received.Number == number)
                    ?? throw new InvalidOperationException($"Notification {number} came, but is no longer kept.");
            }

            waiter = new TaskCompletionSource<ReceivedNotification>(TaskCreationOptions.RunContinuationsAsynchronously);
            waiting.Add((number, waiter));
        }

        await using (cancellationToken.UnsafeRegister((_, token) => Forget(waiter, token), null))
        {
            return await waiter.Task;
        }
    }

    /// <summary>Counts from 1 again. Who waits, waits for the new count.</summary>
    public void Clear()
    {
        lock (sync)
        {
            kept.Clear();
            count = 0;
        }
    }

    private void Forget(TaskCompletionSource<ReceivedNotification> waiter, CancellationToken token)
    {
        lock (sync)
        {
            waiting.RemoveAll(entry => entry.Waiter == waiter);
        }

        waiter.TrySetCanceled(token);
    }
}
