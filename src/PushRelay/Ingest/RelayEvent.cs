using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest;

/// <summary>Something the XMPP side reports, with its names already normalised. <see cref="At"/> is clamped to the time it came.</summary>
internal abstract record RelayEvent(string Account, DateTimeOffset At)
{
    /// <summary>A message that may alert the account's devices.</summary>
    public sealed record Message(string Account, DateTimeOffset At) : RelayEvent(Account, At)
    {
        /// <summary>Unique for this event within its server; the same when the event is replayed.</summary>
        public required string Key { get; init; }

        public required EventSource Source { get; init; }

        public required EventClass Class { get; init; }

        /// <summary>The sender, for a group the room; bare.</summary>
        public required string From { get; init; }

        /// <summary><c>chat</c>, <c>groupchat</c>, <c>normal</c>.</summary>
        public required string Type { get; init; }

        public string? Id { get; init; }

        public string? StanzaId { get; init; }

        public string? Nick { get; init; }

        public string? Body { get; init; }

        public string? CallId { get; init; }

        public bool Mention { get; init; }

        /// <summary>Reported before, when a socket that was dead still looked alive.</summary>
        public bool Unacked { get; init; }

        /// <summary>The account as it was when the event came.</summary>
        public required AccountPresence Presence { get; init; }

        /// <summary>A message that a server's module reports; null where its class is none that we know.</summary>
        public static Message? FromBridge(
            string? className,
            string key,
            string account,
            string from,
            string type,
            AccountPresence presence,
            DateTimeOffset at
        ) =>
            Names.TryParse(className, out EventClass @class)
                ? new Message(account, at)
                {
                    Key = key,
                    Source = EventSource.Bridge,
                    Class = @class,
                    From = from,
                    Type = type,
                    Presence = presence,
                }
                : null;
    }

    /// <summary>The account read, or answered, a conversation on some session.</summary>
    public sealed record Displayed(string Account, string With, DateTimeOffset At) : RelayEvent(Account, At);

    public sealed record AccountRemoved(string Account, DateTimeOffset At) : RelayEvent(Account, At);

    /// <summary>Sessions came to the front or left it.</summary>
    public sealed record PresenceChanged(PresenceChange Change, DateTimeOffset At) : RelayEvent(Change.Account, At);
}

/// <summary>How far a stream has been committed: the epoch of its module, and the last numbered stanza.</summary>
internal readonly record struct StreamPoint(string Epoch, long Seq);

/// <summary>Events of one stream in their order, and the point they bring it to; null where they have no number (a snapshot).</summary>
internal sealed record EventBatch(StreamName Stream, IReadOnlyList<RelayEvent> Events, StreamPoint? Point);
