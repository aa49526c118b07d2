using System.Globalization;
using System.Net.Http.Headers;
using System.Text.Json;

namespace PushRelay.Apns.Connections;

/// <summary>
/// What an answer says, read so that nothing in it can do harm: of the body at most 16 KiB, and what is not as documented is as if it
/// were not there. The status alone is always kept.
/// </summary>
internal readonly record struct Answer
{
    private const int BodyBytesMax = 16 * 1024;
    private const int ReasonCharsMax = 64;
    private static readonly TimeSpan RetryAfterMax = TimeSpan.FromHours(1);

    public int Status { get; private init; }

    public string? Reason { get; private init; }

    public DateTimeOffset? Timestamp { get; private init; }

    public Guid? ApnsId { get; private init; }

    public Guid? ApnsUniqueId { get; private init; }

    /// <summary>As sent.</summary>
    public string? Date { get; private init; }

    /// <summary>As sent: seconds, or a date.</summary>
    public string? RetryAfter { get; private init; }

    /// <summary>The connection ended in the middle of the body.</summary>
    public bool Cut { get; private init; }

    public static async ValueTask<Answer> ReadAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        var headers = response.Headers.NonValidated;
        var answer = new Answer
        {
            Status = (int)response.StatusCode,
            ApnsId = ReadGuid(headers, "apns-id"),
            ApnsUniqueId = ReadGuid(headers, "apns-unique-id"),
            Date = First(headers, "Date"),
        };
        if (answer.Status == 200)
        {
            return answer;
        }

        var (body, cut) = await BodyAsync(response, cancellationToken).ConfigureAwait(false);
        return Parse(answer with { RetryAfter = First(headers, "Retry-After"), Cut = cut }, body);
    }

    /// <summary>Both forms of RFC 9110 section 10.2.3, held between zero and one hour; null where it is neither.</summary>
    public TimeSpan? RetryDelay(DateTimeOffset now)
    {
        if (RetryAfter is not { Length: > 0 } value)
        {
            return null;
        }

        TimeSpan delay;
        if (value[0] is '-' || char.IsAsciiDigit(value[0]))
        {
            if (!double.TryParse(value, NumberStyles.Float, CultureInfo.InvariantCulture, out var seconds))
            {
                return null;
            }

            delay = TimeSpan.FromSeconds(Math.Clamp(seconds, 0, RetryAfterMax.TotalSeconds));
        }
        else if (ReadDate(value) is { } at)
        {
            delay = at - (ReadDate(Date) ?? now);
        }
        else
        {
            return null;
        }

        return delay < TimeSpan.Zero ? TimeSpan.Zero
            : delay > RetryAfterMax ? RetryAfterMax
            : delay;
    }

    private static async ValueTask<(ReadOnlyMemory<byte> Body, bool Cut)> BodyAsync(
        HttpResponseMessage response,
        CancellationToken cancellationToken
    )
    {
        var body = new byte[response.Content.Headers.ContentLength is > 0 and <= BodyBytesMax and var length ? (int)length : BodyBytesMax];
        var read = 0;
        try
        {
            var stream = await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false);
            while (
                read < body.Length
                && await stream.ReadAsync(body.AsMemory(read), cancellationToken).ConfigureAwait(false) is > 0 and var more
            )
            {
                read += more;
            }
        }
        catch (Exception exception) when (exception is IOException or HttpRequestException or OperationCanceledException)
        {
            // Cut in the middle of its body the answer is an answer all the same: the status decides.
            return (body.AsMemory(0, read), exception is not OperationCanceledException);
        }

        return (body.AsMemory(0, read), false);
    }

    private static Answer Parse(Answer answer, ReadOnlyMemory<byte> body)
    {
        try
        {
            var json = new Utf8JsonReader(body.Span, new JsonReaderOptions { MaxDepth = 8 });
            if (!json.Read() || json.TokenType != JsonTokenType.StartObject)
            {
                return answer;
            }

            while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
            {
                var isReason = json.ValueTextEquals("reason"u8);
                var isTimestamp = json.ValueTextEquals("timestamp"u8);
                json.Read();
                if (isReason && json.TokenType == JsonTokenType.String)
                {
                    answer = answer with { Reason = Printable(json.GetString()) };
                }
                else if (isTimestamp && json.TokenType == JsonTokenType.Number && json.TryGetInt64(out var milliseconds))
                {
                    answer = answer with { Timestamp = Instant(milliseconds) };
                }
                else
                {
                    json.Skip();
                }
            }
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // Not Apple's JSON; what was understood before stays.
        }

        return answer;
    }

    /// <summary>The text goes into logs, metrics and tables of others: short, printable ASCII, or nothing.</summary>
    private static string? Printable(string? reason) =>
        reason is { Length: > 0 and <= ReasonCharsMax } && reason.All(c => c is > ' ' and < (char)0x7f) ? reason : null;

    private static DateTimeOffset? Instant(long milliseconds) =>
        milliseconds is > 0 and < 253_402_300_800_000 ? DateTimeOffset.FromUnixTimeMilliseconds(milliseconds) : null;

    private static Guid? ReadGuid(HttpHeadersNonValidated headers, string name) =>
        Guid.TryParse(First(headers, name), out var id) ? id : null;

    private static string? First(HttpHeadersNonValidated headers, string name)
    {
        if (!headers.TryGetValues(name, out var values))
        {
            return null;
        }

        foreach (var value in values)
        {
            return value;
        }

        return null;
    }

    public static DateTimeOffset? ReadDate(string? value) =>
        DateTimeOffset.TryParseExact(value, "r", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var at) ? at : null;
}
