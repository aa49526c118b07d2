using System.Globalization;
using System.Text.Json;
using PushRelay.Push.Connections;

namespace PushRelay.Push.Fcm;

/// <summary>
/// What FCM's answers mean. <c>FcmError</c> counts before the status: a 404 without it is a wrong project, with it a removed app; a 400
/// is a dead token only where it says so, else our own fault.
/// </summary>
internal static class FcmAnswers
{
    private const string TokenMalformed = "The registration token is not a valid FCM registration token";

    // what Google asks of senders where it names no time itself
    private static readonly TimeSpan QuotaDelay = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan ServerDelay = TimeSpan.FromSeconds(10);

    public static string Code(string word) => $"{FcmNetwork.Name}_{word}";

    public static PushResult Read(PushExchange exchange, DateTimeOffset now)
    {
        if (exchange is PushExchange.Unanswered unanswered)
        {
            return unanswered.Result(FcmNetwork.Name);
        }

        var answered = (PushExchange.Answered)exchange;
        var error = FcmError.Read(answered.Body);
        if (answered.Status == 200)
        {
            // cut in its body it is an acceptance all the same; a whole page of somebody else's is none
            return error.Name is not null || answered.IsCut
                ? new PushResult.Accepted(error.Name, answered.Status, answered.Duration)
                : new PushResult.Later(Fault.Outage, null, Code("bad_answer"), answered.Status, answered.Duration);
        }

        var code = Code(error.Code ?? error.Status ?? answered.Status.ToString(CultureInfo.InvariantCulture));
        var retryAfter = answered.RetryAfter(now);
        return (answered.Status, error.Code) switch
        {
            (404, "UNREGISTERED") or (403, "SENDER_ID_MISMATCH") => Dead(),
            (400, _) when error.IsOfToken => Dead(),
            (401, _) or (403, _) or (404, _) or (>= 300 and < 400, _) => Later(Fault.Credentials, retryAfter),
            (429, _) => Later(error.IsOfDevice ? Fault.Throttled : Fault.Quota, retryAfter ?? QuotaDelay),
            (500, _) => Later(Fault.ServerError, retryAfter ?? ServerDelay),
            (> 500 or 408, _) => Later(Fault.Outage, retryAfter ?? ServerDelay),
            _ => new PushResult.Refused(code, answered.Status, answered.Duration),
        };

        PushResult Dead() => new PushResult.TokenDead(Channels.Alert, null, code, answered.Status, answered.Duration);

        PushResult Later(Fault fault, TimeSpan? delay) => new PushResult.Later(fault, delay, code, answered.Status, answered.Duration);
    }

    /// <summary>The access token was refused, and nothing else: another one may do.</summary>
    public static bool IsOfAccessToken(PushExchange exchange) =>
        exchange is PushExchange.Answered { Status: 401 } answered && FcmError.Read(answered.Body).Code is null;

    /// <summary>An answer's body, as far as it is one of FCM's.</summary>
    /// <param name="Name">What FCM calls the message that it took.</param>
    /// <param name="Status">The status as google.rpc names it.</param>
    /// <param name="Code">FCM's own code, where there is one.</param>
    /// <param name="IsOfToken">The token is what is wrong.</param>
    /// <param name="IsOfDevice">The quota that is spent is the device's.</param>
    private readonly record struct FcmError(string? Name, string? Status, string? Code, bool IsOfToken, bool IsOfDevice)
    {
        private const int WordCharsMax = 64;

        public static FcmError Read(ReadOnlyMemory<byte> body)
        {
            try
            {
                using var json = JsonDocument.Parse(body, new JsonDocumentOptions { MaxDepth = 16 });
                var root = json.RootElement;
                if (root.ValueKind != JsonValueKind.Object)
                {
                    return default;
                }

                if (!root.TryGetProperty("error", out var error) || error.ValueKind != JsonValueKind.Object)
                {
                    return new FcmError(Text(root, "name"), null, null, false, false);
                }

                string? code = null;
                var (isOfToken, isOfDevice) = (false, false);
                foreach (var detail in Items(error, "details"))
                {
                    switch (Text(detail, "@type"))
                    {
                        case "type.googleapis.com/google.firebase.fcm.v1.FcmError":
                            code = Word(detail, "errorCode");
                            break;
                        case "type.googleapis.com/google.rpc.BadRequest":
                            isOfToken |= Items(detail, "fieldViolations").Any(v => Text(v, "field") is "message.token" or "message.fid");
                            break;
                        case "type.googleapis.com/google.rpc.QuotaFailure":
                            isOfDevice |= Items(detail, "violations")
                                .Any(v => v.GetRawText().Contains("device", StringComparison.OrdinalIgnoreCase));
                            break;
                    }
                }

                isOfToken |=
                    code == "INVALID_ARGUMENT" && Text(error, "message")?.StartsWith(TokenMalformed, StringComparison.Ordinal) == true;
                return new FcmError(null, Word(error, "status"), code, isOfToken, isOfDevice);
            }
            catch (JsonException)
            {
                return default;
            }
        }

        private static IEnumerable<JsonElement> Items(JsonElement json, string member) =>
            json.TryGetProperty(member, out var list) && list.ValueKind == JsonValueKind.Array
                ? list.EnumerateArray().Where(item => item.ValueKind == JsonValueKind.Object)
                : [];

        private static string? Text(JsonElement json, string member) =>
            json.TryGetProperty(member, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

        /// <summary>It goes into reasons: a word and nothing else.</summary>
        private static string? Word(JsonElement json, string member) =>
            Text(json, member) is { Length: > 0 and <= WordCharsMax } word && word.All(c => char.IsAsciiLetterOrDigit(c) || c == '_')
                ? word
                : null;
    }
}
