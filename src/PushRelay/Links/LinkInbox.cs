using System.Diagnostics.CodeAnalysis;
using System.Threading.Channels;
using System.Xml.Linq;

namespace PushRelay.Links;

/// <summary>What happens on a link, as a worker reads it.</summary>
internal abstract record LinkEvent
{
    private LinkEvent() { }

    public sealed record Connected : LinkEvent;

    public sealed record Disconnected : LinkEvent;

    public sealed record Received(XElement Stanza) : LinkEvent;
}

/// <summary>
/// The events of one link for one worker, in the order of the stream; one writer, one reader. Bounded: while it is full the socket is not
/// read.
/// </summary>
internal sealed class LinkInbox(TimeProvider clock)
{
    internal const int EventsMax = 256;

    private readonly Channel<LinkEvent> events = Channel.CreateBounded<LinkEvent>(
        new BoundedChannelOptions(EventsMax) { SingleReader = true }
    );
    private volatile bool missedDisconnect;

    public bool IsEmpty => events.Reader.Count == 0;

    public ValueTask ConnectedAsync(CancellationToken cancellationToken) =>
        events.Writer.WriteAsync(new LinkEvent.Connected(), cancellationToken);

    public ValueTask ReceivedAsync(XElement stanza, CancellationToken cancellationToken) =>
        events.Writer.WriteAsync(new LinkEvent.Received(stanza), cancellationToken);

    /// <summary>Never waits: where the inbox is full, the reader sees it before what is in there.</summary>
    public void Disconnected() => missedDisconnect = !events.Writer.TryWrite(new LinkEvent.Disconnected());

    public bool TryRead([NotNullWhen(true)] out LinkEvent? item)
    {
        if (missedDisconnect)
        {
            missedDisconnect = false;
            item = new LinkEvent.Disconnected();
            return true;
        }

        return events.Reader.TryRead(out item);
    }

    /// <summary>Returns when there is something to read, and at the latest after <paramref name="limit"/>.</summary>
    public async Task WaitAsync(TimeSpan limit, CancellationToken cancellationToken)
    {
        using var timer = new CancellationTokenSource(limit, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timer.Token, cancellationToken);
        try
        {
            await events.Reader.WaitToReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // the limit
        }
    }
}
