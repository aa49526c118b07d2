using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace PushRelay.Rig.Networks;

/// <param name="ValidateOnly">It is checked and not sent.</param>
internal sealed record FcmRequest(JsonObject Message, bool ValidateOnly);

/// <summary>What FCM demands of a message, whoever it is for.</summary>
internal static partial class FcmRules
{
    private const int BytesMax = 4096;
    private const double TtlSecondsMax = 2_419_200;

    private static readonly Dictionary<string, string[]> Members = new()
    {
        [""] = ["message", "validate_only"],
        ["message"] = ["name", "data", "notification", "android", "webpush", "apns", "fcm_options", "token", "fid", "topic", "condition"],
        ["message.android"] =
        [
            "collapse_key",
            "priority",
            "ttl",
            "restricted_package_name",
            "data",
            "notification",
            "fcm_options",
            "direct_boot_ok",
        ],
    };

    /// <summary>Null, and the answer's body: it is not in order.</summary>
    public static (FcmRequest? Request, string? Refusal) Read(byte[] body, string? contentType)
    {
        if (contentType?.StartsWith("application/json", StringComparison.Ordinal) != true)
        {
            return (null, BadRequest("", "Invalid JSON payload received. Unexpected token."));
        }

        JsonObject? json;
        try
        {
            json = JsonNode.Parse(body) as JsonObject;
        }
        catch (JsonException)
        {
            json = null;
        }

        if (json is null || json["message"] is not JsonObject message)
        {
            return (null, BadRequest("message", "Invalid JSON payload received. Unexpected token."));
        }

        foreach (
            var (path, part) in (ReadOnlySpan<(string, JsonNode?)>)
                [("", json), ("message", message), ("message.android", message["android"])]
        )
        {
            if (part is JsonObject members && members.Select(m => m.Key).Except(Members[path]).FirstOrDefault() is { } unknown)
            {
                return (
                    null,
                    BadRequest(path, $"Invalid JSON payload received. Unknown name \"{unknown}\" at '{path}': Cannot find field.")
                );
            }
        }

        return Fault(message) is { } fault
            ? (null, fault)
            : (new FcmRequest(message, json["validate_only"]?.GetValueKind() == JsonValueKind.True), null);
    }

    private static string? Fault(JsonObject message)
    {
        var targets = ((string[])["token", "fid", "topic", "condition"]).Where(message.ContainsKey).ToList();
        if (targets is not ["token"] || message["token"]!.GetValueKind() != JsonValueKind.String)
        {
            return BadRequest("message", "Exactly one of the fields 'token', 'fid', 'topic' or 'condition' must be given.");
        }

        var bytes = 0;
        foreach (var (name, value) in message["data"] as JsonObject ?? [])
        {
            if (value?.GetValueKind() != JsonValueKind.String)
            {
                return BadRequest($"message.data[{name}]", $"Invalid value at 'message.data[{name}]' (TYPE_STRING)");
            }

            if (
                name is "from" or "message_type"
                || name.StartsWith("google", StringComparison.Ordinal)
                || name.StartsWith("gcm", StringComparison.Ordinal)
            )
            {
                return FcmSimulator.Error(400, "INVALID_ARGUMENT", "Invalid data payload key: " + name, "INVALID_ARGUMENT");
            }

            bytes += Encoding.UTF8.GetByteCount(name) + Encoding.UTF8.GetByteCount((string)value!);
        }

        if (bytes > BytesMax)
        {
            return FcmSimulator.Error(400, "INVALID_ARGUMENT", "Android message is too big", "INVALID_ARGUMENT");
        }

        var android = message["android"] as JsonObject ?? [];
        if (android["ttl"] is { } ttl && !IsTtl(ttl))
        {
            return BadRequest(
                "message.android.ttl",
                "Invalid value at 'message.android.ttl' (type.googleapis.com/google.protobuf.Duration)"
            );
        }

        return android["priority"] is { } priority && (string?)priority is not ("high" or "normal" or "HIGH" or "NORMAL")
            ? BadRequest("message.android.priority", "Invalid value at 'message.android.priority'")
            : null;
    }

    private static bool IsTtl(JsonNode ttl) =>
        ttl.GetValueKind() == JsonValueKind.String
        && Duration().Match((string)ttl!) is { Success: true } match
        && double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) is >= 0 and <= TtlSecondsMax;

    private static string BadRequest(string field, string description) =>
        FcmSimulator.Error(
            400,
            "INVALID_ARGUMENT",
            description,
            null,
            new JsonObject
            {
                ["@type"] = "type.googleapis.com/google.rpc.BadRequest",
                ["fieldViolations"] = new JsonArray(new JsonObject { ["field"] = field, ["description"] = description }),
            }
        );

    [GeneratedRegex(@"^(\d+(?:\.\d{1,9})?)s\z")]
    private static partial Regex Duration();
}
