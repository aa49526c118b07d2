using System.Globalization;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Push.Apns;

/// <summary>Says a <see cref="Notification"/> as the phone shows it.</summary>
internal static class ApnsAlert
{
    private const int TitleElementsMax = 100;

    // longer ones are left out: cut they would name nobody
    private const int NameCharsMax = 300;

    /// <summary>The alert as the phone gets it. Where words of ours show, they are loc-keys that the app brings the text of.</summary>
    public static ApnsPayload Payload(Notification notification, AlertOptions options)
    {
        // the user may show less than the app, never more
        var preview = (AlertPreview)Math.Max((int)notification.Preview, (int)options.Preview);
        var group = notification.Type == "groupchat";
        var title = Cut(group ? LocalPart(notification.From) : notification.From);
        var shown = notification.Count > 1 ? $"{title} ({notification.Count})" : title;
        var hasText = notification is { Kind: PushKind.Message, Body: not null };
        var payload = new ApnsPayload
        {
            Title = preview == AlertPreview.None ? null : shown,
            Body =
                preview == AlertPreview.Full && hasText
                    ? group && notification.Nick is not null
                        ? $"{Cut(notification.Nick)}: {notification.Body}"
                        : notification.Body
                    : null,
            Badge = notification.Badge,
            Sound = string.IsNullOrEmpty(options.Sound) ? null : options.Sound,
            ThreadId = notification.ThreadId,
            MutableContent = true,
        };
        if (payload.Body is null)
        {
            (payload.LocKey, payload.LocArgs) = notification.Kind switch
            {
                PushKind.Encrypted => ("PR_ENCRYPTED", null),
                PushKind.Call => ("PR_CALL", null),
                PushKind.Invite => ("PR_INVITE", null),
                PushKind.Message when preview == AlertPreview.None && notification.Count > 1 => (
                    "PR_MESSAGES_N",
                    (IReadOnlyList<string>?)[notification.Count.ToString(CultureInfo.InvariantCulture)]
                ),
                PushKind.Message when preview == AlertPreview.None => ("PR_MESSAGE", null),
                PushKind.Message => ("PR_MESSAGE_FROM", [title]),
            };
        }

        payload.Custom["account"] = notification.Account;
        if (preview != AlertPreview.None && notification.From.Length <= NameCharsMax)
        {
            payload.Custom["from"] = notification.From;
        }

        if (notification.MessageId is { Length: <= NameCharsMax })
        {
            payload.Custom["id"] = notification.MessageId;
        }

        payload.Custom["type"] = notification.Type;
        payload.Custom["receipt"] = notification.Receipt;
        if (notification.Count > 1)
        {
            payload.Custom["count"] = notification.Count;
        }

        return payload;
    }

    /// <summary>A name that is longer than any screen, cut between characters.</summary>
    private static string Cut(string name)
    {
        if (name.Length <= TitleElementsMax)
        {
            return name;
        }

        var elements = StringInfo.ParseCombiningCharacters(name);
        return elements.Length > TitleElementsMax ? name[..elements[TitleElementsMax]] + "…" : name;
    }

    private static string LocalPart(string jid) => Jid.TryParse(jid, out var parsed) && parsed.Local is { } local ? local : jid;
}
