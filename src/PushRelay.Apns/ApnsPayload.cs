using System.Buffers;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace PushRelay.Apns;

/// <summary>How insistently the phone presents an alert. Time-sensitive and critical need an entitlement of the app.</summary>
public enum ApnsInterruptionLevel
{
    Passive,
    Active,
    TimeSensitive,
    Critical,
}

/// <summary>The text of an alert that may be cut where the payload is too large.</summary>
public enum ApnsPayloadField
{
    /// <summary>Nothing is cut: too large is an error.</summary>
    None,
    Body,
    Title,
    Subtitle,
}

/// <summary>Builds the JSON of a push. What is null or empty is left out.</summary>
public sealed class ApnsPayload
{
    private const string Ellipsis = "…";

    private static readonly JsonWriterOptions WriterOptions = new() { Encoder = PayloadEncoder.Instance };

    public string? Title { get; set; }

    /// <summary>Key of the title in the app's <c>Localizable.strings</c>.</summary>
    public string? TitleLocKey { get; set; }

    public IReadOnlyList<string>? TitleLocArgs { get; set; }

    public string? Subtitle { get; set; }

    public string? SubtitleLocKey { get; set; }

    public IReadOnlyList<string>? SubtitleLocArgs { get; set; }

    public string? Body { get; set; }

    public string? LocKey { get; set; }

    public IReadOnlyList<string>? LocArgs { get; set; }

    /// <summary>The number on the app's icon, absolute; 0 takes it away and clears the app's notifications.</summary>
    public int? Badge { get; set; }

    /// <summary>A file in the app, or <c>default</c>.</summary>
    public string? Sound { get; set; }

    /// <summary>Between 0 and 1: makes the sound a critical one, heard also when the phone is muted (needs an entitlement of the
    /// app).</summary>
    public double? CriticalVolume { get; set; }

    public string? ThreadId { get; set; }

    public string? Category { get; set; }

    /// <summary>Runs the app's notification service extension; only with something to show.</summary>
    public bool MutableContent { get; set; }

    /// <summary>Wakes the app. Alone it makes a push of type <see cref="ApnsPushType.Background"/>.</summary>
    public bool ContentAvailable { get; set; }

    public ApnsInterruptionLevel? InterruptionLevel { get; set; }

    /// <summary>Between 0 and 1.</summary>
    public double? RelevanceScore { get; set; }

    /// <summary>Further members of <c>aps</c>, for example <c>content-state</c> of a Live Activity. None that has a property
    /// here.</summary>
    public IDictionary<string, JsonNode?> Aps { get; init; } = new Dictionary<string, JsonNode?>();

    /// <summary>The app's own members, beside <c>aps</c>.</summary>
    public IDictionary<string, JsonNode?> Custom { get; init; } = new Dictionary<string, JsonNode?>();

    private bool HasAlert =>
        Title is not null
        || TitleLocKey is not null
        || Subtitle is not null
        || SubtitleLocKey is not null
        || Body is not null
        || LocKey is not null;

    /// <summary>Adds an own member from a type known to a source-generated context.</summary>
    public void SetCustom<T>(string name, T value, JsonTypeInfo<T> typeInfo) =>
        Custom[name] = JsonSerializer.SerializeToNode(value, typeInfo);

    /// <summary>
    /// The JSON in UTF-8, never more than <paramref name="bytesMax"/> bytes: if need be the text of <paramref name="cut"/> is cut between
    /// two characters as a reader sees them (a family emoji, a flag, a letter with its marks stays whole) and ends in <c>…</c>.
    /// A lone surrogate becomes U+FFFD.
    /// </summary>
    /// <exception cref="ArgumentException">It does not fit even with that text empty, or the members contradict each other.</exception>
    public byte[] ToBytes(int bytesMax = 4096, ApnsPayloadField cut = ApnsPayloadField.Body) =>
        ToBytes(bytesMax, cut, ApnsPayloadField.None);

    /// <summary>The same; where it does not fit even with <paramref name="cut"/> empty, <paramref name="thenCut"/> is cut too.</summary>
    /// <exception cref="ArgumentException">It does not fit even with both empty, or the members contradict each other.</exception>
    public byte[] ToBytes(int bytesMax, ApnsPayloadField cut, ApnsPayloadField thenCut)
    {
        Check();
        var texts = new Texts(Title, Subtitle, Body);
        var written = Write(texts);
        foreach (var field in (ReadOnlySpan<ApnsPayloadField>)[cut, thenCut])
        {
            if (written.WrittenCount <= bytesMax)
            {
                break;
            }

            if (texts[field] is { Length: > 0 } text)
            {
                var textBytesMax = bytesMax - (written.WrittenCount - PayloadText.EncodedBytes(text));
                texts = texts.With(field, textBytesMax < 0 ? "" : PayloadText.Cut(text, textBytesMax, Ellipsis));
                written = Write(texts);
            }
        }

        return written.WrittenCount <= bytesMax
            ? written.WrittenSpan.ToArray()
            : throw new ArgumentException(
                $"The payload does not fit into {bytesMax} bytes: {written.WrittenCount} are left with its text cut away.",
                nameof(bytesMax)
            );
    }

    private void Check()
    {
        if (MutableContent && !HasAlert)
        {
            throw new ArgumentException("mutable-content works only with an alert: the extension is not run for anything else.");
        }

        if (CriticalVolume is < 0 or > 1 or double.NaN || RelevanceScore is < 0 or > 1 or double.NaN)
        {
            throw new ArgumentException("CriticalVolume and RelevanceScore are between 0 and 1.");
        }

        if (Badge < 0)
        {
            throw new ArgumentException("A badge is not negative.");
        }

        if (Custom.ContainsKey("aps"))
        {
            throw new ArgumentException("The member 'aps' is Apple's; put further members of it into Aps.");
        }
    }

    private ArrayBufferWriter<byte> Write(Texts texts)
    {
        var buffer = new ArrayBufferWriter<byte>(512);
        using var json = new Utf8JsonWriter(buffer, WriterOptions);
        json.WriteStartObject();
        json.WriteStartObject("aps"u8);
        if (HasAlert)
        {
            json.WriteStartObject("alert"u8);
            WriteText(json, "title"u8, texts.Title);
            WriteLocalised(json, "title-loc-key"u8, TitleLocKey, "title-loc-args"u8, TitleLocArgs);
            WriteText(json, "subtitle"u8, texts.Subtitle);
            WriteLocalised(json, "subtitle-loc-key"u8, SubtitleLocKey, "subtitle-loc-args"u8, SubtitleLocArgs);
            WriteText(json, "body"u8, texts.Body);
            WriteLocalised(json, "loc-key"u8, LocKey, "loc-args"u8, LocArgs);
            json.WriteEndObject();
        }

        if (Badge is { } badge)
        {
            json.WriteNumber("badge"u8, badge);
        }

        WriteSound(json);
        WriteText(json, "thread-id"u8, ThreadId);
        WriteText(json, "category"u8, Category);
        if (MutableContent)
        {
            json.WriteNumber("mutable-content"u8, 1);
        }

        if (ContentAvailable)
        {
            json.WriteNumber("content-available"u8, 1);
        }

        if (InterruptionLevel is { } level)
        {
            json.WriteString(
                "interruption-level"u8,
                level switch
                {
                    ApnsInterruptionLevel.Passive => "passive"u8,
                    ApnsInterruptionLevel.Active => "active"u8,
                    ApnsInterruptionLevel.TimeSensitive => "time-sensitive"u8,
                    ApnsInterruptionLevel.Critical => "critical"u8,
                }
            );
        }

        if (RelevanceScore is { } score)
        {
            json.WriteNumber("relevance-score"u8, score);
        }

        WriteMembers(json, Aps);
        json.WriteEndObject();
        WriteMembers(json, Custom);
        json.WriteEndObject();
        json.Flush();
        return buffer;
    }

    private void WriteSound(Utf8JsonWriter json)
    {
        if (CriticalVolume is not { } volume)
        {
            WriteText(json, "sound"u8, Sound);
            return;
        }

        json.WriteStartObject("sound"u8);
        json.WriteNumber("critical"u8, 1);
        WriteText(json, "name"u8, Sound ?? "default");
        json.WriteNumber("volume"u8, volume);
        json.WriteEndObject();
    }

    private static void WriteLocalised(
        Utf8JsonWriter json,
        ReadOnlySpan<byte> keyName,
        string? key,
        ReadOnlySpan<byte> argsName,
        IReadOnlyList<string>? args
    )
    {
        WriteText(json, keyName, key);
        if (args is not { Count: > 0 })
        {
            return;
        }

        json.WriteStartArray(argsName);
        foreach (var arg in args)
        {
            json.WriteStringValue(PayloadText.WellFormed(arg));
        }

        json.WriteEndArray();
    }

    private static void WriteText(Utf8JsonWriter json, ReadOnlySpan<byte> name, string? text)
    {
        if (text is not null)
        {
            json.WriteString(name, PayloadText.WellFormed(text));
        }
    }

    private static void WriteMembers(Utf8JsonWriter json, IDictionary<string, JsonNode?> members)
    {
        foreach (var (name, value) in members)
        {
            json.WritePropertyName(PayloadText.WellFormed(name));
            if (value is null)
            {
                json.WriteNullValue();
            }
            else
            {
                value.WriteTo(json);
            }
        }
    }

    /// <summary>What may be cut, as far as it is.</summary>
    private readonly record struct Texts(string? Title, string? Subtitle, string? Body)
    {
        public string? this[ApnsPayloadField field] =>
            field switch
            {
                ApnsPayloadField.None => null,
                ApnsPayloadField.Body => Body,
                ApnsPayloadField.Title => Title,
                ApnsPayloadField.Subtitle => Subtitle,
            };

        public Texts With(ApnsPayloadField field, string text) =>
            field switch
            {
                ApnsPayloadField.None => this,
                ApnsPayloadField.Body => this with { Body = text },
                ApnsPayloadField.Title => this with { Title = text },
                ApnsPayloadField.Subtitle => this with { Subtitle = text },
            };
    }
}
