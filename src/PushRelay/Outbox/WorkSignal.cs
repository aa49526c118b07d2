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

    /// <summary>Waits until somebody calls <see cref="Wake"/>, at most <paramref name="poll"/>: other nodes' rows and due times wake
    /// nobody.</summary>
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
            // nobody called: time to poll
        }
    }
}
