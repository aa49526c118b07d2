namespace PushRelay.Dispatch;

/// <summary>Whose token was refused.</summary>
/// <param name="Account">The device's account.</param>
/// <param name="WasReached">The push network has accepted an alert for this device before.</param>
internal readonly record struct RefusedToken(string Account, bool WasReached);

/// <summary>
/// Decides whether refused tokens are dead or the app's settings are wrong. The settings are wrong once, within <see cref="Window"/>, at
/// least <see cref="SendsMin"/> sends were refused for devices of at least <see cref="AccountsMin"/> accounts, none was accepted, and
/// either devices of at least so many accounts among them had been reached before, or the lane has never accepted anything. So a few
/// accounts with tokens that were never valid lose only their own devices. From then on no refusal makes a device invalid until a send is
/// accepted. Counts what this node sees. Not thread-safe.
/// </summary>
internal sealed class TokenSuspicion(TimeProvider timers)
{
    public const int SendsMin = 20;
    public const int AccountsMin = 3;

    /// <summary>How far back refusals count.</summary>
    public static readonly TimeSpan Window = TimeSpan.FromMinutes(1);

    // an account has few devices, and a refusal makes a device invalid: more refusals than this within a window add nothing
    private const int RememberedMax = 1024;

    private readonly Queue<(long At, RefusedToken Token)> refused = new();
    private long? acceptedAt;
    private bool isWrongSetting;

    /// <summary>It has no state worth keeping.</summary>
    public bool IsIdle
    {
        get
        {
            Forget();
            return refused.Count == 0 && !isWrongSetting;
        }
    }

    public void Accepted()
    {
        acceptedAt = timers.GetTimestamp();
        isWrongSetting = false;
        refused.Clear();
    }

    /// <summary>Counts a refusal that names no time at which the token died. A refusal with a time is not caused by settings.</summary>
    /// <param name="token">Whose it is.</param>
    /// <param name="laneHasAccepted">The lane has accepted at least one alert.</param>
    /// <returns>True: the settings are the cause; do not mark the device invalid.</returns>
    public bool Doubts(RefusedToken token, bool laneHasAccepted)
    {
        Forget();
        if (refused.Count == RememberedMax)
        {
            refused.Dequeue();
        }

        refused.Enqueue((timers.GetTimestamp(), token));
        return isWrongSetting = isWrongSetting || IsInNumbers(laneHasAccepted);
    }

    private bool IsInNumbers(bool laneHasAccepted) =>
        refused.Count >= SendsMin
        && !(acceptedAt is { } at && timers.GetElapsedTime(at) < Window)
        && Accounts(refused) >= AccountsMin
        && (!laneHasAccepted || Accounts(refused.Where(r => r.Token.WasReached)) >= AccountsMin);

    private static int Accounts(IEnumerable<(long At, RefusedToken Token)> refused) =>
        refused.Select(r => r.Token.Account).Distinct(StringComparer.Ordinal).Take(AccountsMin).Count();

    private void Forget()
    {
        while (refused.TryPeek(out var oldest) && timers.GetElapsedTime(oldest.At) >= Window)
        {
            refused.Dequeue();
        }
    }
}
