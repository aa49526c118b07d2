using System.Globalization;
using PushRelay.Push.Connections;

namespace PushRelay.Tests.Push.Connections;

public sealed class RetryAfterTests
{
    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    [Theory]
    [InlineData(null, null)]
    [InlineData("", null)]
    [InlineData("soon", null)]
    [InlineData("NaN", null)]
    [InlineData("120", 120.0)]
    [InlineData(" 120 ", 120.0)]
    [InlineData("1.5", 1.5)]
    [InlineData("-5", 0.0)]
    [InlineData("86400", 3600.0)]
    [InlineData("1e300", 3600.0)]
    [InlineData("Sun, 01 Mar 2026 12:02:00 GMT", 120.0)]
    [InlineData("Sun, 01 Mar 2026 11:00:00 GMT", 0.0)]
    [InlineData("Mon, 01 Mar 2027 11:00:00 GMT", 3600.0)]
    public void It_is_seconds_or_a_date_and_at_most_an_hour(string? value, double? seconds) =>
        Assert.Equal(seconds, RetryAfter.Read(value, null, Now)?.TotalSeconds);

    [Fact]
    public void A_date_is_measured_against_the_answers_own() =>
        Assert.Equal(TimeSpan.FromSeconds(60), RetryAfter.Read("Sun, 01 Mar 2026 15:01:00 GMT", "Sun, 01 Mar 2026 15:00:00 GMT", Now));
}
