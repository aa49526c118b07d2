using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Push.Encryption;
using PushRelay.Push.Texts;

namespace PushRelay.Push.Apns;

/// <summary>Says a <see cref="Notification"/> as the phone shows it.</summary>
internal static class ApnsAlert
{
    /// <summary>The payload; sealed where the device has keys for that.</summary>
    /// <returns>Null: it does not fit even without its text.</returns>
    public static byte[]? Write(Notification notification, AlertOptions options, int bytesMax)
    {
        try
        {
            return SealedAlert.KeysOf(notification.Address) is { } keys
                ? WriteSealed(notification, options, keys, bytesMax)
                : Payload(notification, options).ToBytes(bytesMax);
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    /// <summary>The alert as the phone gets it. Under <see cref="AlertWords.Keys"/> words of ours are loc-keys that the app brings the text
    /// of.</summary>
    public static ApnsPayload Payload(Notification notification, AlertOptions options)
    {
        var members = AlertMembers.Of(notification, options);
        var payload = New(members, options);
        (payload.Title, payload.Subtitle, payload.Body) = (members.Title, members.Subtitle, members.Body);
        if (members is { Body: null, Words: { } words })
        {
            (payload.LocKey, payload.LocArgs) = (words.Key, words.Arguments.Count > 0 ? words.Arguments : null);
        }

        payload.Custom["account"] = members.Account;
        if (members.From is not null)
        {
            payload.Custom["from"] = members.From;
        }

        if (members.Id is not null)
        {
            payload.Custom["id"] = members.Id;
        }

        payload.Custom["type"] = members.Type;
        if (members.Background)
        {
            payload.Custom["thread"] = members.Thread;
        }

        payload.Custom["receipt"] = members.Receipt;
        payload.Custom["kind"] = members.Kind;
        if (members.Count > 1)
        {
            payload.Custom["count"] = members.Count;
        }

        if (members is { Encrypted: not null, Iv: not null })
        {
            (payload.Custom["encrypted"], payload.Custom["iv"]) = (members.Encrypted, members.Iv);
        }
        else if (notification.Tigase)
        {
            AddTigase(payload, members, notification);
        }

        if (members.Data is not null)
        {
            payload.Custom["data"] = members.DataJson();
        }

        if (members.Call is not null)
        {
            payload.Custom["call"] = members.CallJson();
        }

        if (members.Invite is not null)
        {
            payload.Custom["invite"] = members.InviteJson();
        }

        return payload;
    }

    /// <summary>What the extensions of Siskin, Snikket and BeagleIM read beside <c>account</c>, of a plain alert.</summary>
    private static void AddTigase(ApnsPayload payload, AlertMembers members, Notification notification)
    {
        if (members.From is not null)
        {
            payload.Custom["sender"] = members.From;
        }

        if (members.Body is not null)
        {
            payload.Custom["body"] = members.Body;
        }

        if (members.From is not null && notification.Nick is not null)
        {
            payload.Custom["nickname"] = notification.Nick;
        }

        payload.Custom["unread-messages"] = members.Badge;
    }

    /// <summary>Apple sees that there is something; the app's notification service extension opens what it is.</summary>
    private static byte[]? WriteSealed(Notification notification, AlertOptions options, ReceiverKeys keys, int bytesMax)
    {
        var members = AlertMembers.Of(notification, options);
        var payload = New(members, options);
        if (!members.Background)
        {
            if (options.Texts == AlertWords.Keys)
            {
                payload.LocKey = "PR_MESSAGE";
            }
            else
            {
                payload.Body = AlertText.Generic(notification.Locale, options.Language);
            }
        }

        payload.Custom["sealed"] = "";
        payload.Custom["receipt"] = notification.Receipt;
        if (SealedAlert.Seal(members, keys, bytesMax - payload.ToBytes(bytesMax).Length) is not { } secret)
        {
            return null;
        }

        payload.Custom["sealed"] = secret;
        return payload.ToBytes(bytesMax);
    }

    private static ApnsPayload New(AlertMembers members, AlertOptions options) =>
        members.Background
            ? new() { Badge = members.Kind == "wakeup" ? null : members.Badge, ContentAvailable = true }
            : new()
            {
                Badge = members.Badge,
                Sound = members.Silent || string.IsNullOrEmpty(options.Sound) ? null : options.Sound,
                InterruptionLevel = members.Silent ? ApnsInterruptionLevel.Passive : null,
                ThreadId = members.Thread,
                MutableContent = true,
            };
}
