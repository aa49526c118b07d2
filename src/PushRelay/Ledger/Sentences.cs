using System.Globalization;
using PushRelay.Audit;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ledger;

/// <summary>What the time line says, for people: one sentence for each thing that happened.</summary>
internal static class Sentences
{
    public static string Time(DateTimeOffset at) => at.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss 'UTC'", CultureInfo.InvariantCulture);

    public static string OfEvent(Delivery row, string? from)
    {
        var who = from is null ? "somebody" : from;
        return row.Source switch
        {
            EventSource.Test => "A test alert was asked for.",
            EventSource.Api => "An operator sent an alert.",
            EventSource.Xep0357 when row.Class is EventClass.Wakeup =>
                "The server published that there is something new, without saying what.",
            EventSource.Xep0357 when row.Class is EventClass.Badge => "The server published that nothing is unread.",
            EventSource.Xep0357 => $"The server published a message of {who}.",
            _ when row.Reason == Reasons.Update => $"Something about an earlier message of {who} changed.",
            _ => row.Class switch
            {
                EventClass.Text => $"A message of {who} came.",
                EventClass.Encrypted => $"An encrypted message of {who} came.",
                EventClass.Call => $"{who} called.",
                EventClass.CallEnded => $"The call of {who} ended.",
                EventClass.Invite => $"{who} sent an invitation.",
                EventClass.Subscribe => $"{who} wants to be a contact.",
                EventClass.Attention => $"{who} asked for attention.",
                EventClass.Wakeup => "The server says that there is something new.",
                EventClass.Badge => "The server says that nothing is unread.",
            },
        };
    }

    public static string OfDecision(Delivery row, DeliverySituation? situation)
    {
        var device = row.Device is null ? "" : $" {row.Device}";
        if (row.State == DeliveryState.Suppressed)
        {
            return $"Not alerted{(device.Length == 0 ? "" : " on" + device)}: {WhyNot(row.Reason, situation)}.";
        }

        // once it has ended otherwise, its reason says how it ended, and the situation how it began
        return $"To be alerted on{device}: {Why(IsReasonToSend(row.Reason) ? row.Reason : situation?.Account ?? "", situation)}.";
    }

    public static string OfAttempt(Delivery row, DeliveryAttempt attempt)
    {
        var took = string.Create(CultureInfo.InvariantCulture, $"after {attempt.DurationMs} ms");
        return attempt.Outcome switch
        {
            "accepted" => $"{row.Platform} accepted the alert {took}.",
            "deferred" => $"{row.Platform} did not take the alert: {Answer(attempt)}. It is tried again later.",
            "device_invalid" => $"{row.Platform} says that the device's token is dead: {Answer(attempt)}.",
            "misconfigured" => $"{row.Platform} refused this relay's credentials: {Answer(attempt)}.",
            "unknown" => $"No answer came from {row.Platform}; it is asked again with the same id.",
            _ => $"{row.Platform} refused the alert: {Answer(attempt)}.",
        };
    }

    public static string OfSettled(Delivery row) =>
        row.State switch
        {
            DeliveryState.Accepted => $"The alert was handed to {row.Platform}; the phone has not said that it came.",
            DeliveryState.Received => "The alert reached the phone.",
            DeliveryState.Opened => "The alert was opened.",
            DeliveryState.Coalesced => "It was told together with an earlier message of the conversation.",
            DeliveryState.Cancelled => $"The alert was not needed any more: {WhyNot(row.Reason, null)}.",
            DeliveryState.Expired => "The alert could not be sent within its time to live.",
            DeliveryState.Rejected => $"The alert was refused for good: {row.Reason}.",
            DeliveryState.Dead => "The alert was given up: its attempts are used up.",
            _ => "It is not ended yet.",
        };

    public static string Of(HistoryEntry entry, HistoryData data) =>
        entry.Kind switch
        {
            HistoryKind.Session => data.State switch
            {
                "closed" => $"Session {data.Resource} ended.",
                "hibernating" => $"Session {data.Resource} lost its link and can be resumed.",
                "inactive" => $"Session {data.Resource} went to the background.",
                _ => $"Session {data.Resource} is active{(data.Available == true ? "" : ", but not available")}"
                    + $"{(data.Show is null ? "" : $" and shows {data.Show}")}.",
            },
            HistoryKind.Displayed => $"The account read or answered {data.With}.",
            HistoryKind.Link => data.State == "up"
                ? $"The sessions of {entry.Server} are known from here on."
                : $"The link to {entry.Server} was lost: nobody counts as in front until it is back.",
            HistoryKind.Gap => data.Cause == "relay_down"
                ? $"From {Time(data.From!.Value)} to {Time(data.To!.Value)} no relay was running."
                : $"From {Time(data.From!.Value)} to {Time(data.To!.Value)} the server's sessions were unknown.",
        };

    public static string OfDevice(AuditRecord record) =>
        record.Action switch
        {
            AuditActions.DeviceRegistered => $"Device {record.Target} was registered by {record.Actor}.",
            AuditActions.DeviceChanged => $"The preferences of device {record.Target} were changed by {record.Actor}.",
            AuditActions.DeviceMoved => $"Device {record.Target} is gone: its token was registered elsewhere.",
            AuditActions.DeviceInvalidated => $"Device {record.Target} is invalid: the push network says that its token is dead.",
            _ => $"Device {record.Target} was removed by {record.Actor}.",
        };

    private static bool IsReasonToSend(string reason) =>
        reason
            is Reasons.Offline
                or Reasons.Background
                or Reasons.Unknown
                or Reasons.Unacked
                or Reasons.OtherDeviceForeground
                or Reasons.Call
                or Reasons.Test
                or Reasons.Operator
                or Reasons.Published
                or Reasons.Update;

    private static string Why(string reason, DeliverySituation? situation) =>
        reason switch
        {
            Reasons.Offline => "no session was connected",
            Reasons.Background => "the account was in the background",
            Reasons.Unknown => "nobody knew whether the account was in front",
            Reasons.Unacked => "it was written to a connection that was dead",
            Reasons.OtherDeviceForeground or "foreground" => "another device was in front, and this one waits for it to read",
            Reasons.Call => "a call rings on every device that is not in front",
            Reasons.Test => "a test goes out whatever the account does",
            Reasons.Operator => "an operator wants it",
            Reasons.Published => "the server published it",
            Reasons.Update => "it changes an alert that is on the phone",
            _ => situation is null ? "nothing stood against it" : $"the account was {situation.Account}",
        };

    private static string WhyNot(string reason, DeliverySituation? situation) =>
        reason switch
        {
            Reasons.Foreground when situation is { Tied: true, OtherInFront: true, OwnSession: not "foreground" } =>
                "another device was in front",
            Reasons.Foreground => "the account was in front",
            Reasons.Muted => "the user has muted this conversation on the device",
            Reasons.NotMentioned => "the user wants of this room only what names them",
            Reasons.QuietHours => "it was a quiet hour of the user",
            Reasons.NoDevice => "the account has no device",
            Reasons.DeviceInvalid => "the device's token is dead",
            Reasons.AccountDisabled => "the server has disabled the account",
            Reasons.WakeupsOff => "the app is not to be woken for something without text",
            Reasons.Stale => "the message was older than an alert is worth",
            Reasons.ReadElsewhere => "it was read or answered on another device",
            Reasons.Retracted => "the message was withdrawn",
            Reasons.CallEnded => "the call had ended",
            Reasons.DeviceRemoved => "the device was removed",
            Reasons.DeviceMoved => "the device's token was registered elsewhere",
            Reasons.AccountRemoved => "the account was removed",
            Reasons.Blocked => "the account blocked the sender",
            _ => reason,
        };

    private static string Answer(DeliveryAttempt attempt) =>
        (attempt.Status, attempt.Reason) switch
        {
            ({ } status, { } reason) => string.Create(CultureInfo.InvariantCulture, $"{reason} ({status})"),
            ({ } status, null) => status.ToString(CultureInfo.InvariantCulture),
            (null, { } reason) => reason,
            _ => "no answer",
        };
}
