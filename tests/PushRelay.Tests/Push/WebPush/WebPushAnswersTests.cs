using System.Globalization;
using PushRelay.Push.Connections;
using PushRelay.Push.WebPush;
using PushRelay.Tests.Push.Connections;

namespace PushRelay.Tests.Push.WebPush;

/// <summary>Each documented answer of the push services in the field.</summary>
public sealed class WebPushAnswersTests
{
    private const string Google =
        "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n";

    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    [Theory]
    [InlineData(201, "", "Location: https://push.example/m/abc", "accepted m/abc")]
    [InlineData(201, "", "apns-id: 1-2-3", "accepted 1-2-3")]
    [InlineData(200, "{\"id\":\"x\"}", "", "accepted")]
    [InlineData(202, "", "", "accepted")]
    [InlineData(201, "", "X-WNS-STATUS: received|X-WNS-NOTIFICATIONSTATUS: dropped", "refused webpush_dropped")]
    [InlineData(404, "", "", "dead webpush_404")]
    [InlineData(410, "push subscription has unsubscribed or expired.\n", "", "dead webpush_410")]
    [InlineData(301, "", "Location: https://127.0.0.1/", "dead webpush_301")]
    [InlineData(302, "", "Location: https://127.0.0.1/", "later Outage -1 webpush_302")]
    [InlineData(307, "", "Location: https://127.0.0.1/", "later Outage -1 webpush_307")]
    // bound to another key than ours: a new subscription is the cure
    [InlineData(400, "{\"reason\":\"VapidPkHashMismatch\"}", "", "dead webpush_400")]
    [InlineData(403, Google, "", "dead webpush_403")]
    [InlineData(401, "{\"code\":401,\"errno\":109,\"message\":\"VAPID public key mismatch\"}", "", "dead webpush_401")]
    [InlineData(403, "{\"code\":40301,\"http\":403,\"error\":\"forbidden\"}", "", "dead webpush_403")]
    // the operator's
    [InlineData(401, "{\"code\":401,\"errno\":109,\"message\":\"Invalid VAPID token\"}", "", "later Credentials -1 webpush_401")]
    [InlineData(403, "{\"reason\":\"BadJwtToken\"}", "", "later Credentials -1 webpush_403")]
    [InlineData(403, "", "", "later Credentials -1 webpush_403")]
    [InlineData(401, "<html>", "", "later Credentials -1 webpush_401")]
    [InlineData(413, "{\"reason\":\"PayloadTooLarge\"}", "", "refused webpush_413")]
    [InlineData(400, "{\"reason\":\"BadTtl\"}", "", "refused webpush_400")]
    [InlineData(406, "", "Retry-After: 900|X-WNS-STATUS: channelthrottled", "later Throttled 900 webpush_406")]
    [InlineData(406, "", "X-WNS-NOTIFICATIONSTATUS: appthrottled", "later Quota 60 webpush_406")]
    [InlineData(429, "", "", "later Throttled 60 webpush_429")]
    [InlineData(429, "", "Retry-After: 5", "later Throttled 5 webpush_429")]
    [InlineData(429, "{\"code\":42901}", "", "later Throttled 60 webpush_429")]
    [InlineData(507, "{\"code\":50701}", "", "later Throttled 900 webpush_507")]
    [InlineData(500, "", "", "later ServerError -1 webpush_500")]
    [InlineData(502, "", "", "later Outage -1 webpush_502")]
    [InlineData(503, "", "Retry-After: 120", "later Outage 120 webpush_503")]
    [InlineData(408, "", "", "later Outage -1 webpush_408")]
    [InlineData(425, "", "", "later Outage -1 webpush_425")]
    [InlineData(405, "", "", "refused webpush_405")]
    public void An_answer_of_a_push_service(int status, string body, string headers, string result) =>
        Assert.Equal(result, Read("https://push.example/abc", Exchanges.Answered(status, body, headers)));

    [Fact]
    public void An_endpoint_of_ejabberds_whose_own_token_has_ended_concerns_nobody_else() =>
        Assert.Equal("dead webpush_401", Read("https://up.example/push/eyJhbGciOiJIUzI1NiJ9.eyJlIjoxfQ.abc", Exchanges.Answered(401, "")));

    [Theory]
    [InlineData("blocked_address", "refused webpush_blocked_address")]
    [InlineData("name_unknown", "later Outage -1 webpush_name_unknown")]
    [InlineData("tls_failed", "later Outage -1 webpush_tls_failed")]
    public void Only_an_inside_address_is_not_tried_again(string word, string result) =>
        Assert.Equal(result, Read("https://push.example/abc", new PushExchange.Unanswered(word, false, null, TimeSpan.Zero)));

    private static string Read(string endpoint, PushExchange exchange)
    {
        Assert.True(PushEndpoint.TryRead(endpoint, out var read));
        return Exchanges.Show(WebPushAnswers.Read(read, exchange, Now));
    }
}
