using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Apps;
using PushRelay.Push.Connections;
using PushRelay.Push.Encryption;

namespace PushRelay.Push.WebPush;

/// <summary>
/// Web Push (RFC 8030) to any push service, also for UnifiedPush: always encrypted, each service a lane of its own, so that a slow one
/// holds up nobody.
/// </summary>
internal sealed class WebPushNetwork : IPushNetwork, IDisposable
{
    public const string Name = "webpush";

    // the record that Firefox on Android takes over its bridge
    private const int BridgedBytesMax = 2744;

    // to one push service
    private const int ConnectionsMax = 16;
    private const int TtlSecondsMax = 2_419_200;
    private const int LaneCharsMax = 200;

    private readonly Dictionary<string, Sender> senders = new(StringComparer.Ordinal);
    private readonly TimeProvider clock;

    public WebPushNetwork(AppCatalog apps, PushConnector connector, TimeProvider clock)
    {
        this.clock = clock;
        foreach (var app in apps.Apps)
        {
            if (app.Network<WebPushOptions>() is { } options)
            {
                senders.Add(app.Id, new Sender(app, options, connector, clock));
            }
        }
    }

    public string Platform => Name;

    public IReadOnlyCollection<string> Apps => senders.Keys;

    /// <summary>A push service that swallows requests holds so many of the app's, until its circuit opens.</summary>
    public int? InFlightPerLaneMax => 50;

    /// <summary>What a browser needs to subscribe; null: the app is not configured for Web Push.</summary>
    public string? PublicKeyOf(string app) => senders.GetValueOrDefault(app)?.Key.PublicKey;

    public TokenCheck Check(PushAddress address)
    {
        var (given, errors) = (address.Tokens, new Dictionary<string, string>(StringComparer.Ordinal));
        foreach (
            var (channel, field) in (ReadOnlySpan<(string, string)>)
                [(Channels.Alert, "token"), (Channels.Call, "voipToken"), (Channels.PublicKey, "encryption"), (Channels.Auth, "encryption")]
        )
        {
            if (given.ContainsKey(channel))
            {
                errors[field] = "is not for platform \"webpush\", whose subscription has all that is needed";
            }
        }

        if (address.Environment is not null)
        {
            errors["environment"] = NetworkFields.EnvironmentRefused;
        }

        if (!given.Keys.Any(key => key.StartsWith(SubscriptionFields.Subscription, StringComparison.Ordinal)))
        {
            errors[SubscriptionFields.Subscription] = "is missing";
            return new TokenCheck.Refused(errors);
        }

        NetworkFields.CheckKeys(given, SubscriptionFields.PublicKey, SubscriptionFields.Auth, errors);
        if (!PushEndpoint.TryRead(given.GetValueOrDefault(SubscriptionFields.Endpoint), out var endpoint))
        {
            errors[SubscriptionFields.Endpoint] = given.ContainsKey(SubscriptionFields.Endpoint) ? PushEndpoint.Must : "is missing";
        }
        else if (senders.TryGetValue(address.App, out var sender) && !endpoint.IsAmong(sender.AllowedHosts))
        {
            errors[SubscriptionFields.Endpoint] = "is of a push service that is not among setting AllowedHosts";
        }

        if (given.TryGetValue(SubscriptionFields.Expires, out var expires) && Instant(expires) is null)
        {
            errors[SubscriptionFields.Expires] = "must be milliseconds since 1970, or null";
        }

        if (errors.Count > 0)
        {
            return new TokenCheck.Refused(errors);
        }

        var tokens = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            [Channels.Alert] = endpoint!.Url.AbsoluteUri,
            [Channels.PublicKey] = given[SubscriptionFields.PublicKey],
            [Channels.Auth] = given[SubscriptionFields.Auth],
        };
        if (expires is not null)
        {
            tokens[Channels.Expires] = expires;
        }

        return new TokenCheck.Usable(address with { Tokens = tokens }, LaneOf(address.App, endpoint));
    }

    public async Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken)
    {
        if (!senders.TryGetValue(notification.Address.App, out var sender))
        {
            return new PushResult.Later(Fault.Credentials, null, WebPushAnswers.Code("app_not_configured"), null, TimeSpan.Zero);
        }

        var tokens = notification.Address.Tokens;
        if (!PushEndpoint.TryRead(tokens[Channels.Alert], out var endpoint) || SealedAlert.KeysOf(notification.Address) is not { } keys)
        {
            return new PushResult.TokenDead(Channels.Alert, null, WebPushAnswers.Code("bad_subscription"), null, TimeSpan.Zero);
        }

        if (tokens.TryGetValue(Channels.Expires, out var expires) && Instant(expires) <= clock.GetUtcNow())
        {
            return new PushResult.TokenDead(Channels.Alert, null, WebPushAnswers.Code("expired"), null, TimeSpan.Zero);
        }

        // asked again: the list may have become shorter since
        return endpoint.IsAmong(sender.AllowedHosts)
            ? await sender.SendAsync(notification, endpoint, keys, cancellationToken)
            : new PushResult.Refused(WebPushAnswers.Code("host_not_allowed"), null, TimeSpan.Zero);
    }

    public string? Cure(string code) =>
        PushCode.WordOf(code) switch
        {
            "401" or "403" => "check PrivateKeyFile of this app (subscriptions are bound to it), Subject, and this machine's clock",
            "blocked_address" => "set AllowPrivateNetworks of this app where push services stand inside of your network",
            "host_not_allowed" => "add the push service to AllowedHosts of this app",
            "app_not_configured" => "add the section WebPush to this app in setting Apps",
            var word => NetworkFields.ReachCure(word),
        };

    public void Dispose()
    {
        foreach (var sender in senders.Values)
        {
            sender.Dispose();
        }
    }

    /// <summary>By the service's name; one of those that nobody would write is shortened to what is still its own.</summary>
    private static Lane LaneOf(string app, PushEndpoint endpoint)
    {
        var host =
            endpoint.Host.Length <= LaneCharsMax
                ? endpoint.Host
                : endpoint.Host[..32]
                    + "~"
                    + Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(endpoint.Host)).AsSpan(0, 16));
        return new Lane($"{app}/{Name}/{host}");
    }

    private static DateTimeOffset? Instant(string text) =>
        long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var milliseconds)
        && milliseconds <= DateTimeOffset.MaxValue.ToUnixTimeMilliseconds()
            ? DateTimeOffset.FromUnixTimeMilliseconds(milliseconds)
            : null;

    /// <summary>One app's way to push services.</summary>
    private sealed class Sender : IDisposable
    {
        private readonly PushClient client;
        private readonly AlertOptions alert;
        private readonly TimeProvider clock;

        public Sender(App app, WebPushOptions options, PushConnector connector, TimeProvider clock)
        {
            this.clock = clock;
            alert = app.Alert;
            Key = options.OpenKey();
            AllowedHosts = options.AllowedHosts;
            // the hosts are strangers' choice, but for those that the operator lists
            var mayLeaveToProxy = options.AllowedHosts.Count > 0;
            client = new PushClient(
                options.AllowPrivateNetworks
                    ? connector.ConnectAsync
                    : (host, cancellationToken) => connector.ConnectPublicAsync(host, mayLeaveToProxy, cancellationToken),
                NetworkSettings.OpenCertificates(options.TrustedCertificateFile),
                ConnectionsMax,
                clock
            );
        }

        public VapidKey Key { get; }

        public IReadOnlyCollection<string> AllowedHosts { get; }

        public async Task<PushResult> SendAsync(
            Notification notification,
            PushEndpoint endpoint,
            ReceiverKeys keys,
            CancellationToken cancellationToken
        )
        {
            var started = clock.GetTimestamp();
            var members = AlertMembers.Of(notification, alert);
            PushResult? result = null;
            foreach (var bytesMax in (int[])[MessageEncryption.MessageBytesMax, BridgedBytesMax])
            {
                if (members.Fit(MessageEncryption.TextBytesMax(bytesMax), m => m.ToJson()) is not { } text)
                {
                    return result ?? new PushResult.Refused(WebPushAnswers.Code("413"), null, TimeSpan.Zero);
                }

                var message = MessageEncryption.Encrypt(text, keys, bytesMax);
                var exchange = await AskAsync(notification, members, endpoint, message, started, cancellationToken);
                result = WebPushAnswers.Read(endpoint, exchange, clock.GetUtcNow()) with { Duration = clock.GetElapsedTime(started) };
                if (result.Status != 413 || message.Length <= BridgedBytesMax)
                {
                    break;
                }
            }

            return result!;
        }

        public void Dispose()
        {
            client.Dispose();
            Key.Dispose();
        }

        private static string UrgencyOf(Notification notification, AlertMembers members) =>
            members.Background && notification.Kind == PushKind.Wakeup ? "low"
            : notification.Update || notification.Calm || members.Background ? "normal"
            : "high";

        private Task<PushExchange> AskAsync(
            Notification notification,
            AlertMembers members,
            PushEndpoint endpoint,
            byte[] message,
            long started,
            CancellationToken cancellationToken
        )
        {
            var now = clock.GetUtcNow();
            // Apple and Microsoft take none of 0
            var ttl = Math.Clamp((long)(notification.ExpiresAt - now).TotalSeconds, 1, TtlSecondsMax);
            var request = new HttpRequestMessage(HttpMethod.Post, endpoint.Url);
            var headers = request.Headers;
            headers.TryAddWithoutValidation("Authorization", Key.Authorization(endpoint.Origin, now));
            headers.TryAddWithoutValidation("TTL", ttl.ToString(CultureInfo.InvariantCulture));
            headers.TryAddWithoutValidation("Urgency", UrgencyOf(notification, members));
            // Apple decodes it as base64: 32 letters are 24 bytes and have no padding
            headers.TryAddWithoutValidation(
                "Topic",
                Base64Url.EncodeToString(SHA256.HashData(Encoding.UTF8.GetBytes(members.Collapse)).AsSpan(0, 24))
            );
            return client.SendAsync(
                request,
                new BodyContent(message, "application/octet-stream", "aes128gcm"),
                PushNetworks.AnswerMax - clock.GetElapsedTime(started),
                cancellationToken
            );
        }
    }
}
