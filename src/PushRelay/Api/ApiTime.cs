using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace PushRelay.Api;

/// <summary>Times as the outside reads them: RFC 3339, UTC, milliseconds, always the same length.</summary>
internal sealed partial class ApiTime : JsonConverter<DateTimeOffset>
{
    public const string Form = "must be a time such as 2026-01-31T08:00:00Z (RFC 3339)";

    public override DateTimeOffset Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.GetDateTimeOffset();

    public override void Write(Utf8JsonWriter writer, DateTimeOffset value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));

    /// <summary>A query's time; null where there is none.</summary>
    /// <returns>False: it is no time.</returns>
    public static bool TryParse(string? text, out DateTimeOffset? time)
    {
        time = null;
        if (text is null)
        {
            return true;
        }

        // an unescaped + of an offset is a space by now
        var written = text.Replace(' ', '+');
        if (
            !Rfc3339().IsMatch(written)
            || !DateTimeOffset.TryParse(written, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal, out var parsed)
        )
        {
            return false;
        }

        time = parsed;
        return true;
    }

    [GeneratedRegex(@"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\z")]
    private static partial Regex Rfc3339();
}
