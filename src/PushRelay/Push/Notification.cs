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

    public required string App { get; init; }

    public required string Token { get; init; }

    public string? VoipToken { get; init; }

    public required bool Sandbox { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <summary>Names the conversation without telling it: collapse id and thread id.</summary>
    public required string ThreadId { get; init; }

    /// <summary>It goes to the token for calls.</summary>
    public bool UsesVoip => this is { Kind: PushKind.Call, VoipToken: not null };

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

/// <summary>What an attempt came to; the closed set that the dispatcher decides by.</summary>
internal enum PushOutcome
{
    Accepted,

    /// <summary>The token is dead, or none of this app.</summary>
    DeviceInvalid,

    /// <summary>This notification is wrong and will always be.</summary>
    Refused,

    /// <summary>Later; it was not processed.</summary>
    Deferred,

    /// <summary>Our credentials or topic are wrong: no fault of device or notification.</summary>
    Misconfigured,

    /// <summary>It may have been processed: ask again with the same id.</summary>
    Unknown,
}

/// <summary>A push network's answer, or why there is none.</summary>
internal sealed record PushAnswer(PushOutcome Outcome, int? Status, string? Reason, string? ProviderId, TimeSpan Duration)
{
    /// <summary>When the token died, where the network says so.</summary>
    public DateTimeOffset? InvalidSince { get; init; }

    /// <summary>The network asks to wait at least this long.</summary>
    public TimeSpan? RetryAfter { get; init; }
}
