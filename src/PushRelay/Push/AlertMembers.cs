using System.Buffers;
using System.Globalization;
using System.Text.Json;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Push;

/// <summary>What an alert says, network by network the same members; each network has its own form for them.</summary>
internal sealed record AlertMembers
{
    private const int TitleElementsMax = 100;

    // longer ones are left out: cut they would name nobody
    private const int NameCharsMax = 300;

    private static readonly JsonWriterOptions WriterOptions = new() { Encoder = PayloadEncoder.Instance };

    public required string Kind { get; init; }

    public string? Title { get; init; }

    public string? Body { get; init; }

    public required int Badge { get; init; }

    public required string Thread { get; init; }

    public required string Collapse { get; init; }

    public required string Account { get; init; }

    public string? From { get; init; }

    public string? Id { get; init; }

    public required string Type { get; init; }

    public required string Receipt { get; init; }

    public required int Count { get; init; }

    /// <param name="notification">What is said.</param>
    /// <param name="most">What the app allows; the user may show less, never more.</param>
    public static AlertMembers Of(Notification notification, AlertPreview most)
    {
        var preview = (AlertPreview)Math.Max((int)notification.Preview, (int)most);
        return new AlertMembers
        {
            Kind = notification.Kind switch
            {
                PushKind.Message => "message",
                PushKind.Encrypted => "encrypted",
                PushKind.Call => "call",
                PushKind.Invite => "invite",
            },
            Title = preview == AlertPreview.None ? null : TitleOf(notification),
            Body = preview == AlertPreview.Full ? BodyOf(notification) : null,
            Badge = notification.Badge,
            Thread = notification.ThreadId,
            Collapse = notification.ThreadId,
            Account = notification.Account,
            From = preview != AlertPreview.None && notification.From.Length <= NameCharsMax ? notification.From : null,
            Id = notification.MessageId is { Length: <= NameCharsMax } id ? PayloadText.WellFormed(id) : null,
            Type = notification.Type,
            Receipt = notification.Receipt,
            Count = notification.Count,
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

    /// <summary>A name that is longer than any screen, cut between characters.</summary>
    private static string CutName(string name)
    {
        if (name.Length <= TitleElementsMax)
        {
            return name;
        }

        var elements = StringInfo.ParseCombiningCharacters(name);
        return elements.Length > TitleElementsMax ? name[..elements[TitleElementsMax]] + "…" : name;
    }

    /// <param name="text">As it is.</param>
    /// <param name="bytes">How many more it may have; negative: fewer.</param>
    private static string Cut(string text, int bytes) => PayloadText.Cut(text, Math.Max(0, PayloadText.EncodedBytes(text) + bytes), "…");

    /// <summary>Who writes, or the room that is written in, as a person reads it.</summary>
    public static string NameOf(Notification notification) =>
        CutName(
            notification.Type == "groupchat" && Jid.TryParse(notification.From, out var room) && room.Local is { } local
                ? local
                : notification.From
        );

    private static string TitleOf(Notification notification) =>
        notification.Count > 1
            ? string.Create(CultureInfo.InvariantCulture, $"{NameOf(notification)} ({notification.Count})")
            : NameOf(notification);

    private static string? BodyOf(Notification notification) =>
        notification is not { Kind: PushKind.Message, Body: { } body } ? null
        : notification is { Type: "groupchat", Nick: { } nick } ? PayloadText.WellFormed($"{CutName(nick)}: {body}")
        : PayloadText.WellFormed(body);

    private static void WriteIf(Utf8JsonWriter json, ReadOnlySpan<byte> name, string? text)
    {
        if (text is not null)
        {
            json.WriteString(name, text);
        }
    }
}
