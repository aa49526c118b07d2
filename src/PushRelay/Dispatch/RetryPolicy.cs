using PushRelay.Outbox;
using PushRelay.Push;

namespace PushRelay.Dispatch;

/// <summary>What follows from an answer; pure.</summary>
internal static class RetryPolicy
{
    /// <param name="delivery">As claimed: this attempt is counted in it.</param>
    /// <param name="result">What the attempt came to.</param>
    /// <param name="isDeviceInvalid">The registry marked the device; where it did not, its registration is newer than the refusal.</param>
    /// <param name="options">The bounds.</param>
    /// <param name="jitter">0 to 1.</param>
    public static Settlement Settle(Delivery delivery, PushResult result, bool isDeviceInvalid, DispatchOptions options, double jitter)
    {
        Settlement Retry(TimeSpan? retryAfter, bool excused) =>
            !excused && delivery.Attempts - delivery.AttemptsExcused >= options.MaxAttempts
                ? new Settlement.Dead()
                : new Settlement.Retry(Delay(delivery.Attempts, retryAfter, options, jitter), excused);

        return result switch
        {
            PushResult.Accepted => new Settlement.Accepted(),
            PushResult.Refused refused => new Settlement.Rejected(refused.Code!),
            PushResult.TokenDead { Channel: Channels.Alert } dead when isDeviceInvalid => new Settlement.Rejected(
                dead.Code!,
                DeviceInvalid: true
            ),
            // older than the registration: the present token may live
            PushResult.TokenDead { Channel: Channels.Alert } => Retry(null, excused: true),
            // that token is forgotten: it goes out as an alert, now
            PushResult.TokenDead => new Settlement.Retry(TimeSpan.Zero, Excused: true),
            PushResult.Later later => Retry(later.RetryAfter, excused: !IsOfTheDelivery(later.Fault)),
            PushResult.Unknown => Retry(null, excused: true),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }

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

    /// <summary>It earned this answer itself; what concerns the whole lane uses up no attempt.</summary>
    private static bool IsOfTheDelivery(Fault fault) =>
        fault switch
        {
            Fault.Throttled or Fault.ServerError => true,
            Fault.Outage or Fault.Quota or Fault.Credentials => false,
        };
}
