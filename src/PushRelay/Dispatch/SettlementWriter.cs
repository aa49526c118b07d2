using System.Threading.Channels;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// Writes the outcomes of attempts, all that came in since the last write together: the more there are, the cheaper each one is. The
/// permits bound them; a permit is returned when its alert is written.
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
            // too late, the process stops: the row comes back when its lease ends
            settled.Alert.Dispose();
        }
    }

    /// <summary>An answer waits for the database: a lease that ends meanwhile must not be returned to the other rows.</summary>
    public bool IsBehind => Volatile.Read(ref retrying) > 0;

    /// <summary>Call it after the last alert. Outcomes that cannot be stored soon are dropped; their rows come back when their leases
    /// end.</summary>
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
                // the rows come back when their leases end, and their attempts stay counted
                NotWritten(exception, batch.Count);
            }

            foreach (var settled in batch)
            {
                settled.Alert.Dispose();
            }
        }
    }

    /// <summary>Outcomes are not dropped while the database is away: the write is tried until it succeeds or the process stops. The
    /// permits of these alerts bound how many can wait.</summary>
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
            // one of them cannot be written: write each alone
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
        Message = "Delivery {DeliveryId} was tried, but its lease had ended: another node may send it a second time, with the same id"
    )]
    private partial void LeaseLost(Guid deliveryId);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The outcomes of {Count} attempts could not be stored; the deliveries are tried again when their leases end"
    )]
    private partial void NotWritten(Exception exception, int count);
}
