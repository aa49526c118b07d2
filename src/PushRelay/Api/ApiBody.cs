using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Net.Http.Headers;

namespace PushRelay.Api;

/// <summary>Reads a request's JSON strictly: at most 16 KiB, no unknown or repeated member, and a problem that names the field.</summary>
internal static class ApiBody
{
    public const int BytesMax = 16 * 1024;

    /// <summary>What answers are written with, and requests are read with: camelCase, strict.</summary>
    public static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Strict)
    {
        PropertyNamingPolicy = JsonNamingPolicy.CamelCase,
        MaxDepth = 16,
    };

    public static async Task<(T? Value, ProblemHttpResult? Problem)> ReadAsync<T>(
        HttpRequest request,
        CancellationToken cancellationToken,
        string? alsoTaken = null
    )
        where T : class
    {
        if (
            !MediaTypeHeaderValue.TryParse(request.ContentType, out var type)
            || !(
                type.MediaType.Equals("application/json", StringComparison.OrdinalIgnoreCase)
                || type.MediaType.Equals(alsoTaken, StringComparison.OrdinalIgnoreCase)
            )
            || (type.Charset.HasValue && !type.Charset.Equals("utf-8", StringComparison.OrdinalIgnoreCase))
        )
        {
            return (null, ApiProblem.Of(415, "unsupported_media_type", "The request must be application/json.", null));
        }

        if (request.Headers.ContentEncoding.Count > 0)
        {
            return (null, ApiProblem.Of(415, "unsupported_media_type", "The request must not be compressed.", null));
        }

        var body = await ReadBoundedAsync(request, cancellationToken);
        if (body is null)
        {
            return (null, TooLarge());
        }

        try
        {
            if (typeof(T) == typeof(JsonObject))
            {
                // the nodes are made when they are asked for: a repeated member would show only then
                using var whole = JsonDocument.Parse(
                    body,
                    new JsonDocumentOptions { AllowDuplicateProperties = false, MaxDepth = Json.MaxDepth }
                );
                ReadTexts(whole.RootElement);
            }

            return JsonSerializer.Deserialize<T>(body, Json) is { } value
                ? (value, null)
                : (null, ApiProblem.Validation("$", "must be an object"));
        }
        catch (JsonException exception)
        {
            var (field, message) = Describe(exception);
            return (null, ApiProblem.Validation(field, message));
        }
        catch (InvalidOperationException)
        {
            // how System.Text.Json says that a name or text has half a surrogate pair, escaped
            return (null, ApiProblem.Validation("$", "has a text that is no Unicode"));
        }
    }

    /// <summary>A form as browsers send it: the first value of each field.</summary>
    public static async Task<(IReadOnlyDictionary<string, string>? Fields, ProblemHttpResult? Problem)> ReadFormAsync(
        HttpRequest request,
        CancellationToken cancellationToken
    )
    {
        if (
            !MediaTypeHeaderValue.TryParse(request.ContentType, out var type)
            || !type.MediaType.Equals("application/x-www-form-urlencoded", StringComparison.OrdinalIgnoreCase)
        )
        {
            return (null, ApiProblem.Of(415, "unsupported_media_type", "The request must be application/x-www-form-urlencoded.", null));
        }

        if (await ReadBoundedAsync(request, cancellationToken) is not { } body)
        {
            return (null, TooLarge());
        }

        var fields = Microsoft.AspNetCore.WebUtilities.QueryHelpers.ParseQuery(System.Text.Encoding.UTF8.GetString(body));
        return (fields.ToDictionary(f => f.Key, f => f.Value[0] ?? "", StringComparer.Ordinal), null);
    }

    private static ProblemHttpResult TooLarge() =>
        ApiProblem.Of(413, "too_large", "The request is too large.", $"A body has at most {BytesMax} bytes.");

    /// <exception cref="InvalidOperationException">A name or text is no Unicode.</exception>
    private static void ReadTexts(JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.String:
                element.GetString();
                break;
            case JsonValueKind.Array:
                foreach (var item in element.EnumerateArray())
                {
                    ReadTexts(item);
                }

                break;
            case JsonValueKind.Object:
                foreach (var member in element.EnumerateObject())
                {
                    _ = member.Name;
                    ReadTexts(member.Value);
                }

                break;
        }
    }

    /// <summary>Text that can be stored, logged and shown: no control characters, no direction overrides, no lone surrogates.</summary>
    public static bool IsClean([NotNullWhen(true)] string? text) =>
        text is not null
        && text.EnumerateRunes()
            .All(rune =>
                rune.Value is not (0xFFFD or (>= 0x202A and <= 0x202E) or (>= 0x2066 and <= 0x2069)) && !System.Text.Rune.IsControl(rune)
            );

    private static async Task<byte[]?> ReadBoundedAsync(HttpRequest request, CancellationToken cancellationToken)
    {
        if (request.ContentLength > BytesMax)
        {
            return null;
        }

        var buffer = new byte[BytesMax + 1];
        var length = 0;
        int read;
        try
        {
            while (length < buffer.Length && (read = await request.Body.ReadAsync(buffer.AsMemory(length), cancellationToken)) > 0)
            {
                length += read;
            }
        }
        catch (IOException exception) when (exception is not BadHttpRequestException)
        {
            // such as a chunk whose size is none
            throw new BadHttpRequestException("The request's body cannot be read.", StatusCodes.Status400BadRequest, exception);
        }

        return length > BytesMax ? null : buffer[..length];
    }

    private static (string Field, string Message) Describe(JsonException exception)
    {
        var path = exception.Path is { Length: > 2 } text && text.StartsWith("$.", StringComparison.Ordinal) ? text[2..] : "$";
        // System.Text.Json names an unknown or repeated member only in its message
        if (Quoted(exception.Message, "The JSON property '") is { } unknown)
        {
            return (path == "$" ? unknown : path, "is not a member of this request");
        }

        if (Quoted(exception.Message, "Duplicate property '") is { } twice)
        {
            return (twice, "stands twice");
        }

        // an inner one comes from the reader: the text itself is broken
        return path == "$" || exception.InnerException is JsonException
            ? ("$", $"is not valid JSON (line {exception.LineNumber + 1}, byte {exception.BytePositionInLine + 1})")
            : (path, "has the wrong type");
    }

    private static string? Quoted(string message, string start)
    {
        if (!message.StartsWith(start, StringComparison.Ordinal))
        {
            return null;
        }

        var end = message.IndexOf('\'', start.Length);
        return end < 0 ? null : message[start.Length..end];
    }
}
