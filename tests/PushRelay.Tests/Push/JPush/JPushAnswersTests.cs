using System.Globalization;
using PushRelay.Push.JPush;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push.Connections;

namespace PushRelay.Tests.Push.JPush;

/// <summary>Each documented answer of JPush, whose code counts before the status.</summary>
public sealed class JPushAnswersTests
{
    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    [Theory]
    [InlineData(500, 1000, "system error", "later ServerError -1 jpush_1000")]
    [InlineData(503, 1030, "timeout", "later ServerError -1 jpush_1030")]
    [InlineData(400, 1001, "only POST", "refused jpush_1001")]
    [InlineData(400, 1002, "missing parameter", "refused jpush_1002")]
    [InlineData(400, 1003, "registration_id '1a0018970aa8f0d2a1b' is invalid", "dead jpush_1003")]
    [InlineData(400, 1003, "time_to_live is invalid", "refused jpush_1003")]
    [InlineData(401, 1004, "Authen failed", "later Credentials -1 jpush_1004")]
    [InlineData(400, 1005, "too long", "refused jpush_1005")]
    [InlineData(400, 1008, "app_key is not a 24 size string", "later Credentials -1 jpush_1008")]
    [InlineData(400, 1009, "unknown member", "refused jpush_1009")]
    [InlineData(400, 1011, "cannot find user by this audience", "dead jpush_1011")]
    [InlineData(400, 1012, "quota", "later Quota 3600 jpush_1012")]
    [InlineData(400, 1035, "option", "refused jpush_1035")]
    [InlineData(429, 2002, "Rate limit exceeded", "later Quota 60 jpush_2002")]
    [InlineData(403, 2003, "blacklist", "later Credentials -1 jpush_2003")]
    [InlineData(403, 2004, "ip", "later Credentials -1 jpush_2004")]
    [InlineData(403, 2006, "vip", "later Credentials -1 jpush_2006")]
    [InlineData(400, 2008, "broadcast", "refused jpush_2008")]
    // an error inside a 200
    [InlineData(200, 1011, "cannot find user", "dead jpush_1011")]
    [InlineData(200, 1000, "system error", "later ServerError -1 jpush_1000")]
    [InlineData(200, 9999, "something new", "refused jpush_9999")]
    [InlineData(503, 9999, "something new", "later Outage -1 jpush_9999")]
    public void An_error_of_JPush(int status, int code, string message, string result) =>
        Assert.Equal(result, Read(status, JPushSimulator.Error(code, message, 2081584083)));

    [Theory]
    [InlineData(200, "{\"sendno\":\"0\",\"msg_id\":\"1828256757\"}", "accepted 1828256757")]
    [InlineData(200, "{\"sendno\":0,\"msg_id\":1828256757}", "accepted 1828256757")]
    [InlineData(200, "{\"msg_id\":\"1\",\"illegal_rids\":[\"1a0018970aa8f0d2a1b\"]}", "dead jpush_illegal_rids")]
    [InlineData(200, "{\"msg_id\":\"1\",\"illegal_rids\":[\"another\"]}", "accepted 1")]
    [InlineData(200, "<html>", "later Outage -1 jpush_bad_answer")]
    [InlineData(200, "{}", "later Outage -1 jpush_bad_answer")]
    [InlineData(502, "<html>", "later Outage -1 jpush_502")]
    [InlineData(404, "<html>", "later Credentials -1 jpush_404")]
    [InlineData(302, "", "later Credentials -1 jpush_302")]
    [InlineData(400, "{\"error\":{\"code\":\"1011\",\"message\":7}}", "dead jpush_1011")]
    [InlineData(400, "{\"error\":\"1011\"}", "refused jpush_400")]
    public void An_answer_in_another_form(int status, string body, string result) => Assert.Equal(result, Read(status, body));

    [Fact]
    public void An_answer_that_was_cut_is_asked_for_again() =>
        Assert.Equal(
            "unknown jpush_answer_cut",
            Exchanges.Show(JPushAnswers.Read("1a", Exchanges.Answered(200, "{\"msg", isCut: true), Now))
        );

    [Theory]
    [InlineData("X-Rate-Limit-Limit: 600|X-Rate-Limit-Remaining: 3|X-Rate-Limit-Reset: 20", "(3, 00:00:20)")]
    [InlineData("x-rate-limit-quota: 600|x-rate-limit-remaining: 0|x-rate-limit-reset: 7", "(0, 00:00:07)")]
    [InlineData("X-Rate-Limit-Remaining: many|X-Rate-Limit-Reset: 7", "")]
    [InlineData("", "")]
    public void The_rate_that_is_left_is_read(string headers, string rate) =>
        Assert.Equal(rate, JPushAnswers.RateOf(Exchanges.Answered(200, "", headers))?.ToString() ?? "");

    [Fact]
    public void Spent_requests_wait_for_the_reset() =>
        Assert.Equal(
            "later Quota 20 jpush_2002",
            Exchanges.Show(
                JPushAnswers.Read("1a", Exchanges.Answered(429, JPushSimulator.Error(2002, "rate"), "X-Rate-Limit-Reset: 20"), Now)
            )
        );

    private static string Read(int status, string body) =>
        Exchanges.Show(JPushAnswers.Read("1a0018970aa8f0d2a1b", Exchanges.Answered(status, body), Now));
}
