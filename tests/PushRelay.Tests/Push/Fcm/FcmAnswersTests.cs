using System.Globalization;
using System.Text.Json.Nodes;
using PushRelay.Push.Connections;
using PushRelay.Push.Fcm;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push.Connections;

namespace PushRelay.Tests.Push.Fcm;

/// <summary>Each documented answer of FCM and of Google's token endpoint, and those of who stands in between.</summary>
public sealed class FcmAnswersTests
{
    private const string TokenMalformed = "The registration token is not a valid FCM registration token";
    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    [Theory]
    [InlineData(400, "INVALID_ARGUMENT", TokenMalformed, "INVALID_ARGUMENT", "dead fcm_INVALID_ARGUMENT")]
    [InlineData(400, "INVALID_ARGUMENT", "Android message is too big", "INVALID_ARGUMENT", "refused fcm_INVALID_ARGUMENT")]
    [InlineData(400, "INVALID_ARGUMENT", "Invalid value at 'message.android.ttl'", null, "refused fcm_INVALID_ARGUMENT")]
    // the words alone, without FCM's code, are somebody else's
    [InlineData(400, "INVALID_ARGUMENT", TokenMalformed, null, "refused fcm_INVALID_ARGUMENT")]
    [InlineData(401, "UNAUTHENTICATED", "auth", "THIRD_PARTY_AUTH_ERROR", "later Credentials -1 fcm_THIRD_PARTY_AUTH_ERROR")]
    [InlineData(401, "UNAUTHENTICATED", "auth", "APNS_AUTH_ERROR", "later Credentials -1 fcm_APNS_AUTH_ERROR")]
    [InlineData(401, "UNAUTHENTICATED", "auth", null, "later Credentials -1 fcm_UNAUTHENTICATED")]
    [InlineData(403, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH", "dead fcm_SENDER_ID_MISMATCH")]
    [InlineData(403, "PERMISSION_DENIED", "denied", null, "later Credentials -1 fcm_PERMISSION_DENIED")]
    [InlineData(404, "NOT_FOUND", "gone", "UNREGISTERED", "dead fcm_UNREGISTERED")]
    [InlineData(404, "NOT_FOUND", "Requested entity was not found.", null, "later Credentials -1 fcm_NOT_FOUND")]
    [InlineData(429, "RESOURCE_EXHAUSTED", "rate", "QUOTA_EXCEEDED", "later Quota 60 fcm_QUOTA_EXCEEDED")]
    [InlineData(500, "INTERNAL", "oops", "INTERNAL", "later ServerError 10 fcm_INTERNAL")]
    [InlineData(503, "UNAVAILABLE", "busy", "UNAVAILABLE", "later Outage 10 fcm_UNAVAILABLE")]
    [InlineData(504, "DEADLINE_EXCEEDED", "late", null, "later Outage 10 fcm_DEADLINE_EXCEEDED")]
    [InlineData(400, "INVALID_ARGUMENT", "new", "SOMETHING_NEW", "refused fcm_SOMETHING_NEW")]
    [InlineData(503, "UNAVAILABLE", "new", "UNSPECIFIED_ERROR", "later Outage 10 fcm_UNSPECIFIED_ERROR")]
    public void An_error_of_FCM(int status, string name, string message, string? code, string result) =>
        Assert.Equal(result, Read(status, FcmSimulator.Error(status, name, message, code)));

    [Theory]
    [InlineData(404, "<html>no such page</html>", "later Credentials -1 fcm_404")]
    [InlineData(403, "<html>no</html>", "later Credentials -1 fcm_403")]
    [InlineData(502, "<html>bad gateway</html>", "later Outage 10 fcm_502")]
    [InlineData(503, "", "later Outage 10 fcm_503")]
    [InlineData(400, "", "refused fcm_400")]
    [InlineData(302, "", "later Credentials -1 fcm_302")]
    [InlineData(503, "{\"error\":{\"details\":[{\"@type\":\"type.goo", "later Outage 10 fcm_503")]
    [InlineData(404, "{\"error\":[1,2]}", "later Credentials -1 fcm_404")]
    [InlineData(404, "{\"error\":{\"status\":5,\"details\":{}}}", "later Credentials -1 fcm_404")]
    [InlineData(404, "{\"error\":{\"status\":\"<script>\",\"details\":[1,null,{}]}}", "later Credentials -1 fcm_404")]
    [InlineData(200, "<html>welcome to the hotel</html>", "later Outage -1 fcm_bad_answer")]
    [InlineData(200, "{}", "later Outage -1 fcm_bad_answer")]
    [InlineData(200, "{\"name\":\"projects/p/messages/1\"}", "accepted projects/p/messages/1")]
    public void What_is_no_answer_of_FCMs_ends_no_device(int status, string body, string result) =>
        Assert.Equal(result, Read(status, body));

    [Fact]
    public void An_acceptance_that_was_cut_is_one() =>
        Assert.Equal("accepted", Exchanges.Show(FcmAnswers.Read(Exchanges.Answered(200, "{\"na", isCut: true), Now)));

    [Theory]
    [InlineData("device:abc", "later Throttled 7 fcm_QUOTA_EXCEEDED")]
    [InlineData("project:abc", "later Quota 7 fcm_QUOTA_EXCEEDED")]
    public void A_spent_quota_is_the_devices_or_the_projects(string subject, string result) =>
        Assert.Equal(
            result,
            Read(
                429,
                FcmSimulator.Error(429, "RESOURCE_EXHAUSTED", "rate", "QUOTA_EXCEEDED", FcmSimulator.QuotaFailure(subject)),
                "Retry-After: 7"
            )
        );

    [Fact]
    public void A_token_that_a_field_violation_names_is_dead() =>
        Assert.Equal(
            "dead fcm_INVALID_ARGUMENT",
            Read(
                400,
                FcmSimulator.Error(
                    400,
                    "INVALID_ARGUMENT",
                    "Invalid registration token",
                    null,
                    new JsonObject
                    {
                        ["@type"] = "type.googleapis.com/google.rpc.BadRequest",
                        ["fieldViolations"] = new JsonArray(new JsonObject { ["field"] = "message.token" }),
                    }
                )
            )
        );

    [Fact]
    public void A_date_to_retry_after_is_read() =>
        Assert.Equal("later Outage 120 fcm_503", Read(503, "", "Retry-After: Sun, 01 Mar 2026 12:02:00 GMT"));

    [Theory]
    [InlineData("timed_out", true, "unknown fcm_timed_out")]
    [InlineData("timed_out", false, "later Outage -1 fcm_timed_out")]
    [InlineData("connect_failed", false, "later Outage -1 fcm_connect_failed")]
    public void No_answer_is_unknown_where_it_may_have_been_processed(string word, bool wasSent, string result) =>
        Assert.Equal(result, Exchanges.Show(FcmAnswers.Read(new PushExchange.Unanswered(word, wasSent, null, TimeSpan.Zero), Now)));

    [Theory]
    [InlineData(200, "{\"access_token\":\"ya29.x\",\"expires_in\":3599}", "ya29.x 3599")]
    [InlineData(200, "{\"access_token\":\"ya29.x\",\"expires_in\":\"1200\"}", "ya29.x 1200")]
    [InlineData(200, "{\"access_token\":\"ya29.x\"}", "ya29.x 3600")]
    [InlineData(200, "{\"access_token\":\"ya29.x\",\"expires_in\":1e9}", "ya29.x 3600")]
    [InlineData(200, "{\"access_token\":\"a\\r\\nb\"}", "later Outage -1 fcm_token_bad_answer")]
    [InlineData(200, "{\"id_token\":\"eyJ\"}", "later Credentials -1 fcm_no_access_token")]
    [InlineData(200, "<html>", "later Outage -1 fcm_token_bad_answer")]
    [InlineData(
        400,
        "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid JWT Signature.\"}",
        "later Credentials -1 fcm_invalid_grant"
    )]
    [InlineData(400, "{\"error\":\"invalid_scope\"}", "later Credentials -1 fcm_invalid_scope")]
    [InlineData(401, "{\"error\":\"unauthorized_client\"}", "later Credentials -1 fcm_unauthorized_client")]
    [InlineData(400, "{\"error\":\"temporarily_unavailable\"}", "later Outage -1 fcm_token_400")]
    [InlineData(404, "<html>", "later Credentials -1 fcm_token_404")]
    [InlineData(500, "", "later Outage -1 fcm_token_500")]
    [InlineData(429, "", "later Outage -1 fcm_token_429")]
    public void An_answer_of_the_token_endpoint(int status, string body, string result)
    {
        var answer = AccessTokens.Read(Exchanges.Answered(status, body), Now);

        Assert.Equal(
            result,
            answer.Token is { } token ? $"{token.Value} {(token.ExpiresAt - Now).TotalSeconds}" : Exchanges.Show(answer.Refusal!)
        );
    }

    private static string Read(int status, string body, string headers = "") =>
        Exchanges.Show(FcmAnswers.Read(Exchanges.Answered(status, body, headers), Now));
}
