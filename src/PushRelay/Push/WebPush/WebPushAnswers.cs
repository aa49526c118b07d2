using System.Globalization;
using System.Text;
using System.Text.Json;
using PushRelay.Push.Connections;

namespace PushRelay.Push.WebPush;

/// <summary>
/// What a push service's answer means. The status decides; what the services say beside it, each in its own form, only where the same
/// status has two meanings.
/// </summary>
internal static class WebPushAnswers
{
    // where a service does not say how long: WNS and ntfy mean minutes
    private static readonly TimeSpan ThrottledDelay = TimeSpan.FromSeconds(60);

    // ntfy: nobody has listened to this topic lately, and its allowance is the listener's
    private static readonly TimeSpan NobodyListensDelay = TimeSpan.FromMinutes(15);

    // ntfy's codes of a topic that may not be written to
    private const int NtfyForbidden = 40301;

    public static string Code(string word) => $"{WebPushNetwork.Name}_{word}";

    /// <param name="endpoint">That was asked.</param>
    /// <param name="exchange">How it ended.</param>
    /// <param name="now">For dates in it.</param>
    public static PushResult Read(PushEndpoint endpoint, PushExchange exchange, DateTimeOffset now)
    {
        if (exchange is PushExchange.Unanswered unanswered)
        {
            // an address inside is the registrant's doing and stays one: nothing is tried again, nobody else waits for it
            return unanswered.Word == "blocked_address"
                ? new PushResult.Refused(Code(unanswered.Word), null, unanswered.Duration)
                : unanswered.Result(WebPushNetwork.Name);
        }

        var answered = (PushExchange.Answered)exchange;
        var code = Code(answered.Status.ToString(CultureInfo.InvariantCulture));
        var retryAfter = answered.RetryAfter(now);
        switch (answered.Status)
        {
            case >= 200 and <= 204 when IsDropped(answered):
                return new PushResult.Refused(Code("dropped"), answered.Status, answered.Duration);
            case >= 200 and <= 204:
                return new PushResult.Accepted(MessageId(answered), answered.Status, answered.Duration);
            case 404 or 410 or 301 or 308:
                return Dead();
            case 400 or 401 or 403 when IsOfSubscription(endpoint, answered):
                return Dead();
            case 401 or 403:
                return Later(Fault.Credentials, retryAfter);
            case 406 or 429:
                return Later(IsOfService(answered) ? Fault.Quota : Fault.Throttled, retryAfter ?? ThrottledDelay);
            case 507:
                return Later(Fault.Throttled, retryAfter ?? NobodyListensDelay);
            case 500:
                return Later(Fault.ServerError, retryAfter);
            case > 500 or 408 or 425 or (>= 300 and < 400):
                return Later(Fault.Outage, retryAfter);
            default:
                return new PushResult.Refused(code, answered.Status, answered.Duration);
        }

        PushResult Dead() => new PushResult.TokenDead(Channels.Alert, null, code, answered.Status, answered.Duration);

        PushResult Later(Fault fault, TimeSpan? delay) => new PushResult.Later(fault, delay, code, answered.Status, answered.Duration);
    }

    /// <summary>The message's resource (RFC 8030 section 5), without the service's name.</summary>
    private static string? MessageId(PushExchange.Answered answered) =>
        answered.Header("apns-id")
        ?? (
            Uri.TryCreate(answered.Header("Location"), UriKind.Absolute, out var location) && location.AbsolutePath.Length is > 1 and <= 200
                ? location.AbsolutePath[1..]
                : null
        );

    /// <summary>
    /// It is bound to another key than ours, or its endpoint has ended: a new subscription is the cure, and nobody else's is concerned.
    /// </summary>
    private static bool IsOfSubscription(PushEndpoint endpoint, PushExchange.Answered answered)
    {
        var text = Encoding.UTF8.GetString(answered.Body.Span);
        return
            // Apple
            text.Contains("VapidPkHashMismatch", StringComparison.Ordinal)
            // Google
            || text.Contains("do not correspond to the credentials used to create the subscription", StringComparison.Ordinal)
            // Mozilla, errno 109
            || text.Contains("VAPID public key mismatch", StringComparison.Ordinal)
            || (answered.Status == 403 && IntOf(text, "code") is >= NtfyForbidden and < NtfyForbidden + 99)
            // ejabberd: its endpoints bear a token of their own, which ends
            || (
                answered.Status == 401
                && endpoint.Url.Segments[^1].Split('.') is { Length: 3 } parts
                && parts[0].StartsWith("eyJ", StringComparison.Ordinal)
            );
    }

    /// <summary>WNS: it was taken, and then not delivered.</summary>
    private static bool IsDropped(PushExchange.Answered answered) =>
        (answered.Header("X-WNS-NOTIFICATIONSTATUS") ?? answered.Header("X-WNS-STATUS")) is "dropped";

    /// <summary>WNS: all of ours, not this subscription's.</summary>
    private static bool IsOfService(PushExchange.Answered answered) =>
        (
            (string?[])
                [answered.Header("X-WNS-NOTIFICATIONSTATUS"), answered.Header("X-WNS-STATUS"), answered.Header("X-WNS-ERROR-DESCRIPTION")]
        ).Any(text => text?.Contains("appthrottled", StringComparison.OrdinalIgnoreCase) == true);

    private static int? IntOf(string text, string member)
    {
        try
        {
            using var json = JsonDocument.Parse(text);
            return
                json.RootElement.ValueKind == JsonValueKind.Object
                && json.RootElement.TryGetProperty(member, out var value)
                && value.ValueKind == JsonValueKind.Number
                && value.TryGetInt32(out var number)
                ? number
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
