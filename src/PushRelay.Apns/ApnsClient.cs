using System.Globalization;
using System.Net;
using Microsoft.Extensions.Logging;
using PushRelay.Apns.Connections;

namespace PushRelay.Apns;

/// <summary>
/// Sends pushes to Apple over a few long-lived HTTP/2 connections. Safe for concurrent use; make one for each
/// <see cref="ApnsClientOptions">way to Apple</see> and keep it.
/// </summary>
public sealed partial class ApnsClient : IAsyncDisposable
{
    /// <summary>Of one push, over connections that Apple closed before processing it.</summary>
    private const int SendsMax = 10;

    private readonly ApnsClientOptions options;
    private readonly ILogger logger;
    private readonly ConnectionPool pool;
    private readonly ProviderTokens? tokens;
    private readonly string devicePath;

    /// <exception cref="ArgumentException">The options contradict each other or are out of their bounds.</exception>
    public ApnsClient(ApnsClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Key is null == options.Certificate is null)
        {
            throw new ArgumentException("Either a signing key or a certificate is needed.", nameof(options));
        }

        if (options.Certificate is { HasPrivateKey: false })
        {
            throw new ArgumentException("The certificate comes without its private key.", nameof(options));
        }

        var endpoint =
            options.Endpoint
            ?? new Uri(
                options.Environment == ApnsEnvironment.Sandbox ? "https://api.sandbox.push.apple.com" : "https://api.push.apple.com"
            );
        if (
            !endpoint.IsAbsoluteUri
            || endpoint.Scheme != Uri.UriSchemeHttps
            || endpoint.PathAndQuery != "/"
            || endpoint.UserInfo.Length > 0
        )
        {
            throw new ArgumentException("The endpoint must be https://host or https://host:port, without path or user.", nameof(options));
        }

        ArgumentOutOfRangeException.ThrowIfLessThan(options.RequestTimeout, TimeSpan.FromMilliseconds(100));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.RequestTimeout, TimeSpan.FromMinutes(5));
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ConnectionLifetime, TimeSpan.FromMinutes(1));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.ConnectionLifetime, TimeSpan.FromDays(1));
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ConnectionsMax, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.ConnectionsMax, 16);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.StreamsMax, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.StreamsMax, 1000);
        this.options = options;
        logger = options.Logger;
        devicePath = endpoint.GetLeftPart(UriPartial.Authority) + "/3/device/";
        tokens = options.Key is { } key
            ? new ProviderTokens(key, options.TokenStore ?? key.OwnTokens, options.Clock, options.Logger)
            : null;
        pool = new ConnectionPool(options);
    }

    /// <summary>Apple's clock minus this machine's; zero while they differ by less than 5 minutes.</summary>
    public TimeSpan ClockSkew => tokens?.Skew ?? TimeSpan.Zero;

    /// <summary>
    /// Sends one push and waits for Apple's answer, at most <see cref="ApnsClientOptions.RequestTimeout"/>. What Apple certainly has not
    /// processed (a stream it refused, a connection it closed first) is sent again, at most ten times in all, within that time; what
    /// it may have processed never is.
    /// </summary>
    /// <exception cref="ArgumentException">The notification is one that Apple would refuse whatever the device; the message says
    /// why.</exception>
    /// <exception cref="OperationCanceledException">The caller cancelled: whether Apple processed it is then not known.</exception>
    /// <exception cref="ObjectDisposedException">The client is closed or closing.</exception>
    public Task<ApnsResponse> SendAsync(ApnsNotification notification, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(notification);
        NotificationRules.Check(notification, byCertificate: tokens is null);
        return SendCheckedAsync(notification, cancellationToken);
    }

    /// <summary>Takes no more pushes, waits for those in flight, closes the connections.</summary>
    public async ValueTask DisposeAsync()
    {
        await pool.DisposeAsync().ConfigureAwait(false);
        tokens?.Dispose();
    }

    private async Task<ApnsResponse> SendCheckedAsync(ApnsNotification notification, CancellationToken cancellationToken)
    {
        var start = this.options.Clock.GetTimestamp();
        using var activity = ApnsTelemetry.Start(notification);
        using var deadline = new CancellationTokenSource(this.options.RequestTimeout, this.options.Clock);
        using var link = cancellationToken.UnsafeRegister(static state => ((CancellationTokenSource)state!).Cancel(), deadline);
        var renewed = false;
        ApnsResponse response;
        for (var sends = 1; ; sends++)
        {
            ApnsConnection? connection = null;
            var exchange = Exchange.Unused;
            BearerToken? bearer = null;
            try
            {
                bearer = tokens is null ? null : await tokens.GetAsync(deadline.Token).ConfigureAwait(false);
                connection = (await pool.TakeAsync(deadline.Token).ConfigureAwait(false)).Connection;
                exchange = connection is null
                    ? Exchange.NoWay
                    : await connection.SendAsync(Request(notification, bearer), deadline.Token, cancellationToken).ConfigureAwait(false);
                tokens?.Observe(exchange.Answer);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                exchange = Exchange.NoPlace;
            }
            catch (Exception exception)
                when (bearer is null && connection is null && exception is not (OperationCanceledException or ObjectDisposedException))
            {
                exchange = Exchange.NoToken;
                NoProviderToken(exception);
            }
            finally
            {
                if (connection is not null)
                {
                    pool.Return(connection, exchange);
                }
            }

            if (exchange.End == ExchangeEnd.Resend && sends < SendsMax)
            {
                continue;
            }

            response = Response(notification, start, exchange);
            if (Retires(response.KnownReason))
            {
                pool.Drop(connection!);
            }

            if (renewed || bearer is null || !tokens!.MayReplace(bearer, response.KnownReason))
            {
                break;
            }

            renewed = true;
        }

        ApnsTelemetry.Record(response, activity);
        return response;
    }

    /// <summary>Apple goes on refusing on such a connection, whatever token comes next.</summary>
    private static bool Retires(ApnsReason? reason) => reason is ApnsReason.ExpiredProviderToken or ApnsReason.TooManyProviderTokenUpdates;

    private HttpRequestMessage Request(ApnsNotification notification, BearerToken? bearer)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, devicePath + notification.DeviceToken)
        {
            Version = HttpVersion.Version20,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = new PushContent(notification.Payload),
        };
        var headers = request.Headers;
        if (bearer is not null)
        {
            headers.TryAddWithoutValidation("authorization", bearer.Header);
        }

        headers.TryAddWithoutValidation("apns-topic", NotificationRules.Topic(notification));
        headers.TryAddWithoutValidation("apns-push-type", NotificationRules.HeaderValue(notification.PushType));
        headers.TryAddWithoutValidation(
            "apns-priority",
            notification.Priority switch
            {
                10 => "10",
                5 => "5",
                _ => "1",
            }
        );
        if (notification.Expiration is { } expiration)
        {
            headers.TryAddWithoutValidation("apns-expiration", expiration.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture));
        }

        if (notification.CollapseId is { } collapseId)
        {
            headers.TryAddWithoutValidation("apns-collapse-id", collapseId);
        }

        if (notification.Id is { } id)
        {
            headers.TryAddWithoutValidation("apns-id", id.ToString("D"));
        }

        return request;
    }

    private ApnsResponse Response(ApnsNotification notification, long start, Exchange exchange)
    {
        var duration = this.options.Clock.GetElapsedTime(start);
        if (exchange.End != ExchangeEnd.Answered)
        {
            return new ApnsResponse
            {
                Outcome = exchange.End == ExchangeEnd.Unknown ? ApnsOutcome.Unknown : ApnsOutcome.Deferred,
                Reason = exchange.Reason,
                ApnsId = notification.Id,
                Duration = duration,
            };
        }

        var answer = exchange.Answer;
        var reason = ApnsAnswers.Parse(answer.Reason);
        return new ApnsResponse
        {
            Outcome = ApnsAnswers.Outcome(answer.Status, reason),
            Status = answer.Status,
            Reason = answer.Reason,
            KnownReason = reason,
            ApnsId = answer.ApnsId ?? notification.Id,
            ApnsUniqueId = answer.ApnsUniqueId,
            InvalidSince = answer.Status == 410 ? answer.Timestamp : null,
            RetryAfter = answer.RetryAfter is null ? null : answer.RetryDelay(this.options.Clock.GetUtcNow()),
            Duration = duration,
        };
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "No provider token can be had from the token store: pushes are deferred")]
    private partial void NoProviderToken(Exception exception);
}
