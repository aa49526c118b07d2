using System.Globalization;
using System.Text.Json;
using PushRelay.Apps;
using PushRelay.Push.Encryption;

namespace PushRelay.Push.Fcm;

/// <summary>
/// A notification as FCM's HTTP v1 takes it: a data message of high priority, that the app shows. One with FCM's own <c>notification</c>
/// would be throttled, and replaced by the next one where the phone is out of reach.
/// </summary>
internal static class FcmMessage
{
    /// <summary>Names and values of <c>data</c> may have 4096 bytes; its JSON stays below, however they are counted.</summary>
    private const int DataBytesMax = 4000;

    private static readonly TimeSpan TtlMax = TimeSpan.FromDays(28);

    /// <summary>The request's body.</summary>
    /// <param name="notification">What is said.</param>
    /// <param name="token">Of the installation.</param>
    /// <param name="keys">Where its alerts are sealed.</param>
    /// <param name="alert">The app's settings of its alerts.</param>
    /// <param name="now">The time to live counts from here.</param>
    /// <param name="validateOnly">It is checked and not sent.</param>
    /// <returns>Null: it does not fit even without its texts.</returns>
    public static byte[]? Write(
        Notification notification,
        string token,
        ReceiverKeys? keys,
        AlertOptions alert,
        DateTimeOffset now,
        bool validateOnly = false
    )
    {
        var members = AlertMembers.Of(notification, alert);
        var data = keys is null ? members.Fit(DataBytesMax, m => Data(m, notification.Id)) : Sealed(members, notification.Id, keys);
        return data is null
            ? null
            : AlertMembers.Json(json =>
            {
                json.WriteStartObject();
                if (validateOnly)
                {
                    json.WriteBoolean("validate_only"u8, true);
                }

                json.WriteStartObject("message"u8);
                json.WriteString("token"u8, token);
                json.WritePropertyName("data"u8);
                json.WriteRawValue(data, skipInputValidation: true);
                json.WriteStartObject("android"u8);
                var isUpdate = notification.Update || members.Background;
                json.WriteString("priority"u8, isUpdate || notification.Calm ? "normal"u8 : "high"u8);
                if (isUpdate)
                {
                    json.WriteString("collapse_key"u8, members.Collapse);
                }

                json.WriteString("ttl"u8, Ttl(notification.ExpiresAt - now));
                json.WriteEndObject();
                json.WriteEndObject();
                json.WriteEndObject();
            });
    }

    /// <summary>Whole seconds; <c>0s</c> is now or never.</summary>
    private static string Ttl(TimeSpan left) =>
        string.Create(CultureInfo.InvariantCulture, $"{Math.Clamp((long)left.TotalSeconds, 0, (long)TtlMax.TotalSeconds)}s");

    /// <summary>Every value is a text. <c>from</c> is FCM's own word: here it is <c>sender</c>.</summary>
    private static byte[] Data(AlertMembers members, Guid id)
    {
        using var own = JsonDocument.Parse(members.ToJson());
        return AlertMembers.Json(json =>
        {
            json.WriteStartObject();
            foreach (var member in own.RootElement.EnumerateObject())
            {
                json.WriteString(
                    member.NameEquals("from"u8) ? "sender" : member.Name,
                    member.Value.ValueKind == JsonValueKind.String ? member.Value.GetString() : member.Value.GetRawText()
                );
            }

            WriteDelivery(json, id);
            json.WriteEndObject();
        });
    }

    private static byte[]? Sealed(AlertMembers members, Guid id, ReceiverKeys keys)
    {
        var text = SealedAlert.Seal(members, keys, DataBytesMax - Around("").Length);
        return text is null ? null : Around(text);

        byte[] Around(string secret) =>
            AlertMembers.Json(json =>
            {
                json.WriteStartObject();
                json.WriteString("sealed"u8, secret);
                json.WriteString("receipt"u8, members.Receipt);
                json.WriteString("badge"u8, members.Badge.ToString(CultureInfo.InvariantCulture));
                json.WriteString("thread"u8, members.Thread);
                json.WriteString("collapse"u8, members.Collapse);
                WriteDelivery(json, id);
                json.WriteEndObject();
            });
    }

    /// <summary>A repetition cannot be recognised by FCM: the app drops the second of the same.</summary>
    private static void WriteDelivery(Utf8JsonWriter json, Guid id) => json.WriteString("delivery"u8, id);
}
