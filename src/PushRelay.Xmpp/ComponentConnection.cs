using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>
/// One connection of a component, from the TCP connection to its end: handshake, what comes in, what goes out, ping, close.
/// One reader; any number of senders.
/// </summary>
internal sealed class ComponentConnection : IAsyncDisposable
{
    private readonly XmppComponentOptions options;
    private readonly TimeProvider clock;
    private readonly Socket socket;
    private readonly XmppStreamParser parser;
    private readonly Pipe outgoing;
    private readonly SemaphoreSlim sending = new(1, 1);
    private readonly CancellationTokenSource broken = new();
    private readonly byte[] ping;
    private Task pumping = Task.CompletedTask;
    private Exception? writeFailure;

    private ComponentConnection(XmppComponentOptions options, XmppNames names, TimeProvider clock, Socket socket)
    {
        this.options = options;
        this.clock = clock;
        this.socket = socket;
        parser = new XmppStreamParser(options, names);
        // Resumes at half: a sender that waits is not woken for every byte.
        outgoing = new Pipe(
            new PipeOptions(
                pauseWriterThreshold: options.SendBufferBytesMax,
                resumeWriterThreshold: (options.SendBufferBytesMax + 1) / 2,
                useSynchronizationContext: false
            )
        );
        ping = XmppStanzaWriter.Write(
            new XElement(
                XmppStanza.Iq,
                new XAttribute("type", "get"),
                new XAttribute("id", StanzaGate.PingId),
                new XAttribute("to", options.ServerDomain ?? options.Domain),
                new XElement(XmppStanza.Ping + "ping")
            ),
            options
        );
    }

    /// <summary>Connects and shakes hands; afterwards the link is ready for both directions.</summary>
    /// <exception cref="XmppStreamException">The server refused, or is no component port.</exception>
    /// <exception cref="SocketException">No connection.</exception>
    /// <exception cref="TimeoutException">One of the two time limits passed.</exception>
    /// <exception cref="EndOfStreamException">The server hung up.</exception>
    public static async Task<ComponentConnection> OpenAsync(
        XmppComponentOptions options,
        XmppNames names,
        TimeProvider clock,
        CancellationToken cancellationToken
    )
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        ComponentConnection? link = null;
        try
        {
            // A peer that is gone without a word is found by the system too, also while the handler is busy.
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 30);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 10);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 3);
            await WithinAsync(
                    options.ConnectTimeout,
                    "No connection",
                    token => socket.ConnectAsync(options.Host, options.Port, token),
                    clock,
                    cancellationToken
                )
                .ConfigureAwait(false);

            link = new ComponentConnection(options, names, clock, socket);
            link.pumping = link.PumpAsync();
            await WithinAsync(options.HandshakeTimeout, "No handshake", link.ShakeHandsAsync, clock, cancellationToken)
                .ConfigureAwait(false);
            return link;
        }
        catch (Exception exception)
        {
            if (link is null)
            {
                socket.Dispose();
            }
            else
            {
                await link.CloseAsync(exception).ConfigureAwait(false);
                await link.DisposeAsync().ConfigureAwait(false);
            }

            throw;
        }
    }

    /// <summary>The next stanza and whether it is whole; null when the server has closed the stream in order.</summary>
    /// <exception cref="XmppStreamException">A stream error, of either side.</exception>
    /// <exception cref="TimeoutException">The server did not answer a ping.</exception>
    /// <exception cref="IOException">The connection is cut; <see cref="SocketException"/> likewise.</exception>
    public async ValueTask<(XElement Stanza, bool IsWhole)?> ReadAsync(CancellationToken cancellationToken)
    {
        XmppStreamItem item;
        while ((item = parser.Next()) == XmppStreamItem.Incomplete)
        {
            await ReceiveAsync(cancellationToken).ConfigureAwait(false);
        }

        if (item == XmppStreamItem.Closed)
        {
            return null;
        }

        var stanza = parser.Element!;
        return stanza.Name == XmppStanza.StreamError ? throw ToException(stanza) : (stanza, parser.IsWhole);
    }

    /// <summary>Hands the bytes to the connection; waits while the server has not taken what came before.</summary>
    /// <exception cref="XmppNotConnectedException">The link broke or is being closed.</exception>
    public async ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        await sending.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (broken.IsCancellationRequested)
            {
                throw new XmppNotConnectedException(writeFailure);
            }

            outgoing.Writer.Write(bytes.Span);
            var flush = await outgoing.Writer.FlushAsync(cancellationToken).ConfigureAwait(false);
            if (flush.IsCompleted)
            {
                throw new XmppNotConnectedException(writeFailure);
            }
        }
        finally
        {
            sending.Release();
        }
    }

    /// <summary>
    /// Ends the stream in order: what was sent before goes out, then the stream error if this side found one, then the closing
    /// tag; then waits for the server to close too. Never throws; takes no longer than the close timeout.
    /// </summary>
    public async Task CloseAsync(Exception? reason)
    {
        using var limit = new CancellationTokenSource(options.CloseTimeout, clock);
        try
        {
            var error = reason is XmppStreamException { FromServer: false, Condition: var condition }
                ? $"<stream:error><{condition} xmlns='{XmppStanza.StreamErrors}'/></stream:error>"
                : "";
            await SendAsync(Encoding.UTF8.GetBytes($"{error}</stream:stream>"), limit.Token).ConfigureAwait(false);
            await sending.WaitAsync(limit.Token).ConfigureAwait(false);
            await broken.CancelAsync().ConfigureAwait(false);
            sending.Release();
            await outgoing.Writer.CompleteAsync().ConfigureAwait(false);
            await pumping.WaitAsync(limit.Token).ConfigureAwait(false);

            // Half closed, and read to the end: closing with bytes unread would reset the connection, and the server might never
            // see what was written last.
            socket.Shutdown(SocketShutdown.Send);
            var waste = new byte[XmppStreamParser.ReadBytes];
            while (await socket.ReceiveAsync(waste, limit.Token).ConfigureAwait(false) > 0) { }
        }
        catch (Exception exception)
            when (exception is OperationCanceledException or XmppNotConnectedException or SocketException or IOException)
        {
            // The link is over either way.
        }
    }

    public async ValueTask DisposeAsync()
    {
        await broken.CancelAsync().ConfigureAwait(false);
        socket.Dispose();
        outgoing.Reader.CancelPendingRead();
        await pumping.ConfigureAwait(false);
    }

    private async ValueTask ShakeHandsAsync(CancellationToken cancellationToken)
    {
        var header =
            $"<?xml version='1.0'?><stream:stream xmlns='{XmppStanza.Component}' xmlns:stream='{XmppStanza.Streams}' "
            + $"to='{options.Domain}'>";
        await SendAsync(Encoding.UTF8.GetBytes(header), cancellationToken).ConfigureAwait(false);
        await NextAsync().ConfigureAwait(false);

        // A server that does not know the domain answers with an empty id and an error (Prosody): no digest without a challenge.
        if ((string?)parser.Element!.Attribute("id") is { Length: > 0 } streamId)
        {
            // XEP-0114 section 3: the id as text, then the secret. SHA-1 is the protocol's, not a choice.
#pragma warning disable CA5350 // XEP-0114 section 3 says SHA-1.
            var digest = Convert.ToHexStringLower(SHA1.HashData(Encoding.UTF8.GetBytes(streamId + options.Secret)));
#pragma warning restore CA5350
            await SendAsync(Encoding.UTF8.GetBytes($"<handshake>{digest}</handshake>"), cancellationToken).ConfigureAwait(false);
        }

        await NextAsync().ConfigureAwait(false);
        if (parser.Element!.Name == XmppStanza.StreamError)
        {
            throw ToException(parser.Element);
        }

        if (parser.Element.Name != XmppStanza.Handshake)
        {
            throw new XmppStreamException("not-authorized", "a stanza before the handshake was over");
        }

        parser.Authenticated();

        async ValueTask NextAsync()
        {
            XmppStreamItem item;
            while ((item = parser.Next()) == XmppStreamItem.Incomplete)
            {
                await FillAsync(cancellationToken).ConfigureAwait(false);
            }

            if (item == XmppStreamItem.Closed)
            {
                throw new EndOfStreamException("The server closed the stream before the handshake was over.");
            }
        }
    }

    // Silence is measured here only: a server is not silent while the handler keeps us from reading.
    private async ValueTask ReceiveAsync(CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, broken.Token);
        var filling = FillAsync(stop.Token).AsTask();
        try
        {
            try
            {
                await filling.WaitAsync(options.PingInterval, clock, CancellationToken.None).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                // From here on any byte is as good as the answer.
                await PingAsync(filling, stop).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (writeFailure is not null && !cancellationToken.IsCancellationRequested)
        {
            throw writeFailure;
        }
    }

    private async ValueTask PingAsync(Task filling, CancellationTokenSource stop)
    {
        using var limit = new CancellationTokenSource(options.PingTimeout, clock);
        try
        {
            await SendAsync(ping, limit.Token).ConfigureAwait(false);
            await filling.WaitAsync(limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (limit.IsCancellationRequested && !stop.IsCancellationRequested)
        {
            throw new TimeoutException($"The server did not answer a ping within {options.PingTimeout.TotalSeconds:0.###} s.");
        }
        finally
        {
            // The receive writes into the parser's buffer: it must be over, whatever the outcome.
            await stop.CancelAsync().ConfigureAwait(false);
            await filling.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async ValueTask FillAsync(CancellationToken cancellationToken)
    {
        var count = await socket.ReceiveAsync(parser.Free(), cancellationToken).ConfigureAwait(false);
        if (count == 0)
        {
            throw new EndOfStreamException("The server hung up without closing the stream.");
        }

        parser.Received(count);
    }

    // Whatever gathered while the last write was on its way goes out with the next: this is what makes small stanzas cheap.
    private async Task PumpAsync()
    {
        try
        {
            while (true)
            {
                var read = await outgoing.Reader.ReadAsync().ConfigureAwait(false);
                if (read.IsCanceled)
                {
                    return;
                }

                foreach (var segment in read.Buffer)
                {
                    await WriteAsync(segment).ConfigureAwait(false);
                }

                outgoing.Reader.AdvanceTo(read.Buffer.End);
                if (read.IsCompleted)
                {
                    return;
                }
            }
        }
        catch (Exception exception) when (exception is SocketException or TimeoutException or ObjectDisposedException)
        {
            writeFailure = exception;
        }
        finally
        {
            await outgoing.Reader.CompleteAsync().ConfigureAwait(false);
            if (writeFailure is not null)
            {
                await broken.CancelAsync().ConfigureAwait(false);
            }
        }
    }

    private async ValueTask WriteAsync(ReadOnlyMemory<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            var writing = socket.SendAsync(bytes, CancellationToken.None);
            var count = writing.IsCompleted
                ? await writing.ConfigureAwait(false)
                : await writing.AsTask().WaitAsync(options.WriteTimeout, clock).ConfigureAwait(false);
            bytes = bytes[count..];
        }
    }

    private static async ValueTask WithinAsync(
        TimeSpan limit,
        string what,
        Func<CancellationToken, ValueTask> work,
        TimeProvider clock,
        CancellationToken cancellationToken
    )
    {
        using var timer = new CancellationTokenSource(limit, clock);
        using var both = CancellationTokenSource.CreateLinkedTokenSource(timer.Token, cancellationToken);
        try
        {
            await work(both.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (timer.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new TimeoutException($"{what} within {limit.TotalSeconds:0.###} s.");
        }
    }

    // RFC 6120 section 4.9.2: one condition in the streams namespace, then perhaps a text. see-other-host's address is not looked at.
    private static XmppStreamException ToException(XElement error)
    {
        var conditions = error.Elements().Where(child => child.Name.Namespace == XmppStanza.StreamErrors).ToList();
        var condition = conditions.FirstOrDefault(child => child.Name.LocalName != "text")?.Name.LocalName ?? "undefined-condition";
        var text = conditions.FirstOrDefault(child => child.Name.LocalName == "text")?.Value;
        return new XmppStreamException(condition, text is { Length: > 200 } ? text[..200] : text, fromServer: true);
    }
}
