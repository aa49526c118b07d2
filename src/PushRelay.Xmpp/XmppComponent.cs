using System.Net.Sockets;
using System.Xml.Linq;
using Microsoft.Extensions.Logging;

namespace PushRelay.Xmpp;

/// <summary>
/// A component of an XMPP server (XEP-0114): keeps one link to it, hands every stanza to the handler, sends the handler's,
/// answers pings, and connects again for as long as it runs. See-other-host is never followed.
/// </summary>
public sealed partial class XmppComponent : IAsyncDisposable
{
    private static readonly TimeSpan DisconnectedTimeout = TimeSpan.FromSeconds(5);

    private readonly XmppComponentOptions options;
    private readonly IXmppComponentHandler handler;
    private readonly TimeProvider clock;
    private readonly ILogger<XmppComponent> logger;
    private readonly XmppNames names;
    private readonly StanzaGate gate;
    private readonly CancellationTokenSource disposed = new();
    private readonly TaskCompletionSource finished = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Connection? connection;
    private int started;

    /// <exception cref="ArgumentException">An option is missing or out of its range; the message names it.</exception>
    public XmppComponent(XmppComponentOptions options, IXmppComponentHandler handler, TimeProvider clock, ILogger<XmppComponent> logger)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        this.options = options;
        this.handler = handler;
        this.clock = clock;
        this.logger = logger;
        names = new XmppNames(options.KnownNames, options.NamesMax);
        gate = new StanzaGate(options);
    }

    /// <summary>Connects, shakes hands and closes the stream again; the link that another component of the domain may have can suffer by
    /// it.</summary>
    /// <exception cref="XmppStreamException">The server refused, or is no component port.</exception>
    /// <exception cref="SocketException">No connection.</exception>
    /// <exception cref="TimeoutException">One of the two time limits passed.</exception>
    /// <exception cref="IOException">The server hung up.</exception>
    public static async Task ProbeAsync(XmppComponentOptions options, TimeProvider clock, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        var link = await ComponentConnection
            .OpenAsync(options, new XmppNames(options.KnownNames, options.NamesMax), clock, cancellationToken)
            .ConfigureAwait(false);
        await using (link.ConfigureAwait(false))
        {
            await link.CloseAsync(null).ConfigureAwait(false);
        }
    }

    /// <summary>True from the end of the handshake to the end of the link.</summary>
    public bool IsConnected => Volatile.Read(ref connection) is not null;

    /// <summary>When the handshake of the present link was over; null without a link.</summary>
    public DateTimeOffset? ConnectedSince => Volatile.Read(ref connection)?.Since;

    /// <summary>
    /// Connects, hands over stanzas and connects again until stopped, then closes the stream in order. Does not throw for
    /// stopping. To be called once.
    /// </summary>
    /// <exception cref="InvalidOperationException">It has been called before.</exception>
    public async Task RunAsync(CancellationToken stoppingToken)
    {
        if (Interlocked.Exchange(ref started, 1) != 0)
        {
            throw new InvalidOperationException("A component runs once.");
        }

        using var stop = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken, disposed.Token);
        var policy = new ReconnectPolicy(options);
        try
        {
            while (!stop.IsCancellationRequested)
            {
                var (reason, held) = await RunLinkAsync(stop.Token).ConfigureAwait(false);
                if (!stop.IsCancellationRequested)
                {
                    var delay = policy.Next(reason, held, Random.Shared.NextDouble());
                    LogEnd(reason, delay);
                    await Task.Delay(delay, clock, stop.Token).ConfigureAwait(false);
                }
            }
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // Stopped between two links.
        }
        finally
        {
            finished.TrySetResult();
        }
    }

    /// <summary>
    /// Hands a stanza to the link; any thread, any number at once; the order of calls that do not overlap is kept. Returns when
    /// the bytes are on their way, not when the server has them. Without a <c>from</c> the component's domain is written. Once
    /// cancelled it may still go out.
    /// </summary>
    /// <param name="stanza"><c>message</c>, <c>iq</c> or <c>presence</c> in <see cref="XmppStanza.Component"/>, with a <c>to</c>. Not
    /// changed.</param>
    /// <param name="cancellationToken">Ends the wait for space in the send buffer.</param>
    /// <exception cref="XmppNotConnectedException">There is no link, or it broke meanwhile.</exception>
    /// <exception cref="ArgumentException">It is no such stanza, over <see cref="XmppComponentOptions.StanzaBytesMax"/>, or holds what XML
    /// cannot.</exception>
    public ValueTask SendAsync(XElement stanza, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(stanza);
        var bytes = XmppStanzaWriter.Write(stanza, options);
        return (Volatile.Read(ref connection) ?? throw new XmppNotConnectedException()).Link.SendAsync(bytes, cancellationToken);
    }

    /// <summary>Stops <see cref="RunAsync"/> and waits for its end.</summary>
    public async ValueTask DisposeAsync()
    {
        await disposed.CancelAsync().ConfigureAwait(false);
        if (Volatile.Read(ref started) != 0)
        {
            await finished.Task.ConfigureAwait(false);
        }
    }

    private async Task<(Exception? Reason, TimeSpan Held)> RunLinkAsync(CancellationToken stopping)
    {
        ComponentConnection link;
        try
        {
            link = await ComponentConnection.OpenAsync(options, names, clock, stopping).ConfigureAwait(false);
        }
        catch (Exception exception)
            when (exception is SocketException or IOException or TimeoutException or XmppStreamException or XmppNotConnectedException)
        {
            return (exception, TimeSpan.Zero);
        }

        var since = clock.GetTimestamp();
        Exception? reason = null;
        await using (link.ConfigureAwait(false))
        {
            Volatile.Write(ref connection, new Connection(link, clock.GetUtcNow()));
            LogConnected(options.Domain, options.Host, options.Port);
            try
            {
                await handler.ConnectedAsync(stopping).ConfigureAwait(false);
                while (await link.ReadAsync(stopping).ConfigureAwait(false) is var (stanza, isWhole))
                {
                    await HandleAsync(link, stanza, isWhole, stopping).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException) when (stopping.IsCancellationRequested)
            {
                LogStopping(options.Domain);
            }
#pragma warning disable CA1031 // The one place that ends a link, whatever broke it; the reason goes to the handler and the log.
            catch (Exception exception)
#pragma warning restore CA1031
            {
                reason = exception;
            }

            Volatile.Write(ref connection, null);
            // Side by side: the handler is called at once, not after the wait for a server that may be dead.
            var closing = link.CloseAsync(reason);
            await DisconnectedAsync(reason).ConfigureAwait(false);
            await closing.ConfigureAwait(false);
        }

        return (reason, clock.GetElapsedTime(since));
    }

    private async ValueTask HandleAsync(ComponentConnection link, XElement stanza, bool isWhole, CancellationToken stopping)
    {
        var verdict = gate.Classify(stanza, isWhole);
        if (verdict is StanzaVerdict.HandOver)
        {
            verdict = await HandOverAsync(stanza, stopping).ConfigureAwait(false);
        }

        if (verdict is not (StanzaVerdict.Done or StanzaVerdict.Pong) && gate.FirstOfItsKind(stanza, verdict) is { } kind)
        {
            LogNotHandled(kind, verdict);
        }

        if (StanzaGate.Answer(stanza, verdict) is { } answer && TryWrite(answer) is { } bytes)
        {
            await link.SendAsync(bytes, stopping).ConfigureAwait(false);
        }
    }

    private async ValueTask<StanzaVerdict> HandOverAsync(XElement stanza, CancellationToken stopping)
    {
        try
        {
            return await handler.StanzaAsync(stanza, stopping).ConfigureAwait(false) ? StanzaVerdict.Done : StanzaVerdict.Unhandled;
        }
#pragma warning disable CA1031 // One stanza must not end the link.
        catch (Exception exception) when (!stopping.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogHandlerFailed(stanza.Name.LocalName, exception);
            return StanzaVerdict.Failed;
        }
    }

    // An id that is nearly a stanza long and grows when it is escaped again fits into no answer; its sender gets none.
    private byte[]? TryWrite(XElement answer)
    {
        try
        {
            return XmppStanzaWriter.Write(answer, options);
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    private async ValueTask DisconnectedAsync(Exception? reason)
    {
        using var limit = new CancellationTokenSource(DisconnectedTimeout, clock);
        try
        {
            await handler.DisconnectedAsync(reason, limit.Token).ConfigureAwait(false);
        }
#pragma warning disable CA1031 // The next link matters more than what the handler makes of the last one's end.
        catch (Exception exception)
#pragma warning restore CA1031
        {
            LogHandlerFailed("disconnected", exception);
        }
    }

    private void LogEnd(Exception? reason, TimeSpan delay)
    {
        switch (reason)
        {
            case XmppStreamException { FromServer: true, Condition: "not-authorized" }:
                LogWrongSecret(options.Domain, options.Host, options.Port, delay);
                break;
            case XmppStreamException { FromServer: true, Condition: "host-unknown" }:
                LogUnknownDomain(options.Domain, options.Host, options.Port, delay);
                break;
            case XmppStreamException { FromServer: true, Condition: "conflict" }:
                LogConflict(options.Domain, options.Host, options.Port, delay);
                break;
            case null:
                LogClosed(options.Domain, options.Host, options.Port, delay);
                break;
            case SocketException or IOException or TimeoutException or XmppStreamException or XmppNotConnectedException:
                LogLost(options.Domain, options.Host, options.Port, reason.Message, delay);
                break;
            default:
                LogFailed(options.Domain, options.Host, options.Port, delay, reason);
                break;
        }

        if (reason is XmppStreamException { Text: { } text })
        {
            LogServerText(text);
        }
    }

    private sealed record Connection(ComponentConnection Link, DateTimeOffset Since);

    [LoggerMessage(Level = LogLevel.Information, Message = "The component {Domain} is linked to the server at {Host}:{Port}")]
    private partial void LogConnected(string domain, string host, int port);

    [LoggerMessage(Level = LogLevel.Information, Message = "The component {Domain} is stopping")]
    private partial void LogStopping(string domain);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The server at {Host}:{Port} refuses the secret of the component {Domain}: the component's setting Secret must be "
            + "what the server has (Prosody: component_secret, ejabberd: password). Next attempt in {Delay}"
    )]
    private partial void LogWrongSecret(string domain, string host, int port, TimeSpan delay);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The server at {Host}:{Port} knows no component {Domain}: the component's setting Domain must be what the server has "
            + "(Prosody: Component \"...\", ejabberd: hosts of ejabberd_service). Next attempt in {Delay}"
    )]
    private partial void LogUnknownDomain(string domain, string host, int port, TimeSpan delay);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Another link holds the component {Domain} at {Host}:{Port}. Next attempt in {Delay}"
    )]
    private partial void LogConflict(string domain, string host, int port, TimeSpan delay);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The server at {Host}:{Port} closed the link of the component {Domain}. Next attempt in {Delay}"
    )]
    private partial void LogClosed(string domain, string host, int port, TimeSpan delay);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The component {Domain} has no link to the server at {Host}:{Port}: {Reason}. Next attempt in {Delay}"
    )]
    private partial void LogLost(string domain, string host, int port, string reason, TimeSpan delay);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The link of the component {Domain} to {Host}:{Port} was given up because of a fault on this side. Next attempt "
            + "in {Delay}"
    )]
    private partial void LogFailed(string domain, string host, int port, TimeSpan delay, Exception reason);

    [LoggerMessage(Level = LogLevel.Debug, Message = "The stream error's text: {Text}")]
    private partial void LogServerText(string text);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "A stanza is not handled ({Verdict}); further ones of its kind are not logged: {Kind}"
    )]
    private partial void LogNotHandled(string kind, StanzaVerdict verdict);

    [LoggerMessage(Level = LogLevel.Error, Message = "The handler failed at {Call}: it is passed over, the link stays")]
    private partial void LogHandlerFailed(string call, Exception exception);
}
