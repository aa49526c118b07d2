using System.Text.Json;
using System.Text.Json.Serialization;
using PushRelay.Secrets;

namespace PushRelay.Outbox;

/// <summary>What an alert becomes. The numbers are stored: never change one.</summary>
internal enum FollowUpKind
{
    /// <summary>The sender withdrew the message.</summary>
    Retracted = 1,

    /// <summary>The caller gave up.</summary>
    MissedCall = 2,

    /// <summary>It was read, or the call answered or refused, on another device.</summary>
    Read = 3,
}

/// <summary>What only the alert needs: sealed in the ledger row until it is settled, then gone.</summary>
internal sealed record AlertContent
{
    private const string Column = nameof(Delivery.Content);

    private static readonly JsonSerializerOptions Stored = new() { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault };

    public static readonly AlertContent Empty = new();

    /// <summary>The text; of a spoiler its hint.</summary>
    public string? Body { get; init; }

    /// <summary>The text in several languages, by BCP 47 tag; null: only <see cref="Body"/>.</summary>
    public IReadOnlyDictionary<string, string>? Bodies { get; init; }

    /// <summary>The nickname of who writes in a room.</summary>
    public string? Nick { get; init; }

    /// <summary>The display name of the sender or the room, as the account knows it.</summary>
    public string? Name { get; init; }

    /// <summary>A file, sticker or place: <c>image gif video audio voice file sticker location</c>.</summary>
    public string? File { get; init; }

    public string? FileName { get; init; }

    /// <summary>A spoiler: its text is not shown.</summary>
    public bool Hidden { get; init; }

    /// <summary>Of a call: <c>audio</c>, <c>video</c>.</summary>
    public IReadOnlyList<string>? Media { get; init; }

    /// <summary>Of a call: the full JID of the caller's session.</summary>
    public string? Caller { get; init; }

    /// <summary>The room that an invitation, a group call or a private message is about.</summary>
    public string? Room { get; init; }

    /// <summary>Who invites, bare.</summary>
    public string? Inviter { get; init; }

    /// <summary>It names no sender.</summary>
    public bool Anonymous { get; init; }

    /// <summary>Encrypted by the server to the app (<c>tigase:push:encrypt:0</c>): passed on as it is, in base64.</summary>
    public string? Encrypted { get; init; }

    /// <summary>The initialisation vector of <see cref="Encrypted"/>, in base64.</summary>
    public string? Iv { get; init; }

    /// <summary>An operator's alert that may wait until the phone is used.</summary>
    public bool Calm { get; init; }

    /// <summary>Payload member <c>data</c> of an operator's alert.</summary>
    public IReadOnlyDictionary<string, string>? Data { get; init; }

    /// <summary>The device's quiet hours: no sound.</summary>
    public bool Silent { get; init; }

    /// <summary>For a row that follows up an alert: what the alert becomes; null: its corrected text.</summary>
    public FollowUpKind? FollowUp { get; init; }

    /// <summary>For a row that follows up an alert which was being sent: the row of that alert. The follow-up is sent only if the alert
    /// was accepted.</summary>
    public Guid? After { get; init; }

    public byte[]? Seal(MasterKey key, Guid delivery) => this == Empty ? null : key.Seal(ToJson(), Delivery.TableName, delivery, Column);

    /// <summary>The form that is sealed: members that are null are left out.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Stored);

    public static AlertContent Open(MasterKey key, Delivery delivery) =>
        delivery.Content is null
            ? Empty
            : JsonSerializer.Deserialize<AlertContent>(key.Open(delivery.Content, Delivery.TableName, delivery.Id, Column), Stored)!;
}
