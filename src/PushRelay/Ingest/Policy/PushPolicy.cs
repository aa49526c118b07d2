using PushRelay.Apps;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest.Policy;

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

        if (situation.AccountDisabled)
        {
            return new PushDecision.Suppress(Reasons.AccountDisabled);
        }

        if (situation.WakeupsOff)
        {
            return new PushDecision.Suppress(Reasons.WakeupsOff);
        }

        if (situation.IsStale)
        {
            return new PushDecision.Suppress(Reasons.Stale);
        }

        if (situation.Muted)
        {
            return new PushDecision.Suppress(Reasons.Muted);
        }

        if (situation.LacksMention)
        {
            return new PushDecision.Suppress(Reasons.NotMentioned);
        }

        if (situation.QuietHours && situation.NoAlertsWhenQuiet)
        {
            return new PushDecision.Suppress(Reasons.QuietHours);
        }

        if (situation.OwnSession == AccountState.Foreground)
        {
            return new PushDecision.Suppress(Reasons.Foreground);
        }

        // a call rings on every phone that is not in front itself, and does not wait
        if (situation.Class == EventClass.Call)
        {
            return new PushDecision.Alert(situation.Published ? Reasons.Published : Reasons.Call, TimeSpan.Zero);
        }

        // so it is another device that is in front
        if (situation.Account == AccountState.Foreground)
        {
            return options.OtherDeviceForeground switch
            {
                OtherDeviceForeground.Push => new PushDecision.Alert(Reasons.OtherDeviceForeground, TimeSpan.Zero),
                OtherDeviceForeground.Delay => new PushDecision.Alert(Reasons.OtherDeviceForeground, options.OtherDeviceDelay),
                OtherDeviceForeground.Suppress => new PushDecision.Suppress(Reasons.Foreground),
            };
        }

        if (situation.Published || situation.Operator)
        {
            return new PushDecision.Alert(situation.Published ? Reasons.Published : Reasons.Operator, TimeSpan.Zero);
        }

        // it was written to a dead connection before: it has waited long enough
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
