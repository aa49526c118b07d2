using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest.Policy;

/// <summary>All that the decision for one device looks at.</summary>
internal sealed record PushSituation
{
    public required EventClass Class { get; init; }

    public required AccountState Account { get; init; }

    public required bool DeviceValid { get; init; }

    /// <summary>The user wants no alerts of this conversation on this device.</summary>
    public required bool Muted { get; init; }

    /// <summary>The user wants no alerts on this device at this hour.</summary>
    public required bool QuietHours { get; init; }

    /// <summary>The device named an XMPP resource, so its own session can be told from another device's.</summary>
    public required bool DeviceTied { get; init; }

    /// <summary>A session of that resource is in front.</summary>
    public required bool OwnSessionInFront { get; init; }

    /// <summary>The server says again what a client never acknowledged.</summary>
    public required bool Unacked { get; init; }
}

/// <summary>Whether a device is alerted, when, and why.</summary>
internal abstract record PushDecision(string Reason)
{
    /// <summary>After <paramref name="Delay"/>, unless something cancels it before.</summary>
    public sealed record Alert(string Reason, TimeSpan Delay) : PushDecision(Reason);

    public sealed record Suppress(string Reason) : PushDecision(Reason);
}

/// <summary>The rule, pure. Its table is docs/decision.md, whose rows are the test's rows; change both together.</summary>
internal static class PushPolicy
{
    public static PushDecision Decide(PushSituation situation, AlertsOptions options)
    {
        if (!situation.DeviceValid)
        {
            return new PushDecision.Suppress(Reasons.DeviceInvalid);
        }

        if (situation.Muted)
        {
            return new PushDecision.Suppress(Reasons.Muted);
        }

        if (situation.QuietHours)
        {
            return new PushDecision.Suppress(Reasons.QuietHours);
        }

        var inFront = situation.Account == AccountState.Foreground;
        if (inFront && (situation.OwnSessionInFront || !situation.DeviceTied))
        {
            return new PushDecision.Suppress(Reasons.Foreground);
        }

        // a call rings on every phone that is not in front itself, and does not wait
        if (situation.Class == EventClass.Call)
        {
            return new PushDecision.Alert(Reasons.Call, TimeSpan.Zero);
        }

        if (inFront)
        {
            return options.OtherDeviceForeground switch
            {
                OtherDeviceForeground.Push => new PushDecision.Alert(Reasons.OtherDeviceForeground, TimeSpan.Zero),
                OtherDeviceForeground.Delay => new PushDecision.Alert(Reasons.OtherDeviceForeground, options.OtherDeviceDelay),
                OtherDeviceForeground.Suppress => new PushDecision.Suppress(Reasons.Foreground),
            };
        }

        // it was written into a dead socket already: no grace on top
        if (situation.Unacked)
        {
            return new PushDecision.Alert(Reasons.Unacked, TimeSpan.Zero);
        }

        return situation.Account switch
        {
            AccountState.Background => new PushDecision.Alert(Reasons.Background, options.BackgroundGrace),
            AccountState.Offline => new PushDecision.Alert(Reasons.Offline, TimeSpan.Zero),
            AccountState.Unknown or AccountState.Foreground => new PushDecision.Alert(Reasons.Unknown, TimeSpan.Zero),
        };
    }
}
