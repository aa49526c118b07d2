using System.Globalization;
using System.Text;
using System.Text.Json;
using PushRelay.Apns.Simulator.Http2;

namespace PushRelay.Apns.Simulator;

/// <summary>One request as the rules see it; header names in lower case.</summary>
internal sealed record ApnsRequest(
    string Method,
    string Path,
    IReadOnlyList<HeaderField> Headers,
    ReadOnlyMemory<byte> Body,
    long BodyBytes,
    ApnsCaller Caller
)
{
    public string? Header(string name)
    {
        foreach (var header in Headers)
        {
            if (header.Name == name)
            {
                return header.Value;
            }
        }

        return null;
    }
}

/// <summary>The rules of Apple's "Sending notification requests to APNs", each with the reason it answers. Pure.</summary>
internal static class RequestCheck
{
    public const string PathStart = "/3/device/";

    private const int CollapseIdBytesMax = 64;

    /// <summary>Suffix of the topic and bytes of the payload, by push type.</summary>
    private static readonly Dictionary<string, (string Suffix, int PayloadBytesMax)> PushTypes = new()
    {
        ["alert"] = ("", 4096),
        ["background"] = ("", 4096),
        ["location"] = (".location-query", 4096),
        ["voip"] = (".voip", 5120),
        ["complication"] = (".complication", 4096),
        ["fileprovider"] = (".pushkit.fileprovider", 4096),
        ["mdm"] = ("", 4096),
        ["liveactivity"] = (".push-type.liveactivity", 4096),
        ["pushtotalk"] = (".voip-ptt", 4096),
        ["widgets"] = (".push-type.widgets", 4096),
        ["controls"] = (".push-type.controls", 4096),
    };

    /// <summary>Method and path, which come before everything else. Null: fine.</summary>
    public static Refusal? CheckLine(ApnsRequest request) =>
        request switch
        {
            { Method: not "POST" } => new(405, "MethodNotAllowed"),
            _ when !request.Path.StartsWith(PathStart, StringComparison.Ordinal) => new(404, "BadPath"),
            _ => null,
        };

    /// <summary>Everything that follows the credentials. Null: Apple would take it.</summary>
    public static Refusal? Check(ApnsRequest request, IReadOnlySet<string> topics)
    {
        if (HasDuplicates(request.Headers))
        {
            return Bad("DuplicateHeaders");
        }

        var token = request.Path[PathStart.Length..];
        if (token.Length == 0)
        {
            return Bad("MissingDeviceToken");
        }

        // Apple's tokens have 64 digits today; "do not assume a length".
        if (token.Length is < 64 or > 400 || token.Length % 2 != 0 || !token.All(char.IsAsciiHexDigit))
        {
            return Bad("BadDeviceToken");
        }

        return CheckTopic(request, topics) ?? CheckHeaders(request) ?? CheckPayload(request);
    }

    /// <summary>A request without the header counts as what Apple takes it for: an alert.</summary>
    public static string PushType(ApnsRequest request) => request.Header("apns-push-type") ?? "alert";

    /// <summary>The topic without the suffix of its push type. Only of a request that passed.</summary>
    public static string BundleId(ApnsRequest request) => request.Header("apns-topic")![..^PushTypes[PushType(request)].Suffix.Length];

    private static bool HasDuplicates(IReadOnlyList<HeaderField> headers)
    {
        for (var i = 0; i < headers.Count; i++)
        {
            for (var j = i + 1; j < headers.Count; j++)
            {
                if (headers[i].Name == headers[j].Name && headers[i].Name.StartsWith("apns-", StringComparison.Ordinal))
                {
                    return true;
                }
            }
        }

        return false;
    }

    private static Refusal? CheckTopic(ApnsRequest request, IReadOnlySet<string> topics)
    {
        if (!PushTypes.TryGetValue(PushType(request), out var type))
        {
            return Bad("InvalidPushType");
        }

        if (request.Header("apns-topic") is not { Length: > 0 } topic)
        {
            return Bad("MissingTopic");
        }

        if (!topic.EndsWith(type.Suffix, StringComparison.Ordinal) || topic.Length == type.Suffix.Length || topic.Contains(' '))
        {
            return Bad("BadTopic");
        }

        return topics.Count > 0 && !topics.Contains(topic[..^type.Suffix.Length]) ? Bad("TopicDisallowed") : null;
    }

    private static Refusal? CheckHeaders(ApnsRequest request)
    {
        if (request.Header("apns-id") is { } id && !Guid.TryParseExact(id, "D", out _))
        {
            return Bad("BadMessageId");
        }

        if (
            request.Header("apns-expiration") is { } expiration
            && !(long.TryParse(expiration, NumberStyles.None, CultureInfo.InvariantCulture, out var seconds) && seconds <= 253_402_300_799)
        )
        {
            return Bad("BadExpirationDate");
        }

        var priority = request.Header("apns-priority") ?? "10";
        if (
            priority is not ("10" or "5" or "1")
            || (PushType(request) == "background" && request.Header("apns-priority") is not (null or "5"))
        )
        {
            return Bad("BadPriority");
        }

        return request.Header("apns-collapse-id") is { } collapseId && Encoding.UTF8.GetByteCount(collapseId) is 0 or > CollapseIdBytesMax
            ? Bad("BadCollapseId")
            : null;
    }

    private static Refusal? CheckPayload(ApnsRequest request)
    {
        if (request.BodyBytes == 0)
        {
            return Bad("PayloadEmpty");
        }

        if (request.BodyBytes > PushTypes[PushType(request)].PayloadBytesMax)
        {
            return new(413, "PayloadTooLarge");
        }

        // Apple documents no reason for a body that is not a JSON object; this is the nearest.
        return IsJsonObject(request.Body) ? null : Bad("PayloadEmpty");
    }

    private static bool IsJsonObject(ReadOnlyMemory<byte> body)
    {
        try
        {
            var json = new Utf8JsonReader(body.Span);
            if (!json.Read() || json.TokenType != JsonTokenType.StartObject)
            {
                return false;
            }

            while (json.Read()) { }

            return true;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    private static Refusal Bad(string reason) => new(400, reason);
}

internal sealed record Refusal(int Status, string Reason);
