using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Xml.Linq;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Xmpp;

namespace PushRelay.Bridge;

/// <summary>An <c>events</c> stanza of the bridge, read as far as its numbers.</summary>
internal sealed record BridgeEvents(string Epoch, long? Seq, bool Snapshot, bool Replay, IReadOnlyList<XElement> Children);

/// <summary>What a server answers a snapshot request with.</summary>
internal sealed record BridgeSnapshot(string Epoch, long Seq, long Dropped, string Software, string Module);

/// <summary>One session as the wire has it; no session where it closed.</summary>
internal sealed record BridgeSession(string Account, string Sid, Session? Session);

/// <summary>
/// Reads and writes the stanzas of <c>urn:pushrelay:bridge:1</c> (docs/bridge.md). Unknown elements and attributes are ignored: newer
/// modules send more.
/// </summary>
internal static class BridgeProtocol
{
    /// <summary>Of the server modules that are released with this relay.</summary>
    public const string ModuleVersion = "1.0.0";

    public static readonly XNamespace Namespace = "urn:pushrelay:bridge:1";

    /// <summary>Every XML name of the wire, also those that only newer modules send and the relay does not read yet: they stay known after
    /// peers have sent many invented names.</summary>
    public static readonly IReadOnlyCollection<XName> Names =
    [
        .. (
            "events session message retraction displayed blocked account-removed account-disabled account-enabled heartbeat end "
            + "snapshot ack body"
        )
            .Split(' ')
            .Select(name => Namespace + name),
        .. (
            "epoch seq node snapshot replay jid sid state available priority show ts to from type class id stanza-id origin-id call "
            + "media ended mention nick name room inviter kind file hide private replaces stamp of of-stanza by unacked account with "
            + "interval dropped server module"
        )
            .Split(' ')
            .Select(name => XName.Get(name)),
    ];

    private static readonly long LastInstant = DateTimeOffset.MaxValue.ToUnixTimeMilliseconds();

    private static readonly HashSet<string> Kinds = new(
        ["image", "gif", "video", "audio", "voice", "file", "sticker", "location"],
        StringComparer.Ordinal
    );

    private const char NumberingMark = '~';
    private const int BodyCharsMax = 8 * 1024;
    private const int IdCharsMax = 512;
    private const int SidCharsMax = 128;
    private const int NickCharsMax = 256;
    private const int NameCharsMax = 256;
    private const int TagCharsMax = 35;
    private const int BodiesMax = 4;
    private const int NodeCharsMax = 255;
    private const int ChildrenMax = 100;

    public static XElement SnapshotRequest(string id, string from, StreamName stream, StreamPoint? position) =>
        new(
            XmppStanza.Component + "iq",
            new XAttribute("type", "get"),
            new XAttribute("id", id),
            new XAttribute("from", from),
            new XAttribute("to", stream.Server),
            new XElement(
                Namespace + "snapshot",
                Node(stream),
                position is { } point ? new[] { new XAttribute("epoch", WireEpoch(point.Epoch)), new XAttribute("seq", point.Seq) } : null
            )
        );

    public static XElement Ack(string from, StreamName stream, StreamPoint point) =>
        new(
            XmppStanza.Component + "message",
            new XAttribute("from", from),
            new XAttribute("to", stream.Server),
            new XElement(Namespace + "ack", Node(stream), new XAttribute("epoch", WireEpoch(point.Epoch)), new XAttribute("seq", point.Seq))
        );

    /// <summary>The epoch as its module has it.</summary>
    /// <param name="epoch">As it is committed, perhaps with a number at its end (<see cref="NextNumbering"/>).</param>
    public static string WireEpoch(string epoch) =>
        epoch.LastIndexOf(NumberingMark) is var at and > 0 && int.TryParse(epoch.AsSpan(at + 1), out _) ? epoch[..at] : epoch;

    /// <summary>Another name for the same epoch, whose numbers were given out a second time: 4711, 4711~2, 4711~3.</summary>
    public static string NextNumbering(string epoch)
    {
        var wire = WireEpoch(epoch);
        var number = wire == epoch ? 1 : int.Parse(epoch.AsSpan(wire.Length + 1), CultureInfo.InvariantCulture);
        return string.Create(CultureInfo.InvariantCulture, $"{wire}{NumberingMark}{number + 1}");
    }

    /// <summary>The child in the bridge's namespace; null: none of the bridge's stanzas.</summary>
    public static XElement? PayloadOf(XElement stanza) => stanza.Elements().FirstOrDefault(e => e.Name.Namespace == Namespace);

    /// <summary>The stream that a stanza is of: its sender, and the node that its payload names.</summary>
    public static StreamName StreamOf(XElement stanza) =>
        new((string?)stanza.Attribute("from") ?? "", Cut((string?)PayloadOf(stanza)?.Attribute("node"), NodeCharsMax) ?? "");

    public static bool TryReadEvents(XElement stanza, [NotNullWhen(true)] out BridgeEvents? events)
    {
        events = null;
        if (
            stanza.Element(Namespace + "events") is not { } element
            || (string?)element.Attribute("epoch") is not { Length: > 0 and <= 64 } epoch
        )
        {
            return false;
        }

        var snapshot = IsTrue(element, "snapshot");
        var seq = Number(element, "seq");
        var children = element.Elements().ToList();
        if ((seq is null or < 1 && !snapshot) || children.Count > ChildrenMax)
        {
            return false;
        }

        events = new BridgeEvents(epoch, snapshot ? null : seq, snapshot, IsTrue(element, "replay"), children);
        return true;
    }

    public static bool TryReadSnapshot(XElement iq, [NotNullWhen(true)] out BridgeSnapshot? snapshot)
    {
        snapshot =
            iq.Element(Namespace + "snapshot") is { } element
            && (string?)element.Attribute("epoch") is { Length: > 0 and <= 64 } epoch
            && Number(element, "seq") is { } seq and >= 0
                ? new BridgeSnapshot(
                    epoch,
                    seq,
                    Number(element, "dropped") ?? 0,
                    (string?)element.Attribute("server") ?? "?",
                    (string?)element.Attribute("module") ?? "?"
                )
                : null;
        return snapshot is not null;
    }

    /// <summary>The module is being unloaded: this is the last stanza of the stream.</summary>
    public static bool IsEnd(XElement child) => child.Name == Namespace + "end";

    /// <summary>The events that the module holds until they are acknowledged; their position among each other names them.</summary>
    public static bool IsHeld(XElement child) =>
        child.Name.Namespace == Namespace
        && child.Name.LocalName
            is "message"
                or "retraction"
                or "displayed"
                or "blocked"
                or "account-removed"
                or "account-disabled"
                or "account-enabled";

    public static bool TryReadSession(XElement child, string server, DateTimeOffset now, [NotNullWhen(true)] out BridgeSession? session)
    {
        session = null;
        if (
            !Jid.TryParseStamped((string?)child.Attribute("jid"), out var jid)
            || jid.Local is null
            || jid.Resource is null
            || jid.Domain != server
            || (string?)child.Attribute("sid") is not { Length: > 0 and <= SidCharsMax } sid
        )
        {
            return false;
        }

        var account = jid.Bare.ToString();
        SessionState? state = (string?)child.Attribute("state") switch
        {
            "active" => SessionState.Active,
            "inactive" => SessionState.Inactive,
            "hibernating" => SessionState.Hibernating,
            _ => null,
        };
        if (state is null)
        {
            session = (string?)child.Attribute("state") == "closed" ? new BridgeSession(account, sid, null) : null;
            return session is not null;
        }

        session = new BridgeSession(
            account,
            sid,
            new Session(
                sid,
                jid.Resource,
                state.Value,
                IsTrue(child, "available"),
                (int)Math.Clamp(Number(child, "priority") ?? 0, -128, 127),
                Cut((string?)child.Attribute("show"), 16),
                At(child) is var since && since < now ? since : now
            )
        );
        return true;
    }

    /// <summary>An event that is held; a message comes without its account's presence, which the wire does not have.</summary>
    /// <param name="child">Of <c>events</c>.</param>
    /// <param name="server">The virtual host that sent it: accounts of others are not understood.</param>
    /// <param name="key">Names the event.</param>
    /// <param name="event">What it says.</param>
    public static bool TryReadHeld(XElement child, string server, string key, [NotNullWhen(true)] out RelayEvent? @event)
    {
        @event = child.Name.LocalName switch
        {
            "message" => ReadMessage(child, server, key),
            "retraction" => ReadRetraction(child, server),
            // a full JID is a private conversation in a room where it is an occupant's; else it is a session
            "displayed"
                when Account(child, "account", server) is { } account && Jid.TryParse((string?)child.Attribute("with"), out var with) =>
                new RelayEvent.Displayed(account, with.ToString(), At(child)),
            "blocked" when Account(child, "account", server) is { } account && Jid.TryParse((string?)child.Attribute("jid"), out var jid) =>
                new RelayEvent.Blocked(account, jid.ToString(), At(child)),
            "account-disabled" or "account-enabled" when Account(child, "jid", server) is { } account => new RelayEvent.AccountDisabled(
                account,
                child.Name.LocalName == "account-disabled",
                At(child)
            ),
            "account-removed" when Account(child, "jid", server) is { } account => new RelayEvent.AccountRemoved(account, At(child)),
            _ => null,
        };
        return @event is not null;
    }

    /// <summary>The module says something at least this often; null: the child is no heartbeat.</summary>
    public static TimeSpan? HeartbeatInterval(XElement child) =>
        child.Name == Namespace + "heartbeat" && Number(child, "interval") is { } seconds and >= 1 and <= 3600
            ? TimeSpan.FromSeconds(seconds)
            : null;

    private static RelayEvent.Retraction? ReadRetraction(XElement child, string server)
    {
        if (
            Account(child, "to", server) is not { } account
            || !Jid.TryParse((string?)child.Attribute("from"), out var from)
            || Cut((string?)child.Attribute("of"), IdCharsMax) is not { Length: > 0 } of
        )
        {
            return null;
        }

        var isGroup = (string?)child.Attribute("type") == "groupchat";
        var room = isGroup && Jid.TryParse((string?)child.Attribute("room"), out var named) ? named.Bare : null;
        return new RelayEvent.Retraction(account, At(child))
        {
            From = ConversationOf(child, from, room),
            Nick = isGroup ? Cut((string?)child.Attribute("nick"), NickCharsMax) ?? Cut(from.Resource, NickCharsMax) : null,
            Of = of,
            OfStanza = IsTrue(child, "of-stanza"),
            ByRoom = isGroup && (string?)child.Attribute("by") == "room",
        };
    }

    private static RelayEvent.Message? ReadMessage(XElement child, string server, string key)
    {
        if (
            Account(child, "to", server) is not { } account
            || !Jid.TryParse((string?)child.Attribute("from"), out var from)
            || !Outbox.Names.TryParse((string?)child.Attribute("class"), out EventClass @class)
        )
        {
            return null;
        }

        // the end of a call that is not named ends nothing
        if (@class == EventClass.CallEnded && string.IsNullOrEmpty((string?)child.Attribute("call")))
        {
            return null;
        }

        var type = (string?)child.Attribute("type") is "chat" or "groupchat" or "normal" ? (string)child.Attribute("type")! : "normal";
        var room = Jid.TryParse((string?)child.Attribute("room"), out var named) ? named.Bare : null;
        return new RelayEvent.Message(account, At(child))
        {
            Key = key,
            Source = EventSource.Bridge,
            Class = @class,
            From = ConversationOf(child, from, type == "groupchat" || @class == EventClass.Invite ? room : null),
            Type = type,
            Id = Cut((string?)child.Attribute("id"), IdCharsMax),
            StanzaId = Cut((string?)child.Attribute("stanza-id"), IdCharsMax),
            Replaces = Cut((string?)child.Attribute("replaces"), IdCharsMax),
            Stamp = Number(child, "stamp") is { } stamp ? DateTimeOffset.FromUnixTimeMilliseconds(Math.Clamp(stamp, 0, LastInstant)) : null,
            Content = ReadContent(child, @class, type, from, room),
            CallId = Cut((string?)child.Attribute("call"), IdCharsMax),
            Ended = (string?)child.Attribute("ended"),
            Mention = IsTrue(child, "mention"),
            Unacked = IsTrue(child, "unacked"),
            Presence = AccountPresence.Unknown,
        };
    }

    /// <summary>The room, the sender; of a private message in a room the occupant, who has a conversation of its own.</summary>
    private static string ConversationOf(XElement child, Jid from, Jid? room) =>
        IsTrue(child, "private") && from.Resource is not null ? from.ToString() : (room ?? from.Bare).ToString();

    private static AlertContent ReadContent(XElement child, EventClass @class, string type, Jid from, Jid? room)
    {
        var bodies = child.Elements(Namespace + "body").Take(BodiesMax).ToList();
        var kind = (string?)child.Attribute("kind");
        var isCall = @class == EventClass.Call;
        return new AlertContent
        {
            Body = Cut((string?)bodies.FirstOrDefault(), BodyCharsMax),
            Bodies =
                bodies.Count > 1
                    ? bodies
                        .Select(b =>
                            (Tag: Cut((string?)b.Attribute(XNamespace.Xml + "lang"), TagCharsMax), Text: Cut((string?)b, BodyCharsMax)!)
                        )
                        .Where(b => !string.IsNullOrEmpty(b.Tag))
                        .DistinctBy(b => b.Tag, StringComparer.OrdinalIgnoreCase)
                        .ToDictionary(b => b.Tag!, b => b.Text)
                    : null,
            Nick =
                Cut((string?)child.Attribute("nick"), NickCharsMax)
                ?? (type == "groupchat" || IsTrue(child, "private") ? Cut(from.Resource, NickCharsMax) : null),
            Name = Cut((string?)child.Attribute("name"), NameCharsMax) is { } name && !string.IsNullOrWhiteSpace(name) ? name : null,
            File = Kinds.Contains(kind ?? "") ? kind : null,
            FileName = Cut((string?)child.Attribute("file"), NameCharsMax),
            Hidden = IsTrue(child, "hide"),
            Media = isCall ? MediaOf((string?)child.Attribute("media")) : null,
            Caller = isCall && from.Resource is not null ? from.ToString() : null,
            Room = @class is EventClass.Invite || (isCall && type != "groupchat") ? room?.ToString() : null,
            Inviter =
                @class != EventClass.Invite ? null
                : Jid.TryParse((string?)child.Attribute("inviter"), out var inviter) ? inviter.Bare.ToString()
                : from.Bare == room ? null
                : from.Bare.ToString(),
        };
    }

    private static string[]? MediaOf(string? media)
    {
        var known = media?.Split(' ', StringSplitOptions.RemoveEmptyEntries).Where(m => m is "audio" or "video").Distinct().ToArray();
        return known is { Length: > 0 } ? known : null;
    }

    private static string? Account(XElement child, string attribute, string server) =>
        Jid.TryParseStamped((string?)child.Attribute(attribute), out var jid) && jid.Local is not null && jid.Domain == server
            ? jid.Bare.ToString()
            : null;

    /// <summary>The time that the server reports, unchecked; the last instant where it reports none. <see cref="DeliveryFactory"/> bounds
    /// it by the database's clock.</summary>
    private static DateTimeOffset At(XElement child) =>
        DateTimeOffset.FromUnixTimeMilliseconds(Math.Clamp(Number(child, "ts") ?? LastInstant, 0, LastInstant));

    private static XAttribute? Node(StreamName stream) => stream.Node.Length > 0 ? new XAttribute("node", stream.Node) : null;

    private static bool IsTrue(XElement element, string attribute) => (string?)element.Attribute(attribute) is "true" or "1";

    private static long? Number(XElement element, string attribute) =>
        long.TryParse((string?)element.Attribute(attribute), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number)
            ? number
            : null;

    // PostgreSQL stores no NUL, and XML has none; a surrogate pair is not cut apart
    private static string? Cut(string? text, int charsMax) =>
        text is null || text.Length <= charsMax ? text : text[..(char.IsHighSurrogate(text[charsMax - 1]) ? charsMax - 1 : charsMax)];
}
