using System.Buffers;
using System.Text.Json;
using System.Text.Json.Nodes;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Push.Texts;

namespace PushRelay.Push;

/// <summary>What an alert says, network by network the same members; each network has its own form for them.</summary>
internal sealed record AlertMembers
{
    // longer ones are left out: cut they would name nobody
    private const int NameCharsMax = 300;

    private static readonly JsonWriterOptions WriterOptions = new() { Encoder = PayloadEncoder.Instance };

    /// <summary>What it is, in one word of docs/api.md.</summary>
    public required string Kind { get; init; }

    public string? Title { get; init; }

    /// <summary>Null under <see cref="AlertWords.Keys"/> where it is one of our texts: <see cref="Words"/> names it.</summary>
    public string? Body { get; init; }

    /// <summary>The text of ours that the alert shows; null: the sender's text is shown.</summary>
    public AlertWording? Words { get; init; }

    /// <summary>Under <see cref="AlertWords.Keys"/> who writes in a group, as no text of ours can begin with it.</summary>
    public string? Subtitle { get; init; }

    public required int Badge { get; init; }

    public required string Thread { get; init; }

    public required string Collapse { get; init; }

    public required string Account { get; init; }

    public string? From { get; init; }

    public string? Id { get; init; }

    public required string Type { get; init; }

    public required string Receipt { get; init; }

    public required int Count { get; init; }

    /// <summary>Without a sound.</summary>
    public bool Silent { get; init; }

    /// <summary>Shows nothing.</summary>
    public bool Background { get; init; }

    /// <summary>What the server encrypted to the app, in base64.</summary>
    public string? Encrypted { get; init; }

    public string? Iv { get; init; }

    /// <summary>What an operator gives the app.</summary>
    public IReadOnlyDictionary<string, string>? Data { get; init; }

    public CallMember? Call { get; init; }

    public InviteMember? Invite { get; init; }

    /// <summary>What an app needs to take the call.</summary>
    internal sealed record CallMember(string? Id, string? From, IReadOnlyList<string>? Media);

    /// <summary>Who invites, and where to.</summary>
    internal sealed record InviteMember(string? By, string? Room);

    /// <param name="notification">What is said.</param>
    /// <param name="alert">The app's settings.</param>
    /// <param name="most">What may be shown; null: what the app's settings allow. The user may show less, never more.</param>
    public static AlertMembers Of(Notification notification, AlertOptions alert, AlertPreview? most = null)
    {
        var preview = (AlertPreview)Math.Max((int)notification.Preview, (int)(most ?? alert.Preview));
        var shown = AlertText.Of(notification, preview, alert);
        var names = preview != AlertPreview.None;
        return new AlertMembers
        {
            Kind = AlertText.KindOf(notification, preview),
            Title = WellFormed(shown.Title),
            Body = WellFormed(shown.Body),
            Words = shown.Words,
            Subtitle = WellFormed(shown.Subtitle),
            Badge = notification.Badge,
            Thread = notification.ThreadId,
            Collapse = notification.CollapseId ?? notification.ThreadId,
            Account = notification.Account,
            From = names && !notification.Anonymous && notification.From.Length <= NameCharsMax ? notification.From : null,
            Id = notification.MessageId is { Length: <= NameCharsMax } id ? PayloadText.WellFormed(id) : null,
            Type = notification.Type,
            Receipt = notification.Receipt,
            Count = notification.Count,
            Silent = notification.Silent || notification.Update,
            Background = AlertText.IsBackground(notification, alert),
            Encrypted = notification.Encrypted,
            Iv = notification.Iv,
            Data = notification.Data,
            Call = notification.Kind is PushKind.Call or PushKind.MissedCall
                ? new CallMember(Short(notification.CallId), names ? Short(notification.Caller) : null, notification.Media)
                : null,
            Invite =
                notification.Kind == PushKind.Invite && names
                    ? new InviteMember(Short(notification.Inviter), Short(notification.Room))
                    : null,
        };
    }

    /// <summary>Each member with its JSON, in their order; what is not there is left out.</summary>
    /// <param name="json">Where to.</param>
    /// <param name="withTexts">Title and body too.</param>
    public void Write(Utf8JsonWriter json, bool withTexts = true)
    {
        json.WriteString("kind"u8, Kind);
        if (withTexts)
        {
            WriteIf(json, "title"u8, Title);
            WriteIf(json, "body"u8, Body);
        }

        json.WriteNumber("badge"u8, Badge);
        json.WriteString("thread"u8, Thread);
        json.WriteString("collapse"u8, Collapse);
        json.WriteString("account"u8, Account);
        WriteIf(json, "from"u8, From);
        WriteIf(json, "id"u8, Id);
        json.WriteString("type"u8, Type);
        json.WriteString("receipt"u8, Receipt);
        if (Count > 1)
        {
            json.WriteNumber("count"u8, Count);
        }

        if (Silent)
        {
            json.WriteBoolean("silent"u8, true);
        }

        WriteIf(json, "encrypted"u8, Encrypted);
        WriteIf(json, "iv"u8, Iv);
        if (Data is not null)
        {
            json.WritePropertyName("data"u8);
            DataJson().WriteTo(json);
        }

        if (Call is not null)
        {
            json.WritePropertyName("call"u8);
            CallJson().WriteTo(json);
        }

        if (Invite is not null)
        {
            json.WritePropertyName("invite"u8);
            InviteJson().WriteTo(json);
        }
    }

    /// <summary>Member <c>data</c>.</summary>
    public JsonObject DataJson() => new(Data!.Select(d => KeyValuePair.Create(d.Key, (JsonNode?)JsonValue.Create(d.Value))));

    /// <summary>Member <c>call</c>.</summary>
    public JsonObject CallJson()
    {
        var json = new JsonObject();
        Add(json, "id", Call!.Id);
        Add(json, "from", Call.From);
        if (Call.Media is { Count: > 0 } media)
        {
            json["media"] = new JsonArray([.. media.Select(m => JsonValue.Create(m))]);
        }

        return json;
    }

    /// <summary>Member <c>invite</c>.</summary>
    public JsonObject InviteJson()
    {
        var json = new JsonObject();
        Add(json, "by", Invite!.By);
        Add(json, "room", Invite.Room);
        return json;
    }

    /// <summary>The members as one JSON object.</summary>
    public byte[] ToJson() =>
        Json(json =>
        {
            json.WriteStartObject();
            Write(json);
            json.WriteEndObject();
        });

    /// <summary>UTF-8 in which nothing is escaped that need not be.</summary>
    public static byte[] Json(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>(512);
        using (var json = new Utf8JsonWriter(buffer, WriterOptions))
        {
            write(json);
        }

        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>
    /// What <paramref name="write"/> makes of the members, in at most <paramref name="bytesMax"/> bytes: if need be the body is cut, then
    /// the title, between two characters as a reader sees them, and ends in <c>…</c>.
    /// </summary>
    /// <param name="bytesMax">For the whole.</param>
    /// <param name="write">Writes both texts into JSON once.</param>
    /// <returns>Null: it does not fit with both empty.</returns>
    public byte[]? Fit(int bytesMax, Func<AlertMembers, byte[]> write)
    {
        var members = this;
        var bytes = write(members);
        if (bytes.Length > bytesMax && members.Body is { Length: > 0 } body)
        {
            members = members with { Body = Cut(body, bytesMax - bytes.Length) };
            bytes = write(members);
        }

        if (bytes.Length > bytesMax && members.Title is { Length: > 0 } title)
        {
            members = members with { Title = Cut(title, bytesMax - bytes.Length) };
            bytes = write(members);
        }

        return bytes.Length <= bytesMax ? bytes : null;
    }

    /// <param name="text">As it is.</param>
    /// <param name="bytes">How many more it may have; negative: fewer.</param>
    private static string Cut(string text, int bytes) => PayloadText.Cut(text, Math.Max(0, PayloadText.EncodedBytes(text) + bytes), "…");

    private static string? Short(string? text) => text is { Length: <= NameCharsMax } ? PayloadText.WellFormed(text) : null;

    private static string? WellFormed(string? text) => text is null ? null : PayloadText.WellFormed(text);

    private static void Add(JsonObject json, string name, string? text)
    {
        if (text is not null)
        {
            json[name] = text;
        }
    }

    private static void WriteIf(Utf8JsonWriter json, ReadOnlySpan<byte> name, string? text)
    {
        if (text is not null)
        {
            json.WriteString(name, text);
        }
    }
}
