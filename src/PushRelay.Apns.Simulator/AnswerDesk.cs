using System.Collections.Frozen;
using System.Globalization;
using System.Text;
using System.Text.Json;
using PushRelay.Apns.Simulator.Http2;

namespace PushRelay.Apns.Simulator;

/// <summary>What goes back to the sender, and how.</summary>
internal sealed record Verdict
{
    public required int Status { get; init; }

    /// <summary>Without <c>:status</c> and <c>content-length</c>.</summary>
    public required IReadOnlyList<HeaderField> Headers { get; init; }

    public required ReadOnlyMemory<byte> Body { get; init; }

    public TimeSpan Delay { get; init; }

    /// <summary>Null: no fault.</summary>
    public ScriptRule? Fault { get; init; }

    /// <summary>It counts as received.</summary>
    public required bool IsProcessed { get; init; }

    /// <summary>The credentials were good: the connection is let in for good.</summary>
    public bool LetIn { get; init; }
}

/// <summary>Decides the answer to each request: Apple's rules first, then the script. Keeps what came in.</summary>
internal sealed class AnswerDesk(
    ApnsSimulatorOptions options,
    CredentialCheck credentials,
    DeviceRegister devices,
    Script script,
    ReceivedLog log
)
{
    private readonly FrozenSet<string> topics = options.Topics.ToFrozenSet(StringComparer.Ordinal);
    private readonly Lock dating = new();
    private (long Second, string Text) date;

    public Verdict Decide(ApnsRequest request)
    {
        var now = options.Clock.GetUtcNow();
        var since = now;
        ScriptRule? rule = null;
        var refusal = RequestCheck.CheckLine(request);
        var letIn = false;
        if (refusal is null)
        {
            refusal = credentials.Check(request, now);
            letIn = refusal is null;
            refusal ??= RequestCheck.Check(request, topics);
            if (refusal is null && devices.Check(Token(request), RequestCheck.BundleId(request), now) is var (refused, at))
            {
                (refusal, since) = (refused, at);
            }

            if (refusal is null && (rule = script.Next(Token(request))) is not null)
            {
                refusal = ByScript(request.Caller, rule);
                since = rule.Timestamp ?? now;
                letIn = refusal?.Status != 403;
            }
        }

        var id = Guid.TryParse(request.Header("apns-id"), out var given) ? given : Guid.NewGuid();
        var processed =
            rule is null or { Fault: ApnsFault.None or ApnsFault.CutAnswer } || (rule.Processed && rule.Fault != ApnsFault.Refuse);
        if (processed && request.Path.StartsWith(RequestCheck.PathStart, StringComparison.Ordinal))
        {
            Keep(request, now, id, refusal, rule);
        }

        return new Verdict
        {
            Status = refusal?.Status ?? 200,
            Headers = Headers(id, now, rule),
            Body =
                rule?.Body is { } text ? Encoding.UTF8.GetBytes(text)
                : refusal is null ? default
                : Body(refusal, since),
            Delay = options.Latency + (rule?.Delay ?? TimeSpan.Zero),
            Fault = rule is { Fault: not ApnsFault.None } ? rule : null,
            IsProcessed = processed,
            LetIn = letIn,
        };
    }

    private static string Token(ApnsRequest request) => request.Path[RequestCheck.PathStart.Length..];

    private static Refusal? ByScript(ApnsCaller caller, ScriptRule rule)
    {
        if (rule.Status == 200)
        {
            return null;
        }

        var refusal = new Refusal(rule.Status, rule.Reason ?? UsualReason(rule.Status));
        if (refusal.Reason is "ExpiredProviderToken" or "TooManyProviderTokenUpdates")
        {
            caller.Wedged = refusal;
        }

        return refusal;
    }

    private void Keep(ApnsRequest request, DateTimeOffset now, Guid id, Refusal? refusal, ScriptRule? rule)
    {
        if (options is { KeepMax: 0, OnReceived: null })
        {
            log.CountOnly();
            return;
        }

        var headers = new Dictionary<string, string>();
        foreach (var header in request.Headers)
        {
            if (header.Name.StartsWith("apns-", StringComparison.Ordinal))
            {
                headers[header.Name] = headers.TryGetValue(header.Name, out var before) ? $"{before}, {header.Value}" : header.Value;
            }
        }

        var received = log.Add(number => new ReceivedNotification
        {
            Number = number,
            At = now,
            DeviceToken = Token(request).ToLowerInvariant(),
            Headers = headers,
            Payload = Encoding.UTF8.GetString(request.Body.Span),
            Status = refusal?.Status ?? 200,
            Reason = refusal?.Reason,
            ApnsId = id,
            Fault = rule?.Fault ?? ApnsFault.None,
            Connection = request.Caller.Connection,
        });
        options.OnReceived?.Invoke(received);
        if (refusal is null && options.KeepMax > 0)
        {
            devices.Deliver(received, RequestCheck.BundleId(request), now);
        }
    }

    private List<HeaderField> Headers(Guid id, DateTimeOffset now, ScriptRule? rule)
    {
        List<HeaderField> headers = [new("apns-id", id.ToString("D")), new("date", Date(now))];
        if (options.Sandbox)
        {
            headers.Add(new("apns-unique-id", Guid.NewGuid().ToString("D")));
        }

        if (rule?.RetryAfter is { } retryAfter)
        {
            headers.Add(new("retry-after", retryAfter));
        }

        return headers;
    }

    /// <summary>Formatted once a second: a benchmark asks for it ten thousand times.</summary>
    private string Date(DateTimeOffset now)
    {
        var second = now.ToUnixTimeSeconds();
        lock (dating)
        {
            if (date.Text is null || date.Second != second)
            {
                date = (second, now.ToString("r", CultureInfo.InvariantCulture));
            }

            return date.Text;
        }
    }

    private static byte[] Body(Refusal refusal, DateTimeOffset since)
    {
        var reason = JsonEncodedText.Encode(refusal.Reason);
        // Milliseconds since the epoch: what Apple really sends.
        var json =
            refusal.Status == 410
                ? string.Create(
                    CultureInfo.InvariantCulture,
                    $$"""{"reason":"{{reason}}","timestamp":{{since.ToUnixTimeMilliseconds()}}}"""
                )
                : $$"""{"reason":"{{reason}}"}""";
        return Encoding.UTF8.GetBytes(json);
    }

    private static string UsualReason(int status) =>
        status switch
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
