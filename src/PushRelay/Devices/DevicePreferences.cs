using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using PushRelay.Apps;

namespace PushRelay.Devices;

/// <summary>What the user wants of alerts on one device. Set by <c>PATCH</c>, left alone by registrations.</summary>
internal sealed record DevicePreferences
{
    private static readonly JsonSerializerOptions Stored = new()
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Converters = { new JsonStringEnumConverter() },
    };

    public AlertPreview? Preview { get; init; }

    /// <summary>Conversations without alerts: bare JIDs, of private messages in rooms occupants' JIDs, normalised; null: none.</summary>
    public IReadOnlyList<string>? Muted { get; init; }

    /// <summary>Rooms that alert only where a message names the account; in the same form.</summary>
    public IReadOnlyList<string>? MentionsOnly { get; init; }

    /// <summary>Of rooms that are named in neither list; null: all.</summary>
    public GroupAlerts? Groups { get; init; }

    public QuietHours? QuietHours { get; init; }

    [JsonIgnore]
    public bool IsEmpty => Preview is null && Muted is null or [] && MentionsOnly is null or [] && Groups is null && QuietHours is null;

    /// <summary>No message of this conversation alerts.</summary>
    public bool IsMuted(string conversation, bool isGroup) =>
        Has(Muted, conversation) || (isGroup && Groups == GroupAlerts.None && !Has(MentionsOnly, conversation));

    /// <summary>Only a message that names the account alerts.</summary>
    public bool WantsMention(string conversation, bool isGroup) =>
        isGroup && (Has(MentionsOnly, conversation) || Groups == GroupAlerts.Mentions);

    private static bool Has(IReadOnlyList<string>? list, string conversation) =>
        list?.Contains(conversation, StringComparer.Ordinal) == true;

    public string ToJson() => JsonSerializer.Serialize(this, Stored);

    /// <returns>Null where a newer version wrote what this one does not know: better one alert too many than none.</returns>
    public static DevicePreferences? FromJson(string text)
    {
        try
        {
            return JsonSerializer.Deserialize<DevicePreferences>(text, Stored);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>Which messages of rooms alert.</summary>
internal enum GroupAlerts
{
    All,

    /// <summary>Those that name the account.</summary>
    Mentions,
    None,
}

/// <summary>What quiet hours do to an alert.</summary>
internal enum QuietAlerts
{
    /// <summary>It makes no sound and lights no screen.</summary>
    Silent,

    /// <summary>It is not sent.</summary>
    None,
}

/// <summary>Hours of the day without alerts, from inclusive to exclusive; they go over midnight where <c>To</c> is the earlier
/// one.</summary>
internal sealed record QuietHours(TimeOnly From, TimeOnly To, string TimeZone)
{
    private const string Format = "HH:mm";

    public QuietAlerts Alerts { get; init; }

    /// <summary>Calls ring also in quiet hours.</summary>
    public bool Calls { get; init; }

    /// <summary>By local time in the zone, with its summer time. False in a zone that this machine does not know.</summary>
    public bool Contains(DateTimeOffset instant) =>
        TimeZoneInfo.TryFindSystemTimeZoneById(TimeZone, out var zone)
        && TimeOnly.FromTimeSpan(TimeZoneInfo.ConvertTime(instant, zone).TimeOfDay).IsBetween(From, To);

    public static bool TryParseTime(string text, out TimeOnly time) =>
        TimeOnly.TryParseExact(text, Format, CultureInfo.InvariantCulture, DateTimeStyles.None, out time);

    public static string Write(TimeOnly time) => time.ToString(Format, CultureInfo.InvariantCulture);
}
