using PushRelay.Outbox;
using PushRelay.Push;

namespace PushRelay.Dispatch;

/// <summary>Decides what follows from the result of an attempt: accepted, rejected, dead, or a retry after a delay. Pure.</summary>
internal static class RetryPolicy
{
    /// <param name="delivery">The delivery as claimed; its count includes this attempt.</param>
    /// <param name="result">The result of the attempt.</param>
    /// <param name="isDeviceInvalid">True: the device was marked invalid. False: it registered again after the time of the refusal.</param>
    /// <param name="options">Attempts at most, and the bounds of the delay.</param>
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
            // the refusal is older than the registration: the present token may be valid
            PushResult.TokenDead { Channel: Channels.Alert } => Retry(null, excused: true),
            // the token of another channel (calls) is deleted: send it as an alert, now
            PushResult.TokenDead => new Settlement.Retry(TimeSpan.Zero, Excused: true),
            PushResult.Later later => Retry(later.RetryAfter, excused: !IsOfTheDelivery(later.Fault)),
            PushResult.Unknown => Retry(null, excused: true),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }

    /// <summary>The delay before the next attempt: random between 0 and <c>BaseDelay</c> x 2^(attempts-1), at most <c>MaxDelay</c>, so
    /// that retries after an outage do not come at one moment. Never shorter than Retry-After.</summary>
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

    /// <summary>True: the fault is about this delivery, and the attempt counts for <c>MaxAttempts</c>. False: it is about the whole lane,
    /// and the attempt does not count.</summary>
    private static bool IsOfTheDelivery(Fault fault) =>
        fault switch
        {
            Fault.Throttled or Fault.ServerError => true,
            Fault.Outage or Fault.Quota or Fault.Credentials => false,
        };
}
