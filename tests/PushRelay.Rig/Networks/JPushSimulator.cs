using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;

namespace PushRelay.Rig.Networks;

/// <summary>A push as JPush took it: one registration id.</summary>
internal sealed record JPushReceived(long MessageId, string Cid, string RegistrationId, JsonObject Request)
{
    public JsonObject Notification => Request["notification"]!.AsObject();

    public JsonObject Options => Request["options"] as JsonObject ?? [];

    public JsonObject Extras(string platform) => Notification[platform]!["extras"]!.AsObject();
}

/// <summary>
/// JPush v3: push, validate, the pool of cids, the report. Strict about members, sizes and audiences as the real one is; the same cid again
/// is answered as before and sends nothing; a broadcast is never taken. Unknown registration ids are devices, unless they are in
/// <see cref="Gone"/>.
/// </summary>
internal sealed class JPushSimulator(TimeProvider? clock = null) : NetworkServer(clock ?? TimeProvider.System)
{
    private const int BodyBytesMax = 4000;
    private const int IosBytesMax = 2000;
    private const int TtlMax = 259_200;
    private static readonly TimeSpan CidLife = TimeSpan.FromDays(1);

    private readonly ConcurrentQueue<JPushReceived> received = new();
    private readonly ConcurrentQueue<JPushReceived> asked = new();
    private readonly ConcurrentDictionary<string, (long MessageId, DateTimeOffset At)> sent = new();
    private readonly ConcurrentDictionary<string, bool> pool = new();
    private readonly Lock sync = new();
    private long messageId = 1_828_256_757;
    private int minuteCount;
    private DateTimeOffset minute;

    public string AppKey { get; init; } = "7d431e42dfa6a6d693ac2d04";

    public string MasterSecret { get; init; } = "5e987ac6d2e04d95a9d8f0d1";

    /// <summary>Requests in a minute; more get 429 with code 2002.</summary>
    public int RateMax { get; init; } = 600;

    /// <summary>Only a cid of the pool is taken.</summary>
    public bool OwnCidsRefused { get; init; }

    /// <summary>Of no user of the app, or of none any more.</summary>
    public ConcurrentDictionary<string, bool> Gone { get; } = new();

    public IReadOnlyList<JPushReceived> Received => [.. received];

    /// <summary>The same, and what was answered otherwise on order.</summary>
    public IReadOnlyList<JPushReceived> Asked => [.. asked];

    /// <summary>Repetitions that were recognised by their cid.</summary>
    public int Repeated { get; private set; }

    public int Validated { get; private set; }

    /// <summary>Pushes that would have gone to everybody: always a fault.</summary>
    public int Broadcasts { get; private set; }

    protected override async Task HandleAsync(HttpContext context, byte[] body)
    {
        var expected = "Basic " + Convert.ToBase64String(Encoding.ASCII.GetBytes($"{AppKey}:{MasterSecret}"));
        if (context.Request.Headers.Authorization != expected)
        {
            await RefuseAsync(context, 401, 1004, "Authen failed");
            return;
        }

        if (!TakeFromRate(context))
        {
            await RefuseAsync(context, 429, 2002, "Rate limit exceeded");
            return;
        }

        switch (context.Request.Method, context.Request.Path.Value)
        {
            case ("GET", "/v3/push/cid"):
                await GiveCidsAsync(context);
                return;
            case ("POST", "/v3/push"):
                await PushAsync(context, body, validateOnly: false);
                return;
            case ("POST", "/v3/push/validate"):
                await PushAsync(context, body, validateOnly: true);
                return;
            default:
                await RefuseAsync(context, 404, 1000, "not found");
                return;
        }
    }

    private async Task PushAsync(HttpContext context, byte[] body, bool validateOnly)
    {
        var (request, code, why) = Read(body);
        if (request is null)
        {
            await RefuseAsync(context, 400, code, why);
            return;
        }

        var registrationId = (string)request["audience"]!["registration_id"]!.AsArray().Single()!;
        if (Gone.ContainsKey(registrationId))
        {
            await RefuseAsync(
                context,
                400,
                1011,
                "cannot find user by this audience (or has been inactive for more than 255 days)",
                Interlocked.Increment(ref messageId)
            );
            return;
        }

        if (validateOnly)
        {
            Validated++;
            await TakenAsync(context, 0);
            return;
        }

        var cid = (string?)request["cid"];
        if (cid is null || (OwnCidsRefused && !pool.ContainsKey(cid)) || !cid.StartsWith(AppKey + "-", StringComparison.Ordinal))
        {
            await RefuseAsync(context, 400, 1003, "cid is invalid");
            return;
        }

        if (sent.TryGetValue(cid, out var before) && Clock.GetUtcNow() - before.At < CidLife)
        {
            Repeated++;
            await TakenAsync(context, before.MessageId);
            return;
        }

        var id = Interlocked.Increment(ref messageId);
        var rule = NextRule(registrationId);
        var push = new JPushReceived(id, cid, registrationId, request);
        asked.Enqueue(push);
        if (rule is null or { Processed: true })
        {
            sent[cid] = (id, Clock.GetUtcNow());
            received.Enqueue(push);
        }

        await (rule is null ? TakenAsync(context, id) : AnswerByRuleAsync(context, rule));
    }

    private (JsonObject? Request, int Code, string Why) Read(byte[] body)
    {
        JsonObject? json;
        try
        {
            json = JsonNode.Parse(body) as JsonObject;
        }
        catch (JsonException)
        {
            json = null;
        }

        if (json is null)
        {
            return (null, 1003, "the request is no JSON");
        }

        if (json["audience"] is not JsonObject audience || audience["registration_id"] is not JsonArray { Count: > 0 } ids)
        {
            lock (sync)
            {
                Broadcasts += json["audience"] is JsonValue ? 1 : 0;
            }

            return (null, json["audience"] is null ? 1002 : 1003, "audience");
        }

        if (ids.Count != 1 || audience.Count != 1)
        {
            return (null, 1003, "audience: these tests push to one installation at a time");
        }

        return JPushRules.Fault(json, TtlMax, IosBytesMax, BodyBytesMax) is { } fault ? (null, fault.Code, fault.Why) : (json, 0, "");
    }

    private bool TakeFromRate(HttpContext context)
    {
        lock (sync)
        {
            var now = Clock.GetUtcNow();
            if (now - minute >= TimeSpan.FromMinutes(1))
            {
                (minute, minuteCount) = (now, 0);
            }

            minuteCount++;
            var headers = context.Response.Headers;
            headers["X-Rate-Limit-Limit"] = RateMax.ToString(CultureInfo.InvariantCulture);
            headers["X-Rate-Limit-Remaining"] = Math.Max(0, RateMax - minuteCount).ToString(CultureInfo.InvariantCulture);
            headers["X-Rate-Limit-Reset"] = Math.Max(1, 60 - (int)(now - minute).TotalSeconds).ToString(CultureInfo.InvariantCulture);
            return minuteCount <= RateMax;
        }
    }

    private Task GiveCidsAsync(HttpContext context)
    {
        if (!int.TryParse(context.Request.Query["count"], CultureInfo.InvariantCulture, out var count) || count is < 1 or > 1000)
        {
            return RefuseAsync(context, 400, 1003, "count");
        }

        var cids = Enumerable.Range(0, count).Select(_ => $"{AppKey}-{Guid.NewGuid():D}").ToList();
        cids.ForEach(cid => pool[cid] = true);
        return AnswerAsync(context, 200, new JsonObject { ["cidlist"] = new JsonArray([.. cids.Select(c => (JsonNode)c)]) }.ToJsonString());
    }

    private static Task TakenAsync(HttpContext context, long id) =>
        AnswerAsync(
            context,
            200,
            new JsonObject { ["sendno"] = "0", ["msg_id"] = id.ToString(CultureInfo.InvariantCulture) }.ToJsonString()
        );

    private static Task RefuseAsync(HttpContext context, int status, int code, string why, long? id = null) =>
        AnswerAsync(context, status, Error(code, why, id));

    /// <summary>An error as JPush writes it; here the message's id is a number.</summary>
    public static string Error(int code, string why, long? id = null)
    {
        var json = new JsonObject
        {
            ["error"] = new JsonObject { ["code"] = code, ["message"] = why },
        };
        if (id is { } known)
        {
            json["msg_id"] = known;
        }

        return json.ToJsonString();
    }
}

/// <summary>What JPush demands of a push, whoever it is for.</summary>
internal static class JPushRules
{
    private static readonly Dictionary<string, string[]> Members = new()
    {
        [""] = ["cid", "platform", "audience", "notification", "options"],
        ["notification"] = ["alert", "android", "ios", "hmos"],
        ["android"] =
        [
            "alert",
            "title",
            "channel_id",
            "priority",
            "category",
            "style",
            "big_text",
            "alert_type",
            "sound",
            "extras",
            "intent",
            "badge_add_num",
            "badge_set_num",
            "badge_class",
            "display_foreground",
        ],
        ["ios"] =
        [
            "alert",
            "sound",
            "badge",
            "category",
            "thread-id",
            "content-available",
            "mutable-content",
            "interruption-level",
            "extras",
        ],
        ["hmos"] = ["alert", "title", "category", "intent", "badge_add_num", "badge_set_num", "test_message", "extras", "style", "sound"],
        ["options"] =
        [
            "sendno",
            "time_to_live",
            "override_msg_id",
            "apns_production",
            "apns_collapse_id",
            "classification",
            "third_party_channel",
        ],
    };

    public static (int Code, string Why)? Fault(JsonObject json, int ttlMax, int iosBytesMax, int bytesMax)
    {
        if (Unknown("", json) is { } unknown)
        {
            return (1009, unknown);
        }

        if (json["platform"] is null || json["notification"] is not JsonObject notification)
        {
            return (1002, "platform and notification");
        }

        if (Unknown("notification", notification) is { } wrong)
        {
            return (1009, wrong);
        }

        foreach (var platform in (string[])["android", "ios", "hmos"])
        {
            if (notification[platform] is not JsonObject part)
            {
                continue;
            }

            if (Unknown(platform, part) is { } extra)
            {
                return (1009, extra);
            }

            if (part["alert"] is null || (platform != "ios" && string.IsNullOrEmpty((string?)part["alert"])))
            {
                return (1002, $"notification.{platform}.alert");
            }
        }

        if (notification["ios"] is JsonObject ios && (ios["badge"]?.GetValueKind() is not (null or JsonValueKind.String)))
        {
            return (1003, "notification.ios.badge");
        }

        if (notification["hmos"] is JsonObject hmos && hmos["category"] is null)
        {
            return (1002, "notification.hmos.category: Huawei demands it");
        }

        if (Bytes(notification["ios"]) > iosBytesMax || Bytes(notification["android"]) > bytesMax || Bytes(notification["hmos"]) > bytesMax)
        {
            return (1005, "the notification is too long");
        }

        return OptionsFault(json["options"], ttlMax);
    }

    private static (int Code, string Why)? OptionsFault(JsonNode? node, int ttlMax)
    {
        if (node is not JsonObject options)
        {
            return null;
        }

        if (Unknown("options", options) is { } unknown)
        {
            return (1009, unknown);
        }

        return options["time_to_live"] is { } ttl && ((int?)ttl is not { } seconds || seconds < 0 || seconds > ttlMax)
                ? (1003, "time_to_live")
            : options["apns_production"] is { } production && production.GetValueKind() is not (JsonValueKind.True or JsonValueKind.False)
                ? (1003, "apns_production")
            : options["apns_collapse_id"] is { } collapse && Encoding.UTF8.GetByteCount((string)collapse!) > 64 ? (1003, "apns_collapse_id")
            : null;
    }

    private static string? Unknown(string path, JsonObject part) =>
        part.Select(m => m.Key).Except(Members[path]).FirstOrDefault() is { } unknown ? $"{path}: unknown member {unknown}" : null;

    /// <summary>As JSON in UTF-8 in which only quotes, backslashes and control characters are escaped.</summary>
    private static int Bytes(JsonNode? part) =>
        part switch
        {
            JsonObject members => 1 + members.Sum(m => TextBytes(m.Key) + 1 + Bytes(m.Value) + 1),
            JsonArray items => 1 + items.Sum(item => Bytes(item) + 1),
            JsonValue value when value.GetValueKind() == JsonValueKind.String => TextBytes((string)value!),
            null => 0,
            _ => part.ToJsonString().Length,
        };

    private static int TextBytes(string text) =>
        2
        + Encoding.UTF8.GetByteCount(text)
        + text.Sum(c =>
            c switch
            {
                '"' or '\\' or '\n' or '\r' or '\t' or '\b' or '\f' => 1,
                < ' ' => 5,
                _ => 0,
            }
        );
}
