using System.Globalization;
using PushRelay.Outbox;
using PushRelay.Push;

namespace PushRelay.Dispatch;

/// <summary>What follows from an answer; pure.</summary>
internal static class RetryPolicy
{
    /// <param name="delivery">As claimed: this attempt is counted in it.</param>
    /// <param name="answer">What the attempt came to.</param>
    /// <param name="deviceInvalid">The registry marked the device; where it did not, its registration is newer than the refusal.</param>
    /// <param name="options">The bounds.</param>
    /// <param name="jitter">0 to 1.</param>
    public static Settlement Settle(Delivery delivery, PushAnswer answer, bool deviceInvalid, DispatchOptions options, double jitter) =>
        answer.Outcome switch
        {
            PushOutcome.Accepted => new Settlement.Accepted(),
            PushOutcome.Refused => new Settlement.Rejected(ReasonOf(answer)),
            PushOutcome.DeviceInvalid when deviceInvalid => new Settlement.Rejected(ReasonOf(answer), DeviceInvalid: true),
            PushOutcome.Deferred when Counts(answer) && delivery.Attempts - delivery.AttemptsExcused >= options.MaxAttempts =>
                new Settlement.Dead(),
            PushOutcome.Deferred or PushOutcome.DeviceInvalid or PushOutcome.Misconfigured or PushOutcome.Unknown => new Settlement.Retry(
                Delay(delivery.Attempts, answer.RetryAfter, options, jitter),
                Excused: !Counts(answer)
            ),
        };

    /// <summary>Exponential with full jitter: spread over the whole wait, so that an outage does not end in a flood. Retry-After is a
    /// floor.</summary>
    public static TimeSpan Delay(int attempts, TimeSpan? retryAfter, DispatchOptions options, double jitter)
    {
        // 2^30 times the longest base is beyond any bound
        var bound = Math.Min(
            options.MaxDelay.TotalMilliseconds,
            options.BaseDelay.TotalMilliseconds * Math.Pow(2, Math.Clamp(attempts - 1, 0, 30))
        );
        var delay = TimeSpan.FromMilliseconds(bound * Math.Clamp(jitter, 0, 1));
        return retryAfter is { } floor && delay < floor ? floor + (options.BaseDelay * jitter) : delay;
    }

    // an answer from somebody between us and Apple may say no reason
    private static string ReasonOf(PushAnswer answer) =>
        string.Create(CultureInfo.InvariantCulture, $"apns_{answer.Reason ?? answer.Status?.ToString(CultureInfo.InvariantCulture)}");

    /// <summary>An answer that this delivery earned; an outage is not its fault.</summary>
    private static bool Counts(PushAnswer answer) =>
        answer
            is { Outcome: PushOutcome.Deferred, Status: 500 }
                or { Outcome: PushOutcome.Deferred, Status: 429, Reason: "TooManyRequests" };
}
