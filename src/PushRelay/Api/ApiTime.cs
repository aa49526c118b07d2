using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace PushRelay.Api;

/// <summary>Times as the outside reads them: RFC 3339, UTC, milliseconds, always the same length.</summary>
internal sealed class ApiTime : JsonConverter<DateTimeOffset>
{
    public override DateTimeOffset Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.GetDateTimeOffset();

    public override void Write(Utf8JsonWriter writer, DateTimeOffset value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));
}
