using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;

namespace PushRelay.Apns.Connections;

/// <summary>
/// One TCP connection to Apple, for its whole life: a handler that is not allowed to connect a second time. So a new connection is always
/// one of ours, which starts with a single request, and never one that the handler opens under hundreds of waiting ones.
/// The members under "pool" belong to <see cref="ConnectionPool"/> and are touched under its lock only.
/// </summary>
internal sealed class ApnsConnection : IDisposable
{
    /// <summary>HTTP/2 error code REFUSED_STREAM, RFC 9113 section 8.7: not processed at all.</summary>
    private const long RefusedStream = 0x7;

    /// <summary>PROTOCOL_ERROR. This and NO_ERROR are what the handler reports for a closed connection or a missing PING, not for one
    /// stream.</summary>
    private const long ProtocolError = 0x1;

    private readonly SocketsHttpHandler handler;
    private readonly HttpMessageInvoker invoker;
    private readonly Func<DnsEndPoint, CancellationToken, ValueTask<Socket>>? connect;
    private int connects;

    public ApnsConnection(ApnsClientOptions options)
    {
        connect = options.Connect;
        handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseCookies = false,
            UseProxy = false,
            AutomaticDecompression = DecompressionMethods.None,
            ActivityHeadersPropagator = null,
            EnableMultipleHttp2Connections = false,
            MaxConnectionsPerServer = 1,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            PooledConnectionLifetime = Timeout.InfiniteTimeSpan,
            ConnectTimeout = TimeSpan.FromSeconds(5),
            KeepAlivePingDelay = options.PingDelay,
            KeepAlivePingTimeout = options.PingTimeout,
            KeepAlivePingPolicy = HttpKeepAlivePingPolicy.Always,
            MaxResponseHeadersLength = 16,
            ConnectCallback = ConnectAsync,
            SslOptions = TlsOptions(options),
        };
        invoker = new HttpMessageInvoker(handler, disposeHandler: true);
    }

    // Pool.
    public int InFlight { get; set; }

    /// <summary>Timestamp of the clock after which another takes over.</summary>
    public long ReplaceAt { get; init; }

    /// <summary>An answer came: Apple lets more than one stream in.</summary>
    public bool Warm { get; set; }

    public bool Retired { get; set; }

    public int LateInARow { get; set; }

    /// <summary>
    /// Sends once. Every end but the caller's own cancellation is a value; <paramref name="deadline"/> ends with the time, and also with
    /// <paramref name="caller"/>.
    /// </summary>
    public async Task<Exchange> SendAsync(HttpRequestMessage request, CancellationToken deadline, CancellationToken caller)
    {
        var content = (PushContent)request.Content!;
        ApnsTelemetry.Streams.Add(1);
        try
        {
            using var response = await invoker.SendAsync(request, deadline).ConfigureAwait(false);
            var answer = await Answer.ReadAsync(response, deadline).ConfigureAwait(false);
            return new Exchange
            {
                End = ExchangeEnd.Answered,
                Answer = answer,
                Broken = answer.Cut,
            };
        }
        catch (OperationCanceledException) when (!caller.IsCancellationRequested)
        {
            return new Exchange
            {
                End = content.Written ? ExchangeEnd.Unknown : ExchangeEnd.Unsent,
                Reason = "timed_out",
                Late = true,
            };
        }
        catch (HttpRequestException exception)
        {
            return Failed(exception, content);
        }
        finally
        {
            ApnsTelemetry.Streams.Add(-1);
            request.Dispose();
        }
    }

    public void Dispose()
    {
        invoker.Dispose();
        handler.Dispose();
    }

    private static Exchange Failed(HttpRequestException exception, PushContent content)
    {
        if (Find<ConnectionSpentException>(exception) is not null)
        {
            // The handler tries again only what the peer has certainly not processed (streams above a GOAWAY's last one), and must not
            // here.
            return new Exchange
            {
                End = ExchangeEnd.Resend,
                Reason = "connection_lost",
                Broken = true,
                Cause = exception,
            };
        }

        if (Find<HttpProtocolException>(exception) is { } protocol && protocol.ErrorCode > ProtocolError)
        {
            return protocol.ErrorCode == RefusedStream
                ? new Exchange
                {
                    End = ExchangeEnd.Resend,
                    Reason = "stream_refused",
                    Cause = exception,
                }
                : new Exchange
                {
                    End = content.Written ? ExchangeEnd.Unknown : ExchangeEnd.Resend,
                    Reason = "stream_reset",
                    Cause = exception,
                };
        }

        if (
            exception.HttpRequestError
                is HttpRequestError.ConnectionError
                    or HttpRequestError.NameResolutionError
                    or HttpRequestError.SecureConnectionError
                    or HttpRequestError.VersionNegotiationError
            && !content.Written
        )
        {
            var reason = exception.HttpRequestError is HttpRequestError.SecureConnectionError or HttpRequestError.VersionNegotiationError
                ? "tls_failed"
                : "connect_failed";
            return new Exchange
            {
                End = ExchangeEnd.Unsent,
                Reason = reason,
                Broken = true,
                ConnectFailed = true,
                Cause = exception,
            };
        }

        return new Exchange
        {
            End = content.Written ? ExchangeEnd.Unknown : ExchangeEnd.Resend,
            Reason = "connection_lost",
            Broken = true,
            Cause = exception,
        };
    }

    private static T? Find<T>(Exception? exception)
        where T : Exception
    {
        for (; exception is not null; exception = exception.InnerException)
        {
            if (exception is T found)
            {
                return found;
            }
        }

        return null;
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        if (Interlocked.Increment(ref connects) > 1)
        {
            throw new ConnectionSpentException();
        }

        if (connect is not null)
        {
            return new CountedStream(await connect(context.DnsEndPoint, cancellationToken).ConfigureAwait(false));
        }

        // The name is resolved anew for each connection.
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(context.DnsEndPoint, cancellationToken).ConfigureAwait(false);
            return new CountedStream(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static SslClientAuthenticationOptions TlsOptions(ApnsClientOptions options)
    {
        var tls = new SslClientAuthenticationOptions();
        if (options.TrustedCertificates is { } authorities)
        {
            tls.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            tls.CertificateChainPolicy.CustomTrustStore.AddRange(authorities);
        }

        if (options.Certificate is { } certificate)
        {
            tls.ClientCertificateContext = SslStreamCertificateContext.Create(certificate, additionalCertificates: null, offline: true);
        }

        return tls;
    }

    /// <summary>Open for as long as the handler has not closed it, whatever the reason.</summary>
    private sealed class CountedStream : NetworkStream
    {
        private int closed;

        public CountedStream(Socket socket)
            : base(socket, ownsSocket: true) => ApnsTelemetry.Connections.Add(1);

        protected override void Dispose(bool disposing)
        {
            if (Interlocked.Exchange(ref closed, 1) == 0)
            {
                ApnsTelemetry.Connections.Add(-1);
            }

            base.Dispose(disposing);
        }
    }

    /// <summary>The handler asked for a second connection: the first is closed or closing.</summary>
    private sealed class ConnectionSpentException() : IOException("The connection is used up.");
}

internal enum ExchangeEnd
{
    /// <summary>A status came.</summary>
    Answered,

    /// <summary>Certainly not processed, and the way is not open now.</summary>
    Unsent,

    /// <summary>Certainly not processed; another connection may take it at once.</summary>
    Resend,

    /// <summary>Written out whole, no answer.</summary>
    Unknown,
}

/// <summary>How one request on one connection ended.</summary>
internal sealed class Exchange
{
    /// <summary>The place was given back without use, or its use was cancelled by the caller: says nothing about the connection.</summary>
    public static readonly Exchange Unused = new() { End = ExchangeEnd.Unsent };

    /// <summary>Time ran out before a stream was free.</summary>
    public static readonly Exchange NoPlace = new() { End = ExchangeEnd.Unsent, Reason = "timed_out" };

    /// <summary>Connecting is held back after failures.</summary>
    public static readonly Exchange NoWay = new() { End = ExchangeEnd.Unsent, Reason = "connect_failed" };

    public static readonly Exchange NoToken = new() { End = ExchangeEnd.Unsent, Reason = "no_provider_token" };

    public required ExchangeEnd End { get; init; }

    public Answer Answer { get; init; }

    /// <summary>Where there is no answer: why.</summary>
    public string? Reason { get; init; }

    /// <summary>No further request may go over this connection.</summary>
    public bool Broken { get; init; }

    public bool ConnectFailed { get; init; }

    public bool Late { get; init; }

    public Exception? Cause { get; init; }
}

/// <summary>The payload; knows whether all of it was handed to the connection. Before that Apple cannot have processed the
/// request.</summary>
internal sealed class PushContent(ReadOnlyMemory<byte> payload) : HttpContent
{
    private volatile bool written;

    /// <summary>END_STREAM goes out only after this.</summary>
    public bool Written => written;

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) =>
        SerializeToStreamAsync(stream, context, CancellationToken.None);

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
    {
        var writing = stream.WriteAsync(payload, cancellationToken);
        if (writing.IsCompletedSuccessfully)
        {
            written = true;
            return Task.CompletedTask;
        }

        return AwaitAsync(writing);

        async Task AwaitAsync(ValueTask unfinished)
        {
            await unfinished.ConfigureAwait(false);
            written = true;
        }
    }

    protected override bool TryComputeLength(out long length)
    {
        length = payload.Length;
        return true;
    }
}
