using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest;

/// <summary>Something that happened to an account, with its names prepared. <see cref="At"/> is as its source reports it, unchecked:
/// <see cref="DeliveryFactory"/> bounds it.</summary>
internal abstract record RelayEvent(string Account, DateTimeOffset At)
{
    /// <summary>A message that may alert the account's devices.</summary>
    public sealed record Message(string Account, DateTimeOffset At) : RelayEvent(Account, At)
    {
        /// <summary>Unique for this event within its server; the same when the event is replayed.</summary>
        public required string Key { get; init; }

        public required EventSource Source { get; init; }

        public required EventClass Class { get; init; }

        /// <summary>The conversation: the sender, for a group the room, bare; of a private message in a room the occupant's full
        /// JID.</summary>
        public required string From { get; init; }

        /// <summary><c>chat</c>, <c>groupchat</c>, <c>normal</c>.</summary>
        public required string Type { get; init; }

        public string? Id { get; init; }

        public string? StanzaId { get; init; }

        /// <summary>What its alert shows.</summary>
        public AlertContent Content { get; init; } = AlertContent.Empty;

        /// <summary>The message that this one corrects, by the sender's id (XEP-0308).</summary>
        public string? Replaces { get; init; }

        /// <summary>When the message says itself that it was written (XEP-0203); null: now.</summary>
        public DateTimeOffset? Stamp { get; init; }

        public string? CallId { get; init; }

        /// <summary>How a call ended: <c>retracted answered rejected finished</c>; null: not known.</summary>
        public string? Ended { get; init; }

        /// <summary>A group message that names the account.</summary>
        public bool Mention { get; init; }

        /// <summary>Reported before, when a connection that was dead still looked alive.</summary>
        public bool Unacked { get; init; }

        /// <summary>The key of the one device that this is for; null: all of the account's.</summary>
        public Guid? OnlyDevice { get; init; }

        /// <summary>Only the account's devices of this app; null: of any.</summary>
        public string? OnlyApp { get; init; }

        /// <summary>The unread messages that the server counts; null: the relay counts itself.</summary>
        public int? Badge { get; init; }

        /// <summary>How long an alert of it is worth sending; null: as the settings say for its class.</summary>
        public TimeSpan? TimeToLive { get; init; }

        /// <summary>The account as it was when the event came.</summary>
        public required AccountPresence Presence { get; init; }
    }

    /// <summary>A message was withdrawn (XEP-0424, XEP-0425).</summary>
    public sealed record Retraction(string Account, DateTimeOffset At) : RelayEvent(Account, At)
    {
        /// <summary>The conversation, as <see cref="Message.From"/>.</summary>
        public required string From { get; init; }

        /// <summary>Who withdraws, in a room; null outside of rooms.</summary>
        public string? Nick { get; init; }

        /// <summary>The id of the message: its sender's, or the archive's where <see cref="OfStanza"/>.</summary>
        public required string Of { get; init; }

        public bool OfStanza { get; init; }

        /// <summary>The room itself withdraws it.</summary>
        public bool ByRoom { get; init; }
    }

    /// <summary>The account blocked this sender (XEP-0191).</summary>
    public sealed record Blocked(string Account, string Jid, DateTimeOffset At) : RelayEvent(Account, At);

    /// <summary>The account read, or answered, a conversation on some session.</summary>
    public sealed record Displayed(string Account, string With, DateTimeOffset At) : RelayEvent(Account, At)
    {
        /// <summary>The account as it was when the event came.</summary>
        public AccountPresence Presence { get; init; } = AccountPresence.Unknown;
    }

    /// <summary>The server has disabled the account, or enabled it again.</summary>
    public sealed record AccountDisabled(string Account, bool IsDisabled, DateTimeOffset At) : RelayEvent(Account, At);

    public sealed record AccountRemoved(string Account, DateTimeOffset At) : RelayEvent(Account, At);

    /// <summary>Sessions came to the front or left it.</summary>
    public sealed record PresenceChanged(PresenceChange Change, DateTimeOffset At) : RelayEvent(Change.Account, At);
}

/// <summary>Events of one stream in their order, and the point they bring it to; null where they have no number (a snapshot).</summary>
internal sealed record EventBatch(StreamName Stream, IReadOnlyList<RelayEvent> Events, StreamPoint? Point);
