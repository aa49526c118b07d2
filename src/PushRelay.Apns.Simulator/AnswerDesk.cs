using System.Collections.Frozen;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace PushRelay.Apns.Simulator;

/// <summary>What goes back to the sender.</summary>
internal sealed record ApnsAnswer(int Status, IReadOnlyList<KeyValuePair<string, string>> Headers, byte[] Body, TimeSpan Delay);

/// <summary>Decides the answer to each request: Apple's rules first, then the script. Keeps what came in.</summary>
internal sealed class AnswerDesk(ApnsSimulatorOptions options, TokenCheck tokens, Script script, ReceivedLog log)
{
    private readonly FrozenSet<string> _topics = options.Topics.ToFrozenSet(StringComparer.Ordinal);

    public ApnsAnswer Decide(ApnsRequest request)
    {
        var now = options.Clock.GetUtcNow();
        var rule = (ScriptRule?)null;
        if (Refuse(request, now) is not { } refusal)
        {
            rule = script.Next(request.Path[RequestCheck.PathStart.Length..]);
            refusal = rule is null or { Status: 200 } ? null : new Refusal(rule.Status, rule.Reason ?? UsualReason(rule.Status));
        }

        var id = Guid.TryParse(request.Header("apns-id"), out var given) ? given : Guid.NewGuid();
        if (request.Path.StartsWith(RequestCheck.PathStart, StringComparison.Ordinal))
        {
            log.Add(number => Received(number, request, now, id, refusal));
        }

        List<KeyValuePair<string, string>> headers = [new("apns-id", id.ToString("D")), new("date", now.ToString("r", CultureInfo.InvariantCulture))];
        if (rule?.RetryAfter is { } retryAfter)
        {
            headers.Add(new("retry-after", retryAfter));
        }

        var body = rule?.Body is { } text ? Encoding.UTF8.GetBytes(text) : refusal is null ? [] : Body(refusal, rule?.Timestamp ?? now);
        return new ApnsAnswer(refusal?.Status ?? 200, headers, body, rule?.Delay ?? TimeSpan.Zero);
    }

    private Refusal? Refuse(ApnsRequest request, DateTimeOffset now)
    {
        if (RequestCheck.CheckLine(request) is { } refusal)
        {
            return refusal;
        }

        return tokens.Judge(request.Header("authorization"), now) is { Reason: { } reason }
            ? new Refusal(403, reason)
            : RequestCheck.Check(request, _topics);
    }

    private static ReceivedNotification Received(long number, ApnsRequest request, DateTimeOffset now, Guid id, Refusal? refusal) => new()
    {
        Number = number,
        At = now,
        DeviceToken = request.Path[RequestCheck.PathStart.Length..].ToLowerInvariant(),
        Headers = request.Headers
            .Where(header => header.Key.StartsWith("apns-", StringComparison.Ordinal))
            .ToDictionary(header => header.Key, header => string.Join(", ", header.Value)),
        Payload = Encoding.UTF8.GetString(request.Body.Span),
        Status = refusal?.Status ?? 200,
        Reason = refusal?.Reason,
        ApnsId = id,
        Connection = request.Connection,
    };

    private static byte[] Body(Refusal refusal, DateTimeOffset since)
    {
        var reason = JsonEncodedText.Encode(refusal.Reason);
        // Milliseconds since the epoch: what Apple really sends.
        var json = refusal.Status == 410
            ? string.Create(CultureInfo.InvariantCulture, $$"""{"reason":"{{reason}}","timestamp":{{since.ToUnixTimeMilliseconds()}}}""")
            : $$"""{"reason":"{{reason}}"}""";
        return Encoding.UTF8.GetBytes(json);
    }

    private static string UsualReason(int status) => status switch
    {
        400 => "BadDeviceToken",
        403 => "Forbidden",
        404 => "BadPath",
        405 => "MethodNotAllowed",
        410 => "Unregistered",
        413 => "PayloadTooLarge",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    };
}
