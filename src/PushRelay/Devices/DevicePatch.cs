using System.Text.Json;
using System.Text.Json.Nodes;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Devices;

/// <summary>An RFC 7396 merge patch of a device's preferences: exactly the members <c>preview</c>, <c>muted</c>,
/// <c>mentionsOnly</c>, <c>groups</c> and <c>quietHours</c>.</summary>
internal static class DevicePatch
{
    private const int MutedMax = 200;

    /// <summary>The preferences after the patch; null with what is wrong by field path.</summary>
    public static DevicePreferences? Apply(JsonObject patch, Device device, Dictionary<string, string> errors)
    {
        var preferences = device.Preferences ?? new DevicePreferences();
        foreach (var (name, value) in patch)
        {
            preferences = name switch
            {
                "preview" => preferences with { Preview = Preview(value, errors) },
                "muted" => preferences with { Muted = Conversations(name, value, errors) },
                "mentionsOnly" => preferences with { MentionsOnly = Conversations(name, value, errors) },
                "groups" => preferences with { Groups = Groups(value, errors) },
                "quietHours" => preferences with { QuietHours = Quiet(value, preferences.QuietHours, device.TimeZone, errors) },
                _ => Refuse(
                    preferences,
                    name,
                    "is not a preference; a patch takes preview, muted, mentionsOnly, groups and quietHours",
                    errors
                ),
            };
        }

        return errors.Count == 0 ? preferences : null;
    }

    private static AlertPreview? Preview(JsonNode? value, Dictionary<string, string> errors) =>
        Text(value) switch
        {
            _ when value is null => null,
            "full" => AlertPreview.Full,
            "sender" => AlertPreview.Sender,
            "none" => AlertPreview.None,
            _ => Refuse<AlertPreview?>(null, "preview", "must be \"full\", \"sender\", \"none\" or null", errors),
        };

    private static GroupAlerts? Groups(JsonNode? value, Dictionary<string, string> errors) =>
        Text(value) switch
        {
            _ when value is null => null,
            "all" => GroupAlerts.All,
            "mentions" => GroupAlerts.Mentions,
            "none" => GroupAlerts.None,
            _ => Refuse<GroupAlerts?>(null, "groups", "must be \"all\", \"mentions\", \"none\" or null", errors),
        };

    private static string[]? Conversations(string field, JsonNode? value, Dictionary<string, string> errors)
    {
        if (value is null)
        {
            return null;
        }

        if (value is not JsonArray { Count: <= MutedMax } list)
        {
            return Refuse<string[]?>(null, field, $"must be an array of at most {MutedMax} JIDs of conversations, or null", errors);
        }

        var muted = new List<string>();
        for (var i = 0; i < list.Count; i++)
        {
            if (Jid.TryParse(Text(list[i]), out var jid) && (jid.IsBare || jid.Local is not null))
            {
                muted.Add(jid.ToString());
            }
            else
            {
                Refuse(0, $"{field}[{i}]", "must be the JID of a conversation, such as room@conference.example.com", errors);
            }
        }

        return [.. muted.Distinct(StringComparer.Ordinal)];
    }

    private static QuietHours? Quiet(JsonNode? value, QuietHours? before, string? deviceZone, Dictionary<string, string> errors)
    {
        if (value is null)
        {
            return null;
        }

        if (value is not JsonObject patch)
        {
            return Refuse<QuietHours?>(null, "quietHours", "must be an object or null", errors);
        }

        foreach (var (name, _) in patch.Where(member => member.Key is not ("from" or "to" or "timeZone" or "alerts" or "calls")))
        {
            Refuse(0, $"quietHours.{name}", "is not a member of quietHours", errors);
        }

        var from = Time("from", before?.From);
        var to = Time("to", before?.To);
        if (from is not null && from == to)
        {
            Refuse(0, "quietHours.to", "must be another time than from", errors);
        }

        var zone = patch.TryGetPropertyValue("timeZone", out var named)
            ? Text(named) ?? (named is null ? deviceZone : "")
            : before?.TimeZone ?? deviceZone;
        zone = DeviceRules.NormaliseTimeZone(zone);
        if (zone is null || !DeviceRules.IsTimeZone(zone))
        {
            Refuse(0, "quietHours.timeZone", "must be a time zone of the IANA database, such as Asia/Shanghai", errors);
        }

        QuietAlerts? alerts = patch.TryGetPropertyValue("alerts", out var given)
            ? Text(given) switch
            {
                _ when given is null => QuietAlerts.Silent,
                "silent" => QuietAlerts.Silent,
                "none" => QuietAlerts.None,
                _ => Refuse<QuietAlerts?>(null, "quietHours.alerts", "must be \"silent\", \"none\" or null", errors),
            }
            : before?.Alerts ?? QuietAlerts.Silent;
        bool? calls = patch.TryGetPropertyValue("calls", out var ring)
            ? ring?.GetValueKind() switch
            {
                null or JsonValueKind.False => false,
                JsonValueKind.True => true,
                _ => Refuse<bool?>(null, "quietHours.calls", "must be true, false or null", errors),
            }
            : before?.Calls ?? false;
        return from is null || to is null || zone is null || alerts is null || calls is null
            ? null
            : new QuietHours(from.Value, to.Value, zone) { Alerts = alerts.Value, Calls = calls.Value };

        TimeOnly? Time(string name, TimeOnly? there)
        {
            var time = patch.TryGetPropertyValue(name, out var given)
                ? Text(given) is { } text && QuietHours.TryParseTime(text, out var parsed)
                    ? parsed
                    : null
                : there;
            return time ?? Refuse<TimeOnly?>(null, $"quietHours.{name}", "must be a time of day such as 22:00", errors);
        }
    }

    private static string? Text(JsonNode? node) => node?.GetValueKind() == JsonValueKind.String ? node.GetValue<string>() : null;

    private static T Refuse<T>(T value, string field, string message, Dictionary<string, string> errors)
    {
        errors.TryAdd(field, message);
        return value;
    }
}
