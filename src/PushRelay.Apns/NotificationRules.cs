using System.Buffers;
using System.Text;

namespace PushRelay.Apns;

/// <summary>What Apple would refuse whatever the device: said before anything is sent, as the caller's mistake.</summary>
internal static class NotificationRules
{
    private static readonly SearchValues<char> HexDigits = SearchValues.Create("0123456789abcdefABCDEF");

    /// <exception cref="ArgumentException">Names the member and the rule.</exception>
    public static void Check(ApnsNotification notification, bool byCertificate)
    {
        if (byCertificate && notification is { PushType: ApnsPushType.Location or ApnsPushType.LiveActivity })
        {
            throw Refuse(nameof(notification.PushType), "needs a signing key: Apple does not take it from a connection with a certificate");
        }

        if (notification.DeviceToken is not { Length: >= 64 and <= 400 } token || token.AsSpan().ContainsAnyExcept(HexDigits))
        {
            throw Refuse(nameof(notification.DeviceToken), "must be 64 to 400 hexadecimal digits");
        }

        CheckHeaderText(notification.Topic, nameof(notification.Topic), bytesMax: 255);
        if (notification.CollapseId is { } collapseId)
        {
            CheckHeaderText(collapseId, nameof(notification.CollapseId), bytesMax: 64);
        }

        if (notification.Priority is not (10 or 5 or 1))
        {
            throw Refuse(nameof(notification.Priority), "must be 10, 5 or 1");
        }

        if (notification is { PushType: ApnsPushType.Background, Priority: not 5 })
        {
            throw Refuse(nameof(notification.Priority), "must be 5 for a background push");
        }

        if (notification is { PushType: ApnsPushType.Voip, Expiration: null })
        {
            throw Refuse(nameof(notification.Expiration), "must be set for a VoIP push: a call that rings late is worse than none");
        }

        var payloadBytesMax = notification.PushType == ApnsPushType.Voip ? 5120 : 4096;
        if (notification.Payload.Length == 0 || notification.Payload.Length > payloadBytesMax)
        {
            throw Refuse(
                nameof(notification.Payload),
                $"must have between 1 and {payloadBytesMax} bytes, not {notification.Payload.Length}"
            );
        }
    }

    public static string Topic(ApnsNotification notification) =>
        notification.PushType switch
        {
            ApnsPushType.Alert or ApnsPushType.Background or ApnsPushType.Mdm => notification.Topic,
            ApnsPushType.Voip => notification.Topic + ".voip",
            ApnsPushType.Complication => notification.Topic + ".complication",
            ApnsPushType.FileProvider => notification.Topic + ".pushkit.fileprovider",
            ApnsPushType.Location => notification.Topic + ".location-query",
            ApnsPushType.LiveActivity => notification.Topic + ".push-type.liveactivity",
            ApnsPushType.PushToTalk => notification.Topic + ".voip-ptt",
            ApnsPushType.Widgets => notification.Topic + ".push-type.widgets",
            ApnsPushType.Controls => notification.Topic + ".push-type.controls",
        };

    public static string HeaderValue(ApnsPushType type) =>
        type switch
        {
            ApnsPushType.Alert => "alert",
            ApnsPushType.Background => "background",
            ApnsPushType.Voip => "voip",
            ApnsPushType.Complication => "complication",
            ApnsPushType.FileProvider => "fileprovider",
            ApnsPushType.Mdm => "mdm",
            ApnsPushType.Location => "location",
            ApnsPushType.LiveActivity => "liveactivity",
            ApnsPushType.PushToTalk => "pushtotalk",
            ApnsPushType.Widgets => "widgets",
            ApnsPushType.Controls => "controls",
        };

    /// <summary>Printable ASCII only: nothing that could end the header and begin another.</summary>
    private static void CheckHeaderText(string? text, string member, int bytesMax)
    {
        if (string.IsNullOrEmpty(text) || Encoding.UTF8.GetByteCount(text) > bytesMax)
        {
            throw Refuse(member, $"must have between 1 and {bytesMax} bytes");
        }

        if (text.AsSpan().ContainsAnyExceptInRange(' ', '~') || text[0] == ' ' || text[^1] == ' ')
        {
            throw Refuse(member, "must be printable ASCII without a space at its ends");
        }
    }

    private static ArgumentException Refuse(string member, string rule) => new($"{member} {rule}.", member);
}
