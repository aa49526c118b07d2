using System.Globalization;
using System.Xml.Linq;
using PushRelay.Outbox;
using PushRelay.Xmpp;

namespace PushRelay.PushService;

/// <summary>
/// What one publish of any server says (XEP-0357 section 7, and XEP-0060's <c>publish</c> around it). A field that is empty is
/// absent; what is not known is passed over.
/// </summary>
internal sealed record Publish
{
    private const int FieldsMax = 50;
    private const int EncryptedCharsMax = 3_300;
    private const int IvCharsMax = 64;

    private static readonly XNamespace Form = "jabber:x:data";
    private static readonly XNamespace Encryption = "tigase:push:encrypt:0";
    private static readonly XNamespace Priorities = "tigase:push:priority:0";
    private static readonly XNamespace Calls = "tigase:push:jingle:0";
    private static readonly XNamespace OfflineRooms = "http://tigase.org/protocol/muc#offline";

    public static readonly XNamespace PubSub = "http://jabber.org/protocol/pubsub";
    public static readonly XNamespace Push = "urn:xmpp:push:0";
    public static readonly XNamespace Push2 = "urn:xmpp:push2:0";

    public static readonly IReadOnlyCollection<XName> Names =
    [
        PubSub + "pubsub",
        PubSub + "publish",
        PubSub + "item",
        PubSub + "publish-options",
        Push + "notification",
        Push2 + "notification",
        Push2 + "client",
        Push2 + "priority",
        Push2 + "voip",
        Form + "x",
        Form + "field",
        Form + "value",
        Encryption + "encrypted",
        Priorities + "priority",
        Calls + "jingle",
        OfflineRooms + "groupchat",
        OfflineRooms + "nickname",
        "node",
        "var",
        "iv",
        "action",
        "sid",
    ];

    /// <summary>What servers write instead of a text that they do not tell.</summary>
    private static readonly string[] NoText = ["New Message!", "New message", "New Message"];

    /// <summary>What servers write instead of a text that they cannot read.</summary>
    private static readonly string[] EncryptedText = ["(encrypted)", "New secure message. Open to see the message."];

    /// <summary>Names the device.</summary>
    public required string Node { get; init; }

    public string? Secret { get; init; }

    /// <summary>The push2 form, which brings no secret.</summary>
    public bool IsPush2 { get; init; }

    public required EventClass Class { get; init; }

    /// <summary>As the server writes it, with a resource or without.</summary>
    public Jid? Sender { get; init; }

    /// <summary>Who writes in a room.</summary>
    public string? Nick { get; init; }

    public bool IsGroup { get; init; }

    public string? Body { get; init; }

    /// <summary>Unread messages, as the server counts them.</summary>
    public int? Count { get; init; }

    public string? CallId { get; init; }

    /// <summary>How a call ended, in the bridge's words.</summary>
    public string? Ended { get; init; }

    /// <summary>What the server encrypted to the app, and its initialisation vector.</summary>
    public (string Text, string Iv)? Encrypted { get; init; }

    /// <summary>The payload of an IQ of type <c>set</c>.</summary>
    /// <returns>Null: it is no publish of a notification.</returns>
    public static Publish? Read(XElement pubsub)
    {
        if (
            pubsub.Element(PubSub + "publish") is not { } publish
            || (string?)publish.Attribute("node") is not { Length: > 0 } node
            || publish.Element(PubSub + "item") is not { } item
        )
        {
            return null;
        }

        var notification = item.Element(Push + "notification");
        // Prosody's module of 2020 and older puts the form next to the notification, not into it
        var form = notification?.Element(Form + "x") ?? item.Element(Form + "x");
        if (notification is null && form is null)
        {
            return null;
        }

        var options = FieldsOf(pubsub.Element(PubSub + "publish-options")?.Element(Form + "x"));
        return Read(notification, FieldsOf(form)) with { Node = node, Secret = options.GetValueOrDefault("secret") };
    }

    /// <summary>A message with a <c>notification</c> of push2.</summary>
    /// <returns>Null: it names no device.</returns>
    public static Publish? ReadPush2(XElement notification) =>
        notification.Element(Push2 + "client")?.Value is { Length: > 0 } client
            ? new Publish
            {
                Node = client,
                IsPush2 = true,
                Class = notification.Element(Push2 + "priority")?.Value.Trim() is "high" or "normal" ? EventClass.Text : EventClass.Wakeup,
            }
            : null;

    private static Publish Read(XElement? notification, Dictionary<string, string> fields)
    {
        var isHigh = notification?.Element(Priorities + "priority")?.Value.Trim() == "high";
        var room = notification?.Element(OfflineRooms + "groupchat");
        var count = int.TryParse(fields.GetValueOrDefault("message-count"), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : (int?)null;
        var body = fields.GetValueOrDefault("last-message-body");
        var publish = new Publish
        {
            Node = "",
            Class = EventClass.Text,
            Sender = Jid.TryParse(fields.GetValueOrDefault("last-message-sender"), out var sender) ? sender : null,
            IsGroup = room is not null,
            Nick = room is null ? null : NonEmpty(room.Element(OfflineRooms + "nickname")?.Value) ?? sender?.Resource,
            Count = count,
        };
        if (notification?.Element(Encryption + "encrypted") is { } encrypted)
        {
            return ReadEncrypted(publish, encrypted, isHigh);
        }

        if (notification?.Element(Calls + "jingle") is { } call)
        {
            return ReadCall(publish, call);
        }

        if (EncryptedText.Contains(body))
        {
            return publish with { Class = EventClass.Encrypted };
        }

        if (body is not null || isHigh)
        {
            return publish with { Body = NoText.Contains(body) ? null : body };
        }

        return publish with
        {
            Class = count == 0 ? EventClass.Badge : EventClass.Wakeup,
        };
    }

    private static Publish ReadEncrypted(Publish publish, XElement encrypted, bool isHigh)
    {
        var (text, iv) = (encrypted.Value.Trim(), ((string?)encrypted.Attribute("iv"))?.Trim());
        var isCall = (string?)encrypted.Attribute("type") == "voip";
        return publish with
        {
            // the same mark is on the end of a call, which would ring: only its beginning is urgent
            Class =
                !isCall ? EventClass.Encrypted
                : isHigh ? EventClass.Call
                : EventClass.Wakeup,
            Encrypted =
                text.Length is > 0 and <= EncryptedCharsMax && iv is { Length: > 0 and <= IvCharsMax } && IsBase64(text) && IsBase64(iv)
                    ? (text, iv)
                    : null,
        };
    }

    private static Publish ReadCall(Publish publish, XElement call)
    {
        var ended = (string?)call.Attribute("action") switch
        {
            "retract" or "session-terminate" or "finish" => "retracted",
            "accept" or "proceed" or "session-accept" => "answered",
            "reject" => "rejected",
            _ => null,
        };
        return publish with
        {
            Class =
                ended is not null ? EventClass.CallEnded
                : (string?)call.Attribute("action") is "propose" or "session-initiate" ? EventClass.Call
                : EventClass.Wakeup,
            CallId = NonEmpty((string?)call.Attribute("sid")),
            Ended = ended,
        };
    }

    /// <summary>The first value of each field that has one.</summary>
    private static Dictionary<string, string> FieldsOf(XElement? form)
    {
        var fields = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var field in form?.Elements(Form + "field").Take(FieldsMax) ?? [])
        {
            if ((string?)field.Attribute("var") is { } name && NonEmpty(field.Element(Form + "value")?.Value) is { } value)
            {
                fields.TryAdd(name, value);
            }
        }

        return fields;
    }

    private static string? NonEmpty(string? text) => string.IsNullOrWhiteSpace(text) ? null : text;

    private static bool IsBase64(string text) => System.Buffers.Text.Base64.IsValid(text);
}
