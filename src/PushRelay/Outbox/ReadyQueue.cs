using System.Threading.Channels;

namespace PushRelay.Outbox;

/// <summary>Hands what an insert claimed to the dispatcher of this process, which so need not read it back. Bounded by the
/// permits.</summary>
internal sealed class ReadyQueue(OutboxQueue outbox, Permits permits, WorkSignal signal)
{
    private readonly Channel<ClaimedAlert> ready = Channel.CreateUnbounded<ClaimedAlert>(
        new UnboundedChannelOptions { SingleReader = true }
    );

    /// <summary>Alerts claimed by the insert that brought them, committed, and not yet begun.</summary>
    public ChannelReader<ClaimedAlert> Reader => ready.Reader;

    /// <summary>The rows are committed: the dispatcher sends what they claimed, and looks for the rest.</summary>
    public async Task PublishAsync(AppendedRows appended, CancellationToken cancellationToken)
    {
        List<SettledAlert>? late = null;
        foreach (var alert in appended.Release())
        {
            if (!ready.Writer.TryWrite(alert))
            {
                // the dispatcher stopped in between
                (late ??= []).Add(new SettledAlert(alert, new Settlement.HandBack(), null));
            }
        }

        if (appended.Due.Count > 0)
        {
            permits.WakeOnReturn();
            signal.Wake();
        }

        if (late is not null)
        {
            try
            {
                await outbox.SettleAsync(late, cancellationToken);
            }
            finally
            {
                late.ForEach(settled => settled.Alert.Dispose());
            }
        }
    }

    /// <summary>Takes no more; what is still in <see cref="Reader"/>, which ends now, is its reader's to send or hand back.</summary>
    public void Complete() => ready.Writer.TryComplete();
}
