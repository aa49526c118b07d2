using PushRelay.Apps;

namespace PushRelay.Push;

internal enum PushKind
{
    Message,
    Encrypted,
    Call,
    Invite,
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

    /// <summary>The sender's bare JID, for a group the room's.</summary>
    public required string From { get; init; }

    /// <summary><c>chat</c>, <c>groupchat</c>, <c>normal</c>.</summary>
    public required string Type { get; init; }

    public string? Nick { get; init; }

    public string? Body { get; init; }

    /// <summary>At most this much is shown, and no more than the app's setting allows.</summary>
    public AlertPreview Preview { get; init; } = AlertPreview.Full;

    /// <summary>The archive's id of the message, else the sender's.</summary>
    public string? MessageId { get; init; }

    public required int Badge { get; init; }

    public int Count { get; init; } = 1;
}
