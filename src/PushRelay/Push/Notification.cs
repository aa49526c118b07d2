using PushRelay.Apps;

namespace PushRelay.Push;

internal enum PushKind
{
    Message,
    Encrypted,
    Call,

    /// <summary>The caller gave up; it takes the place of the alert that rang.</summary>
    MissedCall,
    Invite,

    /// <summary>Somebody wants to be a contact.</summary>
    Subscribe,
    Attention,

    /// <summary>A message was withdrawn; it takes the place of its alert.</summary>
    Retracted,

    /// <summary>Shows nothing: a conversation was read elsewhere.</summary>
    Read,

    /// <summary>There is something, and nobody knows what: the app fetches it.</summary>
    Wakeup,

    /// <summary>Shows nothing but the number on the icon.</summary>
    Badge,
}

/// <summary>One alert for one device, before any push network's words are used.</summary>
internal sealed record Notification
{
    /// <summary>The same on every attempt, so that a repetition can be told from a second alert.</summary>
    public required Guid Id { get; init; }

    public required PushAddress Address { get; init; }

    public required Lane Lane { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Names the conversation, and tells it to nobody.</summary>
    public required string ThreadId { get; init; }

    /// <summary>What the phone sends back: the credential of exactly this delivery's receipt.</summary>
    public required string Receipt { get; init; }

    public required PushKind Kind { get; init; }

    public required string Account { get; init; }

    /// <summary>The sender's bare JID, for a group the room's; of a private message in a room the occupant's full JID.</summary>
    public required string From { get; init; }

    /// <summary><c>chat</c>, <c>groupchat</c>, <c>normal</c>.</summary>
    public required string Type { get; init; }

    /// <summary>Nobody is named: <see cref="From"/> only stands for the server.</summary>
    public bool Anonymous { get; init; }

    /// <summary>Encrypted by the server to the app, in base64: passed on as it is.</summary>
    public string? Encrypted { get; init; }

    /// <summary>The initialisation vector of <see cref="Encrypted"/>, in base64.</summary>
    public string? Iv { get; init; }

    /// <summary>The app reads the members that apps of the Tigase family know, too.</summary>
    public bool Tigase { get; init; }

    /// <summary>It may wait until the phone is used.</summary>
    public bool Calm { get; init; }

    /// <summary>What an operator gives the app with it.</summary>
    public IReadOnlyDictionary<string, string>? Data { get; init; }

    /// <summary>Of who writes in a room.</summary>
    public string? Nick { get; init; }

    /// <summary>The display name of the sender or the room, as the account knows it.</summary>
    public string? Name { get; init; }

    /// <summary>The text; of a spoiler its hint.</summary>
    public string? Body { get; init; }

    /// <summary>The text in several languages, by BCP 47 tag.</summary>
    public IReadOnlyDictionary<string, string>? Bodies { get; init; }

    /// <summary>A file, sticker or place: <c>image gif video audio voice file sticker location</c>; null: a text.</summary>
    public string? File { get; init; }

    public string? FileName { get; init; }

    /// <summary>A spoiler: its text is not told.</summary>
    public bool Hidden { get; init; }

    public string? CallId { get; init; }

    /// <summary>Of a call: <c>audio</c>, <c>video</c>.</summary>
    public IReadOnlyList<string>? Media { get; init; }

    /// <summary>Of a call: the full JID of the caller's session.</summary>
    public string? Caller { get; init; }

    /// <summary>The room that an invitation, a group call or a private message is about.</summary>
    public string? Room { get; init; }

    /// <summary>Who invites, bare.</summary>
    public string? Inviter { get; init; }

    /// <summary>The device's BCP 47 tag; null: unknown.</summary>
    public string? Locale { get; init; }

    /// <summary>No sound, and the screen stays dark: the device's quiet hours.</summary>
    public bool Silent { get; init; }

    /// <summary>Follows an alert and takes its place: no sound.</summary>
    public bool Update { get; init; }

    /// <summary>What a later alert takes the place of; null: <see cref="ThreadId"/>.</summary>
    public string? CollapseId { get; init; }

    /// <summary>At most this much is shown, and no more than the app's setting allows.</summary>
    public AlertPreview Preview { get; init; } = AlertPreview.Full;

    /// <summary>The archive's id of the message, else the sender's.</summary>
    public string? MessageId { get; init; }

    public required int Badge { get; init; }

    public int Count { get; init; } = 1;
}
