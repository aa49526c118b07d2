using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>What is to be done with a stanza.</summary>
internal enum StanzaVerdict
{
    /// <summary>The handler is to see it.</summary>
    HandOver,

    /// <summary>The handler has taken it.</summary>
    Done,

    /// <summary>A ping for this component.</summary>
    Ping,

    /// <summary>The answer to this component's own ping, or that ping itself when it went round.</summary>
    Pong,

    /// <summary>Nobody's: not a stanza, or the handler did not want it.</summary>
    Unhandled,

    /// <summary>Addresses or id missing or not as XEP-0114 says: nothing can be answered, or a loop would follow.</summary>
    Misaddressed,

    /// <summary>More distinct names than are kept.</summary>
    TooManyNames,

    /// <summary>A request of a sender over its limit, which is to wait.</summary>
    TooMany,

    /// <summary>A request of a sender that was refused as <see cref="TooMany"/> and goes on.</summary>
    Flood,

    /// <summary>The handler threw.</summary>
    Failed,
}

/// <summary>Decides what happens to stanzas that are not the handler's, and what each is answered. For one reader.</summary>
internal sealed class StanzaGate(XmppComponentOptions options)
{
    internal const string PingId = "component-ping";
    private const int KindsMax = 64;

    private readonly string domain = Jid.Parse(options.Domain).Domain;
    private readonly HashSet<string> kinds = new(StringComparer.Ordinal);

    public StanzaVerdict Classify(XElement stanza, bool isWhole)
    {
        var isIq = stanza.Name == XmppStanza.Iq;
        if (!isIq && stanza.Name != XmppStanza.Message && stanza.Name != XmppStanza.Presence)
        {
            return StanzaVerdict.Unhandled;
        }

        var id = (string?)stanza.Attribute("id");
        var isKnownSender = Jid.TryParse((string?)stanza.Attribute("from"), out var from);
        if (isIq && id == PingId && (!XmppStanza.IsIqRequest(stanza) || (isKnownSender && from!.Domain == domain)))
        {
            return StanzaVerdict.Pong;
        }

        // From ourselves would be a loop. An IQ without id cannot be answered (RFC 6120 section 8.1.3).
        if (
            !isKnownSender
            || from!.Domain == domain
            || !Jid.TryParse((string?)stanza.Attribute("to"), out var to)
            || to.Domain != domain
            || (isIq && id is null)
        )
        {
            return StanzaVerdict.Misaddressed;
        }

        var admission = XmppStanza.IsIqRequest(stanza) ? options.Admit(from) : XmppAdmission.Answer;
        return admission is XmppAdmission.Refuse ? StanzaVerdict.TooMany
            : admission is XmppAdmission.Ignore ? StanzaVerdict.Flood
            : !isWhole ? StanzaVerdict.TooManyNames
            : isIq && (string?)stanza.Attribute("type") == "get" && stanza.Element(XmppStanza.Ping + "ping") is not null
                ? StanzaVerdict.Ping
            : StanzaVerdict.HandOver;
    }

    /// <summary>A name for its kind the first time one comes, else null. At most 64 in all, so that inventing kinds fills no log.</summary>
    public string? FirstOfItsKind(XElement stanza, StanzaVerdict verdict)
    {
        if (verdict is StanzaVerdict.Ping || kinds.Count >= KindsMax)
        {
            return null;
        }

        var kind = $"{stanza.Name.LocalName} {(string?)stanza.Attribute("type")} {stanza.Elements().FirstOrDefault()?.Name.NamespaceName}";
        kind = kind.Length > 200 ? kind[..200] : kind;
        return kinds.Add($"{verdict} {kind}") ? kind : null;
    }

    /// <summary>What an IQ request gets; null for everything else.</summary>
    public static XElement? Answer(XElement stanza, StanzaVerdict verdict) =>
        !XmppStanza.IsIqRequest(stanza)
            ? null
            : verdict switch
            {
                StanzaVerdict.Ping => XmppStanza.IqResult(stanza, null),
                StanzaVerdict.Unhandled => XmppStanza.ErrorReply(stanza, "cancel", "service-unavailable", null),
                StanzaVerdict.TooMany or StanzaVerdict.TooManyNames => XmppStanza.ErrorReply(stanza, "wait", "resource-constraint", null),
                StanzaVerdict.Failed => XmppStanza.ErrorReply(stanza, "wait", "internal-server-error", null),
                StanzaVerdict.HandOver or StanzaVerdict.Done or StanzaVerdict.Pong or StanzaVerdict.Misaddressed or StanzaVerdict.Flood =>
                    null,
            };
}
