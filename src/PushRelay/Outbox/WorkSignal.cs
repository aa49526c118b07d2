using System.Threading.Channels;

namespace PushRelay.Outbox;

/// <summary>"There may be something to claim": wakes the claims of this process before their next poll.</summary>
internal sealed class WorkSignal(TimeProvider timers)
{
    // one word is enough, however many call
    private readonly Channel<bool> work = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite }
    );

    public void Wake() => work.Writer.TryWrite(true);

    /// <summary>Waits for a call of <see cref="Wake"/>, at most <paramref name="poll"/>: rows of other nodes and due times make no
    /// call.</summary>
    public async Task WaitAsync(TimeSpan poll, CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(poll, timers);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        try
        {
            await work.Reader.ReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // no call came: time to poll
        }
    }
}
