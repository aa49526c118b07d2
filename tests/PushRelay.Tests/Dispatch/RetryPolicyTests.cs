using PushRelay.Apns;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.Apns;

namespace PushRelay.Tests.Dispatch;

public sealed class RetryPolicyTests
{
    private static readonly DispatchOptions Options = new() { MaxAttempts = 3 };

    [Theory]
    [InlineData(1, 1.0, 1)]
    [InlineData(2, 1.0, 2)]
    [InlineData(5, 1.0, 16)]
    [InlineData(5, 0.5, 8)]
    [InlineData(5, 0.0, 0)]
    [InlineData(11, 1.0, 600)]
    [InlineData(1_000_000, 1.0, 600)]
    public void The_wait_doubles_up_to_its_bound_and_is_spread_over_all_of_it(int attempts, double jitter, double seconds) =>
        Assert.Equal(TimeSpan.FromSeconds(seconds), RetryPolicy.Delay(attempts, null, Options, jitter));

    [Theory]
    [InlineData(0.0, 20)]
    [InlineData(1.0, 21)]
    public void Retry_After_is_a_floor_with_some_spread_on_top(double jitter, double seconds) =>
        Assert.Equal(TimeSpan.FromSeconds(seconds), RetryPolicy.Delay(1, TimeSpan.FromSeconds(20), Options, jitter));

    [Fact]
    public void A_wait_that_is_longer_than_Retry_After_stays() =>
        Assert.Equal(TimeSpan.FromSeconds(512), RetryPolicy.Delay(10, TimeSpan.FromSeconds(20), Options, 1.0));

    [Theory]
    [InlineData("Accepted", 200, null, true, 1, "Accepted")]
    [InlineData("Refused", 413, "PayloadTooLarge", false, 1, "Rejected")]
    [InlineData("DeviceInvalid", 410, "Unregistered", true, 1, "Rejected")]
    [InlineData("DeviceInvalid", 410, "Unregistered", false, 1, "Retry excused")]
    [InlineData("Deferred", 429, "TooManyRequests", false, 2, "Retry")]
    [InlineData("Deferred", 429, "TooManyRequests", false, 3, "Dead")]
    [InlineData("Deferred", 500, "InternalServerError", false, 3, "Dead")]
    [InlineData("Deferred", 429, "TooManyProviderTokenUpdates", false, 3, "Retry excused")]
    [InlineData("Deferred", 503, "ServiceUnavailable", false, 99, "Retry excused")]
    [InlineData("Deferred", null, "connect_failed", false, 99, "Retry excused")]
    [InlineData("Misconfigured", 403, "InvalidProviderToken", false, 99, "Retry excused")]
    [InlineData("Unknown", null, "timed_out", false, 99, "Retry excused")]
    public void Each_answer_is_final_later_or_our_fault(
        string outcome,
        int? status,
        string? reason,
        bool deviceInvalid,
        int attempts,
        string expected
    )
    {
        var result = Answer(Enum.Parse<ApnsOutcome>(outcome), status, reason);

        var settlement = RetryPolicy.Settle(Row(attempts, excused: 0), result, deviceInvalid, Options, 0.5);

        Assert.Equal(expected, settlement is Settlement.Retry { Excused: true } ? "Retry excused" : settlement.GetType().Name);
        Assert.True(settlement is not Settlement.Rejected rejected || rejected.Reason == $"apns_{reason}");
    }

    [Fact]
    public void Excused_attempts_do_not_count()
    {
        var result = Answer(ApnsOutcome.Deferred, 500, "InternalServerError");

        Assert.IsType<Settlement.Retry>(RetryPolicy.Settle(Row(attempts: 12, excused: 10), result, false, Options, 0.5));
        Assert.IsType<Settlement.Dead>(RetryPolicy.Settle(Row(attempts: 13, excused: 10), result, false, Options, 0.5));
    }

    private static PushResult Answer(ApnsOutcome outcome, int? status, string? reason) =>
        ApnsResults.Of(
            new ApnsResponse
            {
                Outcome = outcome,
                Status = status,
                Reason = reason,
                KnownReason = Enum.TryParse<ApnsReason>(reason, out var known) ? known : null,
            },
            Channels.Alert
        );

    private static Delivery Row(int attempts, int excused) =>
        new()
        {
            Id = Guid.NewGuid(),
            Server = TestRelay.Server,
            Account = TestRelay.Bob,
            DeviceKey = Guid.NewGuid(),
            EventKey = "e:1:1",
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            EventAt = DateTimeOffset.UnixEpoch,
            OrderingKey = Guid.NewGuid(),
            Reason = Reasons.Offline,
            CreatedAt = DateTimeOffset.UnixEpoch,
            DueAt = DateTimeOffset.UnixEpoch,
            ExpiresAt = DateTimeOffset.UnixEpoch,
            Attempts = attempts,
            AttemptsExcused = excused,
        };
}
