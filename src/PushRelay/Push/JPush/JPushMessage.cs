using System.Globalization;
using System.Text.Json;
using PushRelay.Apps;
using PushRelay.Push.Encryption;
using PushRelay.Push.Texts;

namespace PushRelay.Push.JPush;

/// <summary>
/// A notification as JPush's REST v3 takes it: for exactly one registration id, never for everybody; with a part for each system, for which
/// of them the id is of is not known here.
/// </summary>
internal static class JPushMessage
{
    // JPush's limits for the parts, with room for what it adds
    private const int IosBytesMax = 2000;
    private const int AndroidBytesMax = 3900;
    private const int BadgeMax = 99;
    private static readonly TimeSpan TtlMax = TimeSpan.FromDays(3);

    // chat messages are of the class "system", which the vendors do not count as advertising; those that ask for a category get theirs
    private static readonly byte[] VendorChannels =
        """
        {"huawei":{"category":"IM","importance":"NORMAL"},"honor":{"importance":"NORMAL"},
        "oppo":{"category":"IM","notify_level":2},"vivo":{"category":"IM","classification":1}}
        """u8.ToArray();

    /// <summary>The request's body.</summary>
    /// <param name="notification">What is said.</param>
    /// <param name="registrationId">Of the installation.</param>
    /// <param name="cid">What a repetition is recognised by.</param>
    /// <param name="isProduction">Which of Apple's environments the installation is of, where it is one of Apple's.</param>
    /// <param name="keys">Where its alerts are sealed.</param>
    /// <param name="most">What may be said: sealed to the phone, else to JPush.</param>
    /// <param name="alert">The app's settings of its alerts.</param>
    /// <param name="now">The time to live counts from here.</param>
    /// <returns>Null: it does not fit even without its texts.</returns>
    public static byte[]? Write(
        Notification notification,
        string registrationId,
        string cid,
        bool isProduction,
        ReceiverKeys? keys,
        AlertPreview most,
        AlertOptions alert,
        DateTimeOffset now
    )
    {
        // JPush shows what it is given: there is nobody to write a key's text
        var members = AlertMembers.Of(notification, Plain(alert), most);
        if (most == AlertPreview.None)
        {
            members = members with { Body = AlertText.Generic(notification.Locale, alert.Language) };
        }

        var sound = members.Silent ? "" : alert.Sound;
        Action<Utf8JsonWriter, AlertMembers> extras;
        string? words = null;
        if (keys is null)
        {
            extras = (json, m) => m.Write(json, withTexts: false);
        }
        else
        {
            words = AlertText.Generic(notification.Locale, alert.Language);
            var around = Ios(
                members with
                {
                    Title = null,
                    Body = words,
                },
                words,
                sound,
                (json, m) => WriteSealed(json, m, "", notification.Id)
            );
            if (SealedAlert.Seal(members, keys, IosBytesMax - around.Length) is not { } secret)
            {
                return null;
            }

            extras = (json, m) => WriteSealed(json, m, secret, notification.Id);
            members = members with { Title = null, Body = null };
        }

        words ??= members.Body ?? AlertText.Generic(notification.Locale, alert.Language);
        var android = members.Fit(AndroidBytesMax, m => Android(m, words, extras));
        var ios = members.Fit(IosBytesMax, m => Ios(m, words, sound, extras));
        var hmos = members.Fit(AndroidBytesMax, m => HarmonyOs(m, words, extras));
        if (android is null || ios is null || hmos is null)
        {
            return null;
        }

        return AlertMembers.Json(json =>
        {
            json.WriteStartObject();
            json.WriteString("cid"u8, cid);
            json.WriteStartArray("platform"u8);
            json.WriteStringValue("android"u8);
            json.WriteStringValue("ios"u8);
            json.WriteStringValue("hmos"u8);
            json.WriteEndArray();
            json.WriteStartObject("audience"u8);
            json.WriteStartArray("registration_id"u8);
            json.WriteStringValue(registrationId);
            json.WriteEndArray();
            json.WriteEndObject();
            json.WriteStartObject("notification"u8);
            WritePart(json, "android"u8, android);
            WritePart(json, "ios"u8, ios);
            WritePart(json, "hmos"u8, hmos);
            json.WriteEndObject();
            json.WriteStartObject("options"u8);
            json.WriteNumber("time_to_live"u8, Math.Clamp((long)(notification.ExpiresAt - now).TotalSeconds, 0, (long)TtlMax.TotalSeconds));
            json.WriteBoolean("apns_production"u8, isProduction);
            json.WriteString("apns_collapse_id"u8, members.Collapse);
            json.WriteNumber("classification"u8, 1);
            WritePart(json, "third_party_channel"u8, VendorChannels);
            json.WriteEndObject();
            json.WriteEndObject();
        });
    }

    private static AlertOptions Plain(AlertOptions alert) =>
        new()
        {
            Preview = alert.Preview,
            Sound = alert.Sound,
            Texts = AlertWords.Plain,
            Language = alert.Language,
            Collapse = alert.Collapse,
        };

    private static byte[] Android(AlertMembers members, string words, Action<Utf8JsonWriter, AlertMembers> extras) =>
        Part(json =>
        {
            WriteTexts(json, members, words);
            json.WriteNumber("priority"u8, 1);
            json.WriteString("category"u8, "msg"u8);
            WriteExtras(json, members, extras);
        });

    private static byte[] HarmonyOs(AlertMembers members, string words, Action<Utf8JsonWriter, AlertMembers> extras) =>
        Part(json =>
        {
            WriteTexts(json, members, words);
            json.WriteString("category"u8, "IM"u8);
            json.WriteNumber("badge_set_num"u8, Math.Min(members.Badge, BadgeMax));
            WriteExtras(json, members, extras);
        });

    /// <summary>An absolute badge, as text: a number alone JPush would not take, and without one it adds one.</summary>
    private static byte[] Ios(AlertMembers members, string words, string sound, Action<Utf8JsonWriter, AlertMembers> extras) =>
        Part(json =>
        {
            json.WriteStartObject("alert"u8);
            if (members.Title is not null)
            {
                json.WriteString("title"u8, members.Title);
            }

            json.WriteString("body"u8, members.Body ?? words);
            json.WriteEndObject();
            if (sound.Length > 0)
            {
                json.WriteString("sound"u8, sound);
            }

            json.WriteString("badge"u8, members.Badge.ToString(CultureInfo.InvariantCulture));
            json.WriteString("thread-id"u8, members.Thread);
            json.WriteBoolean("mutable-content"u8, true);
            WriteExtras(json, members, extras);
        });

    private static byte[] Part(Action<Utf8JsonWriter> write) =>
        AlertMembers.Json(json =>
        {
            json.WriteStartObject();
            write(json);
            json.WriteEndObject();
        });

    private static void WriteTexts(Utf8JsonWriter json, AlertMembers members, string words)
    {
        json.WriteString("alert"u8, members.Body is { Length: > 0 } body ? body : words);
        if (members.Title is { Length: > 0 } title)
        {
            json.WriteString("title"u8, title);
        }
    }

    private static void WriteExtras(Utf8JsonWriter json, AlertMembers members, Action<Utf8JsonWriter, AlertMembers> write)
    {
        json.WriteStartObject("extras"u8);
        write(json, members);
        json.WriteEndObject();
    }

    private static void WriteSealed(Utf8JsonWriter json, AlertMembers members, string secret, Guid id)
    {
        json.WriteString("sealed"u8, secret);
        json.WriteString("receipt"u8, members.Receipt);
        json.WriteNumber("badge"u8, members.Badge);
        json.WriteString("thread"u8, members.Thread);
        json.WriteString("collapse"u8, members.Collapse);
        json.WriteString("delivery"u8, id);
    }

    private static void WritePart(Utf8JsonWriter json, ReadOnlySpan<byte> name, byte[] part)
    {
        json.WritePropertyName(name);
        json.WriteRawValue(part, skipInputValidation: true);
    }
}
