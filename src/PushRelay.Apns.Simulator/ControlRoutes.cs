using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.HttpResults;

namespace PushRelay.Apns.Simulator;

/// <summary>The control port: plain HTTP, JSON, no authentication.</summary>
internal static class ControlRoutes
{
    private const int BodyBytesMax = 1024 * 1024;

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Converters = { new DurationConverter(), new JsonStringEnumConverter(JsonNamingPolicy.CamelCase, allowIntegerValues: false) },
    };

    public static void Map(WebApplication app, ApnsServer server, Parts parts)
    {
        var (script, log) = (parts.Script, parts.Log);
        app.MapGet(
            "/health",
            () =>
                TypedResults.Json(
                    new JsonObject
                    {
                        ["status"] = "ok",
                        ["received"] = log.Count,
                        ["connections"] = server.Connections.Count,
                        ["connectionsSeen"] = server.Accepted,
                        ["streamsRefused"] = server.StreamsRefused,
                        ["providerTokensSeen"] = parts.Tokens.Seen,
                    }
                )
        );
        app.MapGet("/ca.pem", () => TypedResults.Text(parts.Certificates.CaPem, "application/x-pem-file"));
        app.MapGet(
            "/notifications",
            (string? token) => TypedResults.Json(new JsonObject { ["items"] = new JsonArray([.. log.Snapshot(token).Select(Show)]) })
        );
        app.MapDelete(
            "/notifications",
            () =>
            {
                log.Clear();
                return TypedResults.NoContent();
            }
        );
        app.MapGet(
            "/script",
            () => TypedResults.Text(JsonSerializer.Serialize(new { rules = script.Snapshot() }, Json), "application/json")
        );
        app.MapPost("/script", (HttpRequest request, CancellationToken cancellationToken) => AddAsync(request, script, cancellationToken));
        app.MapDelete(
            "/script",
            () =>
            {
                script.Clear();
                return TypedResults.NoContent();
            }
        );
        app.MapPut(
            "/streams/{max:int:min(1)}",
            (int max) =>
            {
                server.SetStreamsMax(max);
                return TypedResults.NoContent();
            }
        );
        app.MapPost(
            "/connections/{fault}",
            Results<NoContent, ProblemHttpResult> (string fault) =>
            {
                if (
                    !Enum.TryParse<ApnsFault>(fault, ignoreCase: true, out var parsed)
                    || parsed is not (ApnsFault.GoAway or ApnsFault.Close or ApnsFault.Abort or ApnsFault.HalfClose or ApnsFault.Freeze)
                )
                {
                    return TypedResults.Problem("Expected goAway, close, abort, halfClose or freeze.", statusCode: 400);
                }

                server.Strike(parsed);
                return TypedResults.NoContent();
            }
        );
        app.MapPut(
            "/devices/{token}",
            (string token, HttpRequest request, CancellationToken cancellationToken) =>
                SetDeviceAsync(token, request, parts, cancellationToken)
        );
        app.MapGet(
            "/devices/{token}",
            Results<ContentHttpResult, NotFound> (string token) =>
                parts.Devices.Find(token) is { } device
                    ? TypedResults.Text(ShowDevice(device, parts.Devices), "application/json")
                    : TypedResults.NotFound()
        );
    }

    /// <summary>One rule, a list of rules, or <c>{"rules":[...]}</c>: all are taken, or none.</summary>
    private static async Task<Results<NoContent, ProblemHttpResult>> AddAsync(
        HttpRequest request,
        Script script,
        CancellationToken cancellationToken
    )
    {
        try
        {
            if (request.ContentLength is null or > BodyBytesMax)
            {
                return TypedResults.Problem($"A script has a Content-Length of at most {BodyBytesMax} bytes.", statusCode: 413);
            }

            var json = await JsonSerializer.DeserializeAsync<JsonNode>(request.Body, Json, cancellationToken);
            var rules = json switch
            {
                JsonArray list => list.Deserialize<ScriptRule[]>(Json),
                JsonObject entry when entry["rules"] is JsonArray list => list.Deserialize<ScriptRule[]>(Json),
                JsonObject entry => [entry.Deserialize<ScriptRule>(Json)!],
                _ => null,
            };
            if (rules is null || rules.Any(rule => rule is null))
            {
                return TypedResults.Problem("Expected a rule, a list of rules, or {\"rules\":[...]}.", statusCode: 400);
            }

            script.Add(rules);
            return TypedResults.NoContent();
        }
        catch (Exception exception) when (exception is JsonException or ArgumentException)
        {
            return TypedResults.Problem(exception.Message, statusCode: 400);
        }
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> SetDeviceAsync(
        string token,
        HttpRequest request,
        Parts parts,
        CancellationToken cancellationToken
    )
    {
        try
        {
            var json = await JsonSerializer.DeserializeAsync<JsonObject>(request.Body, Json, cancellationToken) ?? [];
            json["token"] = token;
            parts.Devices.Set(json.Deserialize<SimulatedDevice>(Json)!, parts.Options.Clock.GetUtcNow());
            return TypedResults.NoContent();
        }
        catch (JsonException exception)
        {
            return TypedResults.Problem(exception.Message, statusCode: 400);
        }
    }

    private static string ShowDevice(SimulatedDevice device, DeviceRegister devices)
    {
        var json = JsonSerializer.SerializeToNode(device, Json)!.AsObject();
        json["screen"] = new JsonArray([.. devices.Screen(device.Token).Select(Show)]);
        json["stored"] = new JsonArray([.. devices.Stored(device.Token).Select(Show)]);
        return json.ToJsonString();
    }

    private static JsonObject Show(ReceivedNotification received)
    {
        var headers = new JsonObject();
        foreach (var (name, value) in received.Headers)
        {
            headers[name] = value;
        }

        return new JsonObject
        {
            ["number"] = received.Number,
            ["at"] = received.At.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture),
            ["deviceToken"] = received.DeviceToken,
            ["headers"] = headers,
            ["payload"] = Payload(received.Payload),
            ["status"] = received.Status,
            ["reason"] = received.Reason,
            ["apnsId"] = received.ApnsId.ToString("D"),
            ["fault"] = JsonNamingPolicy.CamelCase.ConvertName(received.Fault.ToString()),
            ["connection"] = received.Connection,
        };
    }

    /// <summary>As JSON where it is JSON, else as the text it is.</summary>
    private static JsonNode? Payload(string payload)
    {
        try
        {
            return JsonNode.Parse(payload);
        }
        catch (JsonException)
        {
            return payload;
        }
    }

    /// <summary>A duration is a number of milliseconds, or <c>hh:mm:ss.fff</c>.</summary>
    private sealed class DurationConverter : JsonConverter<TimeSpan>
    {
        public override TimeSpan Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType switch
            {
                JsonTokenType.Number when reader.TryGetDouble(out var milliseconds) && Math.Abs(milliseconds) < 1e10 =>
                    TimeSpan.FromMilliseconds(milliseconds),
                JsonTokenType.String when TimeSpan.TryParse(reader.GetString(), CultureInfo.InvariantCulture, out var duration) => duration,
                _ => throw new JsonException("A duration is a number of milliseconds or a text hh:mm:ss.fff."),
            };

        public override void Write(Utf8JsonWriter writer, TimeSpan value, JsonSerializerOptions options) =>
            writer.WriteNumberValue(value.TotalMilliseconds);
    }
}
