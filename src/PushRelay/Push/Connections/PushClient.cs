using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using PushRelay.Telemetry;

namespace PushRelay.Push.Connections;

/// <summary>How one request ended.</summary>
internal abstract record PushExchange(TimeSpan Duration)
{
    /// <summary>A status came.</summary>
    /// <param name="Body">At most 16 KiB of it.</param>
    /// <param name="IsCut">The body is not whole.</param>
    public sealed record Answered(int Status, HttpResponseHeaders Headers, ReadOnlyMemory<byte> Body, bool IsCut, TimeSpan Duration)
        : PushExchange(Duration)
    {
        public string? Header(string name) => Headers.NonValidated.TryGetValues(name, out var values) ? values.First() : null;

        /// <summary>How long the network asks to wait; null where it does not.</summary>
        public TimeSpan? RetryAfter(DateTimeOffset now) => Connections.RetryAfter.Read(Header("Retry-After"), Header("Date"), now);
    }

    /// <summary>No status came.</summary>
    /// <param name="Word">Why, in snake_case.</param>
    /// <param name="WasSent">It was written out whole: it may have been processed.</param>
    public sealed record Unanswered(string Word, bool WasSent, Exception? Cause, TimeSpan Duration) : PushExchange(Duration)
    {
        public PushResult Result(string platform) =>
            WasSent
                ? new PushResult.Unknown($"{platform}_{Word}", Duration)
                : new PushResult.Later(Fault.Outage, null, $"{platform}_{Word}", null, Duration);
    }
}

/// <summary>
/// Sends the requests of one push network over HTTP/2 or 1.1. Follows no redirect, keeps no cookie, reads no more than it must, and repeats
/// nothing that may have been processed. Thread-safe.
/// </summary>
internal sealed class PushClient : IDisposable
{
    private const int BodyBytesMax = 16 * 1024;
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    private readonly HttpMessageInvoker invoker;
    private readonly TimeProvider clock;
    private readonly ClockSkew? skew;

    /// <param name="connect">Opens the connections.</param>
    /// <param name="trusted">A private authority instead of the system's; null: the system's. Names are checked always.</param>
    /// <param name="connectionsMax">To one host.</param>
    /// <param name="skew">Learns the time of the answers; null: the hosts are not known to have the right one.</param>
    public PushClient(
        Func<DnsEndPoint, CancellationToken, ValueTask<Socket>> connect,
        X509Certificate2Collection? trusted,
        int connectionsMax,
        TimeProvider clock,
        ClockSkew? skew = null
    )
    {
        this.skew = skew;
        this.clock = clock;
        invoker = new HttpMessageInvoker(
            new SocketsHttpHandler
            {
                AllowAutoRedirect = false,
                UseCookies = false,
                UseProxy = false,
                AutomaticDecompression = DecompressionMethods.None,
                ActivityHeadersPropagator = null,
                EnableMultipleHttp2Connections = true,
                MaxConnectionsPerServer = connectionsMax,
                MaxResponseHeadersLength = 16,
                MaxResponseDrainSize = 0,
                ConnectTimeout = ConnectTimeout,
                // asks the name service anew, and closes what nobody needs
                PooledConnectionLifetime = TimeSpan.FromMinutes(10),
                PooledConnectionIdleTimeout = TimeSpan.FromMinutes(1),
                // a connection whose packets vanish is used for ever otherwise
                KeepAlivePingDelay = TimeSpan.FromSeconds(10),
                KeepAlivePingTimeout = TimeSpan.FromSeconds(5),
                KeepAlivePingPolicy = HttpKeepAlivePingPolicy.Always,
                ConnectCallback = async (context, cancellationToken) =>
                    new NetworkStream(await connect(context.DnsEndPoint, cancellationToken), ownsSocket: true),
                SslOptions = TlsOptions(trusted),
            },
            disposeHandler: true
        );
    }

    /// <summary>Sends once. Every end but the caller's own cancellation is a value.</summary>
    /// <param name="request">Disposed of after it.</param>
    /// <param name="body">Of the request.</param>
    /// <param name="timeout">From the call to the answer's last byte; none where it is over.</param>
    /// <param name="cancellationToken">Ends it without an answer.</param>
    public async Task<PushExchange> SendAsync(
        HttpRequestMessage request,
        BodyContent body,
        TimeSpan timeout,
        CancellationToken cancellationToken
    )
    {
        var started = clock.GetTimestamp();
        using var deadline = new CancellationTokenSource(timeout > TimeSpan.Zero ? timeout : TimeSpan.Zero, clock);
        await using var link = cancellationToken.UnsafeRegister(static state => ((CancellationTokenSource)state!).Cancel(), deadline);
        request.Version = HttpVersion.Version20;
        request.VersionPolicy = HttpVersionPolicy.RequestVersionOrLower;
        request.Content = body;
        try
        {
            using var response = await invoker.SendAsync(request, deadline.Token);
            if (response.Headers.Date is { } date)
            {
                skew?.Observe(ClockSkew.Network, clock.GetUtcNow() - date);
            }

            var (text, isCut) = await ReadAsync(response.Content, deadline.Token);
            return new PushExchange.Answered((int)response.StatusCode, response.Headers, text, isCut, clock.GetElapsedTime(started));
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new PushExchange.Unanswered("timed_out", body.IsWritten, null, clock.GetElapsedTime(started));
        }
        catch (HttpRequestException exception)
        {
            return new PushExchange.Unanswered(Word(exception), body.IsWritten, exception, clock.GetElapsedTime(started));
        }
        finally
        {
            request.Dispose();
        }
    }

    public void Dispose() => invoker.Dispose();

    private static SslClientAuthenticationOptions TlsOptions(X509Certificate2Collection? trusted)
    {
        var tls = new SslClientAuthenticationOptions();
        if (trusted is not null)
        {
            tls.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            tls.CertificateChainPolicy.CustomTrustStore.AddRange(trusted);
        }

        return tls;
    }

    /// <summary>Cut in the middle of its body an answer is an answer all the same: the status is there.</summary>
    private static async Task<(ReadOnlyMemory<byte> Body, bool IsCut)> ReadAsync(HttpContent content, CancellationToken cancellationToken)
    {
        var body = new byte[content.Headers.ContentLength is >= 0 and < BodyBytesMax and var length ? (int)length : BodyBytesMax];
        var read = 0;
        try
        {
            await using var stream = await content.ReadAsStreamAsync(cancellationToken);
            while (read < body.Length)
            {
                var bytes = await stream.ReadAsync(body.AsMemory(read), cancellationToken);
                if (bytes == 0)
                {
                    return (body.AsMemory(0, read), content.Headers.ContentLength > read);
                }

                read += bytes;
            }
        }
        catch (Exception exception) when (exception is IOException or HttpRequestException or OperationCanceledException)
        {
            return (body.AsMemory(0, read), true);
        }

        return (body, read == BodyBytesMax);
    }

    private static string Word(HttpRequestException exception)
    {
        for (Exception? cause = exception; cause is not null; cause = cause.InnerException)
        {
            switch (cause)
            {
                case BlockedAddressException:
                    return "blocked_address";
                case ProxyRefusedException:
                    return "proxy_refused";
                case SocketException { SocketErrorCode: SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain }:
                    return "name_unknown";
            }
        }

        return exception.HttpRequestError switch
        {
            HttpRequestError.SecureConnectionError or HttpRequestError.VersionNegotiationError => "tls_failed",
            HttpRequestError.NameResolutionError => "name_unknown",
            HttpRequestError.ConnectionError => "connect_failed",
            _ => "connection_lost",
        };
    }
}

/// <summary>The body of a request; knows whether all of it was handed to the connection: before, nothing can have been processed.</summary>
internal sealed class BodyContent : HttpContent
{
    private readonly ReadOnlyMemory<byte> body;
    private volatile bool isWritten;

    public BodyContent(ReadOnlyMemory<byte> body, string contentType, string? contentEncoding = null)
    {
        this.body = body;
        Headers.TryAddWithoutValidation("Content-Type", contentType);
        if (contentEncoding is not null)
        {
            Headers.TryAddWithoutValidation("Content-Encoding", contentEncoding);
        }
    }

    public bool IsWritten => isWritten;

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) =>
        SerializeToStreamAsync(stream, context, CancellationToken.None);

    protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
    {
        await stream.WriteAsync(body, cancellationToken);
        isWritten = true;
    }

    protected override bool TryComputeLength(out long length)
    {
        length = body.Length;
        return true;
    }
}
