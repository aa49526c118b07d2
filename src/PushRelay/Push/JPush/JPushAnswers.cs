using System.Globalization;
using System.Text.Json;
using PushRelay.Push.Connections;

namespace PushRelay.Push.JPush;

/// <summary>What JPush's answers mean: its own code first, also in a 200; the status only where there is none.</summary>
internal static class JPushAnswers
{
    private static readonly TimeSpan RateDelay = TimeSpan.FromSeconds(60);

    // a quota of a day: asking each minute does not bring it back
    private static readonly TimeSpan QuotaDelay = TimeSpan.FromHours(1);

    public static string Code(string word) => $"{JPushNetwork.Name}_{word}";

    /// <param name="registrationId">That was pushed to.</param>
    /// <param name="exchange">How it ended.</param>
    /// <param name="now">For dates in it.</param>
    public static PushResult Read(string registrationId, PushExchange exchange, DateTimeOffset now)
    {
        if (exchange is PushExchange.Unanswered unanswered)
        {
            return unanswered.Result(JPushNetwork.Name);
        }

        var answered = (PushExchange.Answered)exchange;
        var body = JPushBody.Read(answered.Body, registrationId);
        var code = Code((body.Code ?? answered.Status).ToString(CultureInfo.InvariantCulture));
        if (body.Code is null && answered.Status == 200)
        {
            return body.IsIllegal ? new PushResult.TokenDead(Channels.Alert, null, Code("illegal_rids"), answered.Status, answered.Duration)
                : body.MessageId is not null ? new PushResult.Accepted(body.MessageId, answered.Status, answered.Duration)
                // cut in its body it may be an acceptance: the same cid again tells
                : answered.IsCut ? new PushResult.Unknown(Code("answer_cut"), answered.Duration)
                : Later(Fault.Outage, null, "bad_answer");
        }

        switch (body.Code)
        {
            case 1000 or 1030:
                return Later(Fault.ServerError, answered.RetryAfter(now));
            case 1003 when body.IsOfRegistrationId:
            case 1011:
                return new PushResult.TokenDead(Channels.Alert, null, code, answered.Status, answered.Duration);
            case 1004 or 1008 or (>= 2003 and <= 2007):
                return Later(Fault.Credentials, null);
            case 1012:
                return Later(Fault.Quota, QuotaDelay);
            case 2002:
                return Later(Fault.Quota, ResetOf(answered) ?? answered.RetryAfter(now) ?? RateDelay);
        }

        return answered.Status switch
        {
            401 or 403 or 404 or (>= 300 and < 400) => Later(Fault.Credentials, null),
            429 => Later(Fault.Quota, ResetOf(answered) ?? answered.RetryAfter(now) ?? RateDelay),
            500 => Later(Fault.ServerError, answered.RetryAfter(now)),
            > 500 or 408 => Later(Fault.Outage, answered.RetryAfter(now)),
            _ => new PushResult.Refused(code, answered.Status, answered.Duration),
        };

        PushResult Later(Fault fault, TimeSpan? delay, string? word = null) =>
            new PushResult.Later(fault, delay, word is null ? code : Code(word), answered.Status, answered.Duration);
    }

    /// <summary>So many requests are left until the reset, where the answer says so; both names of the limit are in use.</summary>
    public static (int Left, TimeSpan Reset)? RateOf(PushExchange exchange) =>
        exchange is PushExchange.Answered answered
        && int.TryParse(answered.Header("X-Rate-Limit-Remaining"), NumberStyles.None, CultureInfo.InvariantCulture, out var left)
        && ResetOf(answered) is { } reset
            ? (left, reset)
            : null;

    private static TimeSpan? ResetOf(PushExchange.Answered answered) =>
        int.TryParse(answered.Header("X-Rate-Limit-Reset"), NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
            ? TimeSpan.FromSeconds(Math.Min(seconds, RetryAfter.Max.TotalSeconds))
            : null;

    /// <param name="MessageId">A text in an acceptance, a number in an error.</param>
    /// <param name="Code">JPush's own; null: no error is told.</param>
    /// <param name="IsOfRegistrationId">It says that the registration id is none.</param>
    /// <param name="IsIllegal">The acceptance lists the registration id as none.</param>
    private readonly record struct JPushBody(string? MessageId, int? Code, bool IsOfRegistrationId, bool IsIllegal)
    {
        public static JPushBody Read(ReadOnlyMemory<byte> body, string registrationId)
        {
            try
            {
                using var json = JsonDocument.Parse(body, new JsonDocumentOptions { MaxDepth = 16 });
                var root = json.RootElement;
                if (root.ValueKind != JsonValueKind.Object)
                {
                    return default;
                }

                var error = root.TryGetProperty("error", out var inner) && inner.ValueKind == JsonValueKind.Object ? inner : default;
                var message = error.ValueKind == JsonValueKind.Object ? Text(error, "message") ?? "" : "";
                return new JPushBody(
                    Text(root, "msg_id"),
                    error.ValueKind == JsonValueKind.Object
                    && int.TryParse(Text(error, "code"), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var code)
                        ? code
                        : null,
                    message.Contains("registration_id", StringComparison.OrdinalIgnoreCase),
                    IsListed(root, registrationId) || (error.ValueKind == JsonValueKind.Object && IsListed(error, registrationId))
                );
            }
            catch (JsonException)
            {
                return default;
            }
        }

        private static bool IsListed(JsonElement json, string registrationId) =>
            json.TryGetProperty("illegal_rids", out var list)
            && list.ValueKind == JsonValueKind.Array
            && list.EnumerateArray().Any(id => id.ValueKind == JsonValueKind.String && id.ValueEquals(registrationId));

        private static string? Text(JsonElement json, string member) =>
            json.TryGetProperty(member, out var value)
                ? value.ValueKind switch
                {
                    JsonValueKind.String => value.GetString(),
                    JsonValueKind.Number => value.GetRawText(),
                    _ => null,
                }
                : null;
    }
}
