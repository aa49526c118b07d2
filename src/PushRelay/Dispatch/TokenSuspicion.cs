using PushRelay.Push;

namespace PushRelay.Dispatch;

/// <summary>
/// Tells dead tokens from a wrong setting: where many of a lane's tokens are refused within a minute it is the setting, and no token is
/// believed dead. Not thread-safe.
/// </summary>
internal sealed class TokenSuspicion(TimeProvider timers)
{
    /// <summary>Refused tokens within <see cref="Window"/> that are believed dead.</summary>
    public const int RefusedMax = 20;

    public static readonly TimeSpan Window = TimeSpan.FromMinutes(1);

    private const int RefusedPercentMax = 20;

    private long since;
    private int seen;
    private int refused;

    // until a token is accepted
    private bool isWrongSetting;

    /// <summary>Nothing was seen within the last window.</summary>
    public bool IsIdle => seen == 0 || timers.GetElapsedTime(since) > Window;

    /// <summary>Counts an answer.</summary>
    /// <returns>It says that a token is dead, and is not to be believed.</returns>
    public bool Doubts(PushResult result)
    {
        if (IsIdle)
        {
            (since, seen, refused) = (timers.GetTimestamp(), 0, 0);
        }

        if (result is PushResult.Accepted)
        {
            seen++;
            isWrongSetting = false;
        }
        else if (result is PushResult.TokenDead { Since: null })
        {
            // one with the time a token died is nobody's mistake
            seen++;
            refused++;
            isWrongSetting |= refused > RefusedMax && refused * 100 > seen * RefusedPercentMax;
            return isWrongSetting;
        }

        return false;
    }
}
