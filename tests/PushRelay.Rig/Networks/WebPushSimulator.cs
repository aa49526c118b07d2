using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http;

namespace PushRelay.Rig.Networks;

/// <summary>Whose ways a push service has.</summary>
public enum SubscriptionService
{
    Mozilla,
    Google,
    Microsoft,
    Apple,
    Ntfy,
}

/// <summary>A message as the browser gets it: decrypted.</summary>
internal sealed record WebPushReceived(PushSubscription Subscription, byte[] Text, int BodyBytes, int Ttl, string? Urgency, string? Topic)
{
    public JsonObject Json => JsonNode.Parse(Text)!.AsObject();
}

/// <summary>One browser's, or one UnifiedPush app's, subscription.</summary>
internal sealed class PushSubscription(string id, Uri endpoint, string? serverKey) : IDisposable
{
    public string Id { get; } = id;

    public Uri Endpoint { get; } = endpoint;

    /// <summary>The VAPID key it is bound to; null: to the first that is shown.</summary>
    public string? ServerKey { get; set; } = serverKey;

    public PushSubscriber Subscriber { get; } = new();

    public bool Gone { get; set; }

    /// <summary>As <c>PushSubscription.toJSON()</c> gives it.</summary>
    public JsonObject ToJson() =>
        new()
        {
            ["endpoint"] = Endpoint.AbsoluteUri,
            ["expirationTime"] = null,
            ["keys"] = new JsonObject { ["p256dh"] = Subscriber.P256dh, ["auth"] = Subscriber.Auth },
        };

    public void Dispose() => Subscriber.Dispose();
}

/// <summary>
/// A push service with the ways of one of those in the field: checks TTL, urgency, topic, coding, size and VAPID as it does, in its words,
/// and decrypts what it takes.
/// </summary>
internal sealed partial class WebPushSimulator(
    SubscriptionService service,
    TimeProvider? clock = null,
    params IEnumerable<string> hostNames
) : NetworkServer(clock ?? TimeProvider.System, hostNames)
{
    private const int BodyBytesMax = 4096;
    private const int TopicCharsMax = 32;
    private const int TtlMax = 2_592_000;

    private readonly ConcurrentDictionary<string, PushSubscription> subscriptions = new();
    private readonly ConcurrentQueue<WebPushReceived> received = new();
    private readonly ConcurrentQueue<WebPushReceived> asked = new();

    /// <summary>What was taken, oldest first.</summary>
    public IReadOnlyList<WebPushReceived> Received => [.. received];

    /// <summary>The same, and what was answered otherwise on order.</summary>
    public IReadOnlyList<WebPushReceived> Asked => [.. asked];

    /// <summary>The host of new endpoints, one of the names of the certificate.</summary>
    public string HostName { get; init; } = "localhost";

    private string ServiceOrigin => $"https://{HostName}:{Port}";

    public PushSubscription Subscribe(string? serverKey = null)
    {
        var id = "/wpush/v2/" + Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(24));
        var subscription = new PushSubscription(id, new Uri(ServiceOrigin + id), serverKey);
        subscriptions[id] = subscription;
        return subscription;
    }

    protected override async Task HandleAsync(HttpContext context, byte[] body)
    {
        if (!subscriptions.TryGetValue(context.Request.Path.Value!, out var subscription) || context.Request.Method != "POST")
        {
            await RefuseAsync(context, Refusal.NotFound);
            return;
        }

        if (Check(context.Request, subscription, body, out var message) is { } refusal)
        {
            await RefuseAsync(context, refusal);
            return;
        }

        asked.Enqueue(message!);
        var rule = NextRule(subscription.Id);
        if (rule is null or { Processed: true })
        {
            received.Enqueue(message!);
        }

        await (rule is null ? TakeAsync(context, message!) : AnswerByRuleAsync(context, rule));
    }

    private Refusal? Check(HttpRequest request, PushSubscription subscription, byte[] body, out WebPushReceived? message)
    {
        message = null;
        var headers = request.Headers;
        if (subscription.Gone)
        {
            return Refusal.Gone;
        }

        // ntfy knows no VAPID and no TTL
        var vapid = VapidCheck.Read(headers.Authorization, ServiceOrigin, Clock.GetUtcNow());
        if (service != SubscriptionService.Ntfy)
        {
            if (vapid.Fault is not null)
            {
                return Refusal.BadCredentials;
            }

            subscription.ServerKey ??= vapid.PublicKey;
            if (subscription.ServerKey != vapid.PublicKey)
            {
                return Refusal.OtherKey;
            }
        }

        if (
            !int.TryParse(headers["TTL"], NumberStyles.None, CultureInfo.InvariantCulture, out var ttl)
            && service != SubscriptionService.Ntfy
        )
        {
            return Refusal.BadTtl;
        }

        if ((service == SubscriptionService.Microsoft && ttl == 0) || (service == SubscriptionService.Apple && ttl is 0 or > TtlMax))
        {
            return Refusal.BadTtl;
        }

        var (urgency, topic) = ((string?)headers["Urgency"], (string?)headers["Topic"]);
        if (urgency is not (null or "very-low" or "low" or "normal" or "high"))
        {
            return Refusal.BadUrgency;
        }

        if (topic is not null && (topic.Length > TopicCharsMax || !TopicForm().IsMatch(topic) || !IsTopic(topic)))
        {
            return Refusal.BadTopic;
        }

        if (body.Length > BodyBytesMax)
        {
            return Refusal.TooLarge;
        }

        if (headers.ContentEncoding != "aes128gcm" || request.ContentType != "application/octet-stream")
        {
            return Refusal.BadCoding;
        }

        try
        {
            message = new WebPushReceived(
                subscription,
                subscription.Subscriber.Open(body),
                body.Length,
                Math.Min(ttl, TtlMax),
                urgency,
                topic
            );
            return null;
        }
        catch (CryptographicException)
        {
            // a push service cannot know, but a browser would drop it: the test must see it
            return Refusal.BadCoding;
        }
    }

    /// <summary>Apple decodes it as base64.</summary>
    private bool IsTopic(string topic) => service != SubscriptionService.Apple || Base64Url.IsValid(topic);

    private Task TakeAsync(HttpContext context, WebPushReceived message)
    {
        var headers = context.Response.Headers;
        var id = Guid.NewGuid().ToString("D");
        switch (service)
        {
            case SubscriptionService.Ntfy:
                return AnswerAsync(context, 200, new JsonObject { ["id"] = id[..12], ["event"] = "message" }.ToJsonString());
            case SubscriptionService.Apple:
                headers["apns-id"] = id;
                return AnswerAsync(context, 201);
            case SubscriptionService.Microsoft:
                headers["X-WNS-STATUS"] = headers["X-WNS-NOTIFICATIONSTATUS"] = "received";
                return AnswerAsync(context, 201);
            default:
                headers.Location = $"{ServiceOrigin}/m/{id}";
                headers["TTL"] = message.Ttl.ToString(CultureInfo.InvariantCulture);
                return AnswerAsync(context, 201);
        }
    }

    private Task RefuseAsync(HttpContext context, Refusal refusal)
    {
        var (status, word) = service switch
        {
            SubscriptionService.Mozilla => Mozilla(refusal),
            SubscriptionService.Google => Google(refusal),
            SubscriptionService.Microsoft => Microsoft(refusal),
            SubscriptionService.Apple => Apple(refusal),
            SubscriptionService.Ntfy => Ntfy(refusal),
        };
        switch (service)
        {
            case SubscriptionService.Mozilla:
                return AnswerAsync(
                    context,
                    status,
                    new JsonObject
                    {
                        ["code"] = status,
                        ["errno"] = int.Parse(word, CultureInfo.InvariantCulture),
                        ["error"] = "Bad Request",
                        ["message"] = "refused",
                    }.ToJsonString()
                );
            case SubscriptionService.Google:
                return AnswerAsync(context, status, word + "\n", "text/plain; charset=utf-8");
            case SubscriptionService.Microsoft:
                context.Response.Headers["X-WNS-STATUS"] = "dropped";
                context.Response.Headers["X-WNS-ERROR-DESCRIPTION"] = word;
                return AnswerAsync(context, status);
            case SubscriptionService.Apple:
                return AnswerAsync(context, status, new JsonObject { ["reason"] = word }.ToJsonString());
            default:
                return AnswerAsync(
                    context,
                    status,
                    new JsonObject { ["code"] = int.Parse(word, CultureInfo.InvariantCulture), ["http"] = status }.ToJsonString()
                );
        }
    }

    private static (int Status, string Word) Mozilla(Refusal refusal) =>
        refusal switch
        {
            Refusal.NotFound => (404, "102"),
            Refusal.Gone => (410, "106"),
            Refusal.BadCredentials or Refusal.OtherKey => (401, "109"),
            Refusal.BadTtl => (400, "111"),
            Refusal.BadUrgency => (400, "112"),
            Refusal.BadTopic => (400, "113"),
            Refusal.TooLarge => (413, "104"),
            Refusal.BadCoding => (400, "110"),
        };

    private static (int Status, string Word) Google(Refusal refusal) =>
        refusal switch
        {
            Refusal.NotFound or Refusal.Gone => (410, "push subscription has unsubscribed or expired."),
            Refusal.BadCredentials => (403, "invalid JWT provided"),
            Refusal.OtherKey => (
                403,
                "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions."
            ),
            Refusal.TooLarge => (413, "Payload too large"),
            _ => (400, "invalid header"),
        };

    private static (int Status, string Word) Microsoft(Refusal refusal) =>
        refusal switch
        {
            Refusal.NotFound => (404, "The channel is unknown"),
            Refusal.Gone => (410, "The channel is expired"),
            Refusal.BadCredentials => (401, "The token is invalid"),
            Refusal.OtherKey => (403, "The key is not the channel's"),
            Refusal.BadTtl => (400, "Ttl value conflicts with X-WNS-Cache-Policy"),
            Refusal.TooLarge => (413, "The payload is too large"),
            _ => (400, "Bad request"),
        };

    private static (int Status, string Word) Apple(Refusal refusal) =>
        refusal switch
        {
            Refusal.NotFound or Refusal.Gone => (410, "Unregistered"),
            Refusal.BadCredentials => (403, "BadJwtToken"),
            Refusal.OtherKey => (400, "VapidPkHashMismatch"),
            Refusal.BadTtl => (400, "BadTtl"),
            Refusal.BadUrgency => (400, "BadUrgency"),
            Refusal.BadTopic => (400, "BadWebPushTopic"),
            Refusal.TooLarge => (413, "PayloadTooLarge"),
            Refusal.BadCoding => (400, "BadContentEncoding"),
        };

    private static (int Status, string Word) Ntfy(Refusal refusal) =>
        refusal switch
        {
            Refusal.NotFound or Refusal.Gone => (404, "40401"),
            Refusal.TooLarge => (413, "41302"),
            _ => (400, "40001"),
        };

    [GeneratedRegex(@"^[A-Za-z0-9_-]+\z")]
    private static partial Regex TopicForm();

    private enum Refusal
    {
        NotFound,
        Gone,
        BadCredentials,
        OtherKey,
        BadTtl,
        BadUrgency,
        BadTopic,
        TooLarge,
        BadCoding,
    }
}
