using System.Threading.Channels;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// Writes the outcomes of attempts, all that have come in since the last write at once: the more there is, the cheaper each is. Bounded by
/// the permits, which come back when their alerts are written.
/// </summary>
internal sealed partial class SettlementWriter(
    OutboxQueue outbox,
    DatabaseFailures failures,
    TimeProvider clock,
    ILogger<SettlementWriter> logger
)
{
    private const string Work = "outcomes of attempts";
    private const int WrittenTogetherMax = 500;
    private static readonly TimeSpan Retry = TimeSpan.FromMilliseconds(500);

    // after a stop
    private static readonly TimeSpan LastTries = TimeSpan.FromSeconds(5);

    private int retrying;
    private long? stoppedAt;

    private readonly Channel<SettledAlert> inbox = Channel.CreateUnbounded<SettledAlert>(
        new UnboundedChannelOptions { SingleReader = true }
    );

    /// <summary>To be written; its permit comes back then.</summary>
    public void Add(SettledAlert settled)
    {
        if (!inbox.Writer.TryWrite(settled))
        {
            // too late at a stop: the lease brings it back
            settled.Alert.Dispose();
        }
    }

    /// <summary>An answer waits for a database that is away: leases that ran out meanwhile are not over.</summary>
    public bool IsBehind => Volatile.Read(ref retrying) > 0;

    /// <summary>No more come. What cannot be stored within a moment from now is left to its lease.</summary>
    public void Complete()
    {
        stoppedAt = clock.GetTimestamp();
        inbox.Writer.TryComplete();
    }

    public async Task RunAsync()
    {
        // not on the caller's stack
        await Task.Yield();
        var batch = new List<SettledAlert>(WrittenTogetherMax);
        while (await inbox.Reader.WaitToReadAsync())
        {
            batch.Clear();
            while (batch.Count < WrittenTogetherMax && inbox.Reader.TryRead(out var next))
            {
                batch.Add(next);
            }

            try
            {
                await WriteAsync(batch);
            }
            catch (Exception exception)
            {
                // the leases bring them back, and their attempts stay counted
                NotWritten(exception, batch.Count);
            }

            foreach (var settled in batch)
            {
                settled.Alert.Dispose();
            }
        }
    }

    /// <summary>An answer is not thrown away because the database is away: it is tried until it is stored, or the process stops. The
    /// permits that these alerts hold bound how many can wait.</summary>
    public async Task RetryUntilStoredAsync(Func<Task> store)
    {
        var waits = false;
        try
        {
            await DatabaseErrors.RetryAsync(
                async _ =>
                {
                    await store();
                    return true;
                },
                (exception, _) =>
                {
                    var wait = WaitAfter(exception);
                    if (wait is not null && !waits)
                    {
                        waits = true;
                        Interlocked.Increment(ref retrying);
                    }

                    return wait;
                },
                clock,
                CancellationToken.None
            );
        }
        finally
        {
            // stored, or given up: it does not wait any more
            if (waits)
            {
                Interlocked.Decrement(ref retrying);
            }

            failures.Remove(Work);
        }
    }

    /// <summary>How long to wait for a database that is away, which is a condition meanwhile; null: give up.</summary>
    private TimeSpan? WaitAfter(Exception exception)
    {
        if (!DatabaseErrors.IsOutage(exception) || (stoppedAt is { } stopped && clock.GetElapsedTime(stopped) >= LastTries))
        {
            return null;
        }

        failures.Add(Work, exception);
        return Retry;
    }

    private async Task WriteAsync(List<SettledAlert> settled)
    {
        try
        {
            await TryWriteAsync(settled);
        }
        catch (Exception exception) when (settled.Count > 1 && !DatabaseErrors.IsOutage(exception))
        {
            // one of them cannot be written: the others can
            foreach (var one in settled)
            {
                try
                {
                    await TryWriteAsync([one]);
                }
                catch (Exception alone) when (!DatabaseErrors.IsOutage(alone))
                {
                    NotWritten(alone, 1);
                }
            }
        }
    }

    private Task TryWriteAsync(List<SettledAlert> settled) =>
        RetryUntilStoredAsync(async () =>
        {
            foreach (var lost in await outbox.SettleAsync(settled, CancellationToken.None))
            {
                LeaseLost(lost.Alert.Head.Id);
            }
        });

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Delivery {DeliveryId} was tried, but its lease had run out: another node may send it a second time, with the same id"
    )]
    private partial void LeaseLost(Guid deliveryId);

    [LoggerMessage(Level = LogLevel.Error, Message = "The outcomes of {Count} attempts could not be stored; their leases bring them back")]
    private partial void NotWritten(Exception exception, int count);
}
