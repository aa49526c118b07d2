using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;

namespace PushRelay.Rig.Networks;

/// <summary>A message as FCM took it.</summary>
/// <param name="Name">What the answer called it.</param>
internal sealed record FcmReceived(string Name, string Token, JsonObject Message, DateTimeOffset At)
{
    public IReadOnlyDictionary<string, string> Data { get; } =
        (Message["data"] as JsonObject ?? []).ToDictionary(m => m.Key, m => (string)m.Value!);

    public JsonObject Android => Message["android"] as JsonObject ?? [];
}

public enum FcmTokenState
{
    /// <summary>The app was removed.</summary>
    Unregistered,

    /// <summary>It was never a token.</summary>
    Malformed,

    /// <summary>Of another project.</summary>
    Foreign,
}

/// <summary>
/// FCM HTTP v1 and Google's token endpoint: checks assertions, bearer tokens and messages as they do, in their order and with their words.
/// Unknown tokens are devices; the others are named in <see cref="Tokens"/>.
/// </summary>
internal sealed class FcmSimulator : NetworkServer
{
    private readonly RSA key = RSA.Create(2048);
    private readonly GoogleTokens tokens;
    private readonly ConcurrentQueue<FcmReceived> received = new();
    private readonly ConcurrentQueue<FcmReceived> asked = new();

    public FcmSimulator(TimeProvider? clock = null, string project = "rig-project")
        : base(clock ?? TimeProvider.System)
    {
        Project = project;
        tokens = new GoogleTokens(Clock, key, Email, "rig-key");
    }

    public string Project { get; }

    public ConcurrentDictionary<string, FcmTokenState> Tokens { get; } = new();

    /// <summary>What was taken, oldest first.</summary>
    public IReadOnlyList<FcmReceived> Received => [.. received];

    /// <summary>The same, and what was answered otherwise on order.</summary>
    public IReadOnlyList<FcmReceived> Asked => [.. asked];

    public Uri TokenEndpoint => new(Origin, "/token");

    /// <summary>How many access tokens were given out.</summary>
    public int TokensGiven => tokens.Given;

    /// <summary>The next requests for a token get this.</summary>
    public void AnswerNextToken(AnswerRule rule) => AnswerNext(rule with { Target = GoogleTokens.Target });

    /// <summary>No token given out so far is valid any more.</summary>
    public void RevokeTokens() => tokens.Revoke();

    /// <summary>The key file as the console gives it.</summary>
    public string CredentialsJson => Credentials(Project, Email, "rig-key", key.ExportPkcs8PrivateKeyPem());

    private string Email => $"push@{Project}.iam.gserviceaccount.com";

    public static string Credentials(string project, string email, string keyId, string privateKeyPem) =>
        new JsonObject
        {
            ["type"] = "service_account",
            ["project_id"] = project,
            ["private_key_id"] = keyId,
            ["private_key"] = privateKeyPem,
            ["client_email"] = email,
            ["token_uri"] = GoogleTokens.Audience,
        }.ToJsonString();

    protected override async Task HandleAsync(HttpContext context, byte[] body)
    {
        if (context.Request is { Method: "POST", Path.Value: "/token" })
        {
            if (NextRule(GoogleTokens.Target, onlyNamed: true) is { } order)
            {
                await AnswerByRuleAsync(context, order);
                return;
            }

            var (status, text) = tokens.Exchange(context.Request.ContentType, Encoding.UTF8.GetString(body));
            await AnswerAsync(context, status, text);
            return;
        }

        await SendAsync(context, body);
    }

    private async Task SendAsync(HttpContext context, byte[] body)
    {
        var path = context.Request.Path.Value!.Split('/');
        if (context.Request.Method != "POST" || path is not ["", "v1", "projects", _, "messages:send"])
        {
            await AnswerAsync(context, 404, "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", "text/html");
            return;
        }

        if (!tokens.IsValid(context.Request.Headers.Authorization.ToString()))
        {
            await AnswerAsync(
                context,
                401,
                Error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token.")
            );
            return;
        }

        if (path[3] != Project)
        {
            await AnswerAsync(context, 404, Error(404, "NOT_FOUND", "Requested entity was not found."));
            return;
        }

        var (message, refusal) = FcmRules.Read(body, context.Request.ContentType);
        if (message is null)
        {
            await AnswerAsync(context, 400, refusal!);
            return;
        }

        var token = (string)message.Message["token"]!;
        if (Tokens.TryGetValue(token, out var state))
        {
            await RefuseAsync(context, state);
            return;
        }

        var name = $"projects/{Project}/messages/{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(8))}";
        var rule = NextRule(token);
        var push = new FcmReceived(name, token, message.Message, Clock.GetUtcNow());
        asked.Enqueue(push);
        if (!message.ValidateOnly && rule is null or { Processed: true })
        {
            received.Enqueue(push);
        }

        await (
            rule is null ? AnswerAsync(context, 200, new JsonObject { ["name"] = name }.ToJsonString()) : AnswerByRuleAsync(context, rule)
        );
    }

    private static Task RefuseAsync(HttpContext context, FcmTokenState state) =>
        state switch
        {
            FcmTokenState.Unregistered => AnswerAsync(
                context,
                404,
                Error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
            ),
            FcmTokenState.Malformed => AnswerAsync(
                context,
                400,
                Error(400, "INVALID_ARGUMENT", "The registration token is not a valid FCM registration token", "INVALID_ARGUMENT")
            ),
            FcmTokenState.Foreign => AnswerAsync(context, 403, Error(403, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH")),
        };

    /// <summary>An error as google.rpc writes it, with FcmError's code behind the other details.</summary>
    public static string Error(int status, string name, string message, string? code = null, params IEnumerable<JsonObject> details)
    {
        var all = new JsonArray([.. details]);
        if (code is not null)
        {
            all.Add(new JsonObject { ["@type"] = "type.googleapis.com/google.firebase.fcm.v1.FcmError", ["errorCode"] = code });
        }

        var error = new JsonObject
        {
            ["code"] = status,
            ["message"] = message,
            ["status"] = name,
        };
        if (all.Count > 0)
        {
            error["details"] = all;
        }

        return new JsonObject { ["error"] = error }.ToJsonString();
    }

    /// <summary>The detail that names whose quota is spent.</summary>
    public static JsonObject QuotaFailure(string subject) =>
        new()
        {
            ["@type"] = "type.googleapis.com/google.rpc.QuotaFailure",
            ["violations"] = new JsonArray(new JsonObject { ["subject"] = subject, ["description"] = "Message rate exceeded." }),
        };
}

/// <summary>Google's token endpoint: an assertion for an access token, its checks in the order in which they were recorded.</summary>
internal sealed class GoogleTokens(TimeProvider clock, RSA key, string email, string keyId)
{
    public const string Audience = "https://oauth2.googleapis.com/token";
    public const string Target = "/token";

    private const string Scope = "https://www.googleapis.com/auth/firebase.messaging";

    private static readonly TimeSpan SkewBack = TimeSpan.FromMinutes(65);
    private static readonly TimeSpan SkewAhead = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan Lifetime = TimeSpan.FromSeconds(3599);

    private readonly ConcurrentDictionary<string, DateTimeOffset> given = new();
    private int count;

    public int Given => Volatile.Read(ref count);

    public void Revoke() => given.Clear();

    public bool IsValid(string authorization) =>
        authorization.StartsWith("Bearer ", StringComparison.Ordinal)
        && given.TryGetValue(authorization["Bearer ".Length..], out var expires)
        && clock.GetUtcNow() < expires;

    public (int Status, string Body) Exchange(string? contentType, string form)
    {
        var fields = form.Split('&')
            .Select(f => f.Split('=', 2))
            .Where(f => f.Length == 2)
            .ToDictionary(f => f[0], f => Uri.UnescapeDataString(f[1]));
        if (
            contentType?.StartsWith("application/x-www-form-urlencoded", StringComparison.Ordinal) != true
            || fields.GetValueOrDefault("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer"
        )
        {
            return Refusal("unsupported_grant_type", "Invalid grant_type: " + fields.GetValueOrDefault("grant_type"));
        }

        var parts = fields.GetValueOrDefault("assertion", "").Split('.');
        JsonElement head;
        JsonElement claims;
        byte[] signature;
        try
        {
            head = Json(parts[0]);
            claims = Json(parts[1]);
            signature = System.Buffers.Text.Base64Url.DecodeFromChars(parts[2]);
        }
        catch (Exception exception) when (exception is FormatException or JsonException or IndexOutOfRangeException)
        {
            return Refusal("invalid_request", "Bad Request");
        }

        var signed = Encoding.ASCII.GetBytes($"{parts[0]}.{parts[1]}");
        if (Text(claims, "iss") != email)
        {
            return Refusal("invalid_grant", "Invalid grant: account not found");
        }

        if (
            Text(head, "alg") != "RS256"
            || Text(head, "kid") != keyId
            || !key.VerifyData(signed, signature, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1)
        )
        {
            return Refusal("invalid_grant", "Invalid JWT Signature.");
        }

        if (Time(claims, "iat") is not { } issued)
        {
            return Refusal("invalid_grant", "Invalid JWT: iat (issued at) is not set.");
        }

        if (Time(claims, "exp") is not { } expires)
        {
            return Refusal("invalid_grant", "Invalid JWT: exp (expiration time) is not set.");
        }

        var now = clock.GetUtcNow();
        if (issued > now + SkewAhead || issued < now - SkewBack || expires <= now || expires > issued + TimeSpan.FromHours(1))
        {
            return Refusal(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                    + "Check your iat and exp values in the JWT claim."
            );
        }

        if (Text(claims, "aud") != Audience)
        {
            return Refusal("invalid_grant", "Invalid JWT: Failed audience check.");
        }

        return Text(claims, "scope") switch
        {
            null or "" => Refusal("invalid_scope", "Invalid OAuth scope or ID token audience provided."),
            Scope => Give(now),
            // what is asked for is an audience then
            _ => (200, new JsonObject { ["id_token"] = "eyJhbGciOiJSUzI1NiJ9.e30.x" }.ToJsonString()),
        };
    }

    private (int Status, string Body) Give(DateTimeOffset now)
    {
        var token = "ya29." + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
        given[token] = now + Lifetime;
        Interlocked.Increment(ref count);
        return (
            200,
            new JsonObject
            {
                ["access_token"] = token,
                ["expires_in"] = (int)Lifetime.TotalSeconds,
                ["token_type"] = "Bearer",
            }.ToJsonString()
        );
    }

    private static (int Status, string Body) Refusal(string error, string description) =>
        (400, new JsonObject { ["error"] = error, ["error_description"] = description }.ToJsonString());

    private static JsonElement Json(string part)
    {
        using var json = JsonDocument.Parse(System.Buffers.Text.Base64Url.DecodeFromChars(part));
        return json.RootElement.Clone();
    }

    private static string? Text(JsonElement json, string name) =>
        json.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static DateTimeOffset? Time(JsonElement json, string name) =>
        json.TryGetProperty(name, out var value) && value.TryGetInt64(out var seconds) ? DateTimeOffset.FromUnixTimeSeconds(seconds) : null;
}
