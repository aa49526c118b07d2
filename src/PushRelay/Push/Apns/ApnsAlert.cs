using System.Globalization;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Push.Encryption;

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

    /// <summary>The alert as the phone gets it. Where words of ours show, they are loc-keys that the app brings the text of.</summary>
    public static ApnsPayload Payload(Notification notification, AlertOptions options)
    {
        var members = AlertMembers.Of(notification, options.Preview);
        var payload = New(notification, options);
        (payload.Title, payload.Body) = (members.Title, members.Body);
        if (payload.Body is null)
        {
            (payload.LocKey, payload.LocArgs) = notification.Kind switch
            {
                PushKind.Encrypted => ("PR_ENCRYPTED", null),
                PushKind.Call => ("PR_CALL", null),
                PushKind.Invite => ("PR_INVITE", null),
                PushKind.Message when members.Title is not null => (
                    "PR_MESSAGE_FROM",
                    (IReadOnlyList<string>?)[AlertMembers.NameOf(notification)]
                ),
                PushKind.Message when notification.Count > 1 => (
                    "PR_MESSAGES_N",
                    [notification.Count.ToString(CultureInfo.InvariantCulture)]
                ),
                PushKind.Message => ("PR_MESSAGE", null),
            };
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
        payload.Custom["receipt"] = members.Receipt;
        if (members.Count > 1)
        {
            payload.Custom["count"] = members.Count;
        }

        return payload;
    }

    /// <summary>Apple sees that there is something; the app's notification service extension opens what it is.</summary>
    private static byte[]? WriteSealed(Notification notification, AlertOptions options, ReceiverKeys keys, int bytesMax)
    {
        var payload = New(notification, options);
        payload.LocKey = "PR_MESSAGE";
        payload.Custom["sealed"] = "";
        payload.Custom["receipt"] = notification.Receipt;
        var members = AlertMembers.Of(notification, options.Preview);
        if (SealedAlert.Seal(members, keys, bytesMax - payload.ToBytes(bytesMax).Length) is not { } secret)
        {
            return null;
        }

        payload.Custom["sealed"] = secret;
        return payload.ToBytes(bytesMax);
    }

    private static ApnsPayload New(Notification notification, AlertOptions options) =>
        new()
        {
            Badge = notification.Badge,
            Sound = string.IsNullOrEmpty(options.Sound) ? null : options.Sound,
            ThreadId = notification.ThreadId,
            MutableContent = true,
        };
}
