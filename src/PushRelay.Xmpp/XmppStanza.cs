using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>Namespaces of the component stream, and replies to IQ requests.</summary>
public static class XmppStanza
{
    /// <summary>The namespace of every stanza of a component stream, in both directions (XEP-0114).</summary>
    public static readonly XNamespace Component = "jabber:component:accept";

    /// <summary>The namespace of the condition inside an <c>error</c> (RFC 6120 section 8.3).</summary>
    public static readonly XNamespace StanzaErrors = "urn:ietf:params:xml:ns:xmpp-stanzas";

    /// <summary>XEP-0199. The component answers it itself.</summary>
    public static readonly XNamespace Ping = "urn:xmpp:ping";

    internal static readonly XNamespace Streams = "http://etherx.jabber.org/streams";
    internal static readonly XNamespace StreamErrors = "urn:ietf:params:xml:ns:xmpp-streams";

    internal static readonly XName Iq = Component + "iq";
    internal static readonly XName Message = Component + "message";
    internal static readonly XName Presence = Component + "presence";
    internal static readonly XName Error = Component + "error";
    internal static readonly XName Handshake = Component + "handshake";
    internal static readonly XName Stream = Streams + "stream";
    internal static readonly XName StreamError = Streams + "error";

    // Stands where an element was whose name is not kept: such a stanza never reaches a handler.
    internal static readonly XName NotKept = Component + "not-kept";

    /// <summary>What this library itself must be able to read, whatever else a peer has sent before.</summary>
    internal static IReadOnlyList<XName> Names =>
        [
            Iq,
            Message,
            Presence,
            Error,
            Handshake,
            Stream,
            StreamError,
            Ping + "ping",
            XNamespace.Xml + "lang",
            "from",
            "to",
            "id",
            "type",
            "version",
            "by",
            "code",
            StreamErrors + "text",
            StanzaErrors + "text",
            .. StreamConditions.Select(condition => StreamErrors + condition),
        ];

    // RFC 6120 section 4.9.3.
    private static readonly string[] StreamConditions =
    [
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-id",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-stanza-type",
        "unsupported-version",
    ];

    /// <summary>True for an IQ of type get or set: one that wants exactly one answer.</summary>
    public static bool IsIqRequest(XElement stanza)
    {
        ArgumentNullException.ThrowIfNull(stanza);
        return stanza.Name == Iq && (string?)stanza.Attribute("type") is "get" or "set";
    }

    /// <summary>The result for a request: its id byte for byte, its addresses swapped, with the child if there is one.</summary>
    public static XElement IqResult(XElement request, XElement? child) => Reply(request, "result", child);

    /// <summary>The error for a request or a message (RFC 6120 section 8.3): its id byte for byte, its addresses swapped; what it answers
    /// is not repeated.</summary>
    /// <param name="request">The IQ get or set, or the message.</param>
    /// <param name="type"><c>auth</c>, <c>cancel</c>, <c>continue</c>, <c>modify</c> or <c>wait</c>.</param>
    /// <param name="condition">Such as <c>item-not-found</c>.</param>
    /// <param name="text">For a human reader, in English.</param>
    public static XElement ErrorReply(XElement request, string type, string condition, string? text = null)
    {
        var error = new XElement(Error, new XAttribute("type", type), new XElement(StanzaErrors + condition));
        if (text is not null)
        {
            error.Add(new XElement(StanzaErrors + "text", new XAttribute(XNamespace.Xml + "lang", "en"), text));
        }

        return Reply(request, "error", error);
    }

    /// <summary>The condition of a stanza error (RFC 6120 section 8.3.2), such as <c>service-unavailable</c>; null: the stanza is no
    /// error.</summary>
    public static string? ConditionOf(XElement stanza)
    {
        ArgumentNullException.ThrowIfNull(stanza);
        return stanza
            .Element(Error)
            ?.Elements()
            .FirstOrDefault(child => child.Name.Namespace == StanzaErrors && child.Name.LocalName != "text")
            ?.Name.LocalName;
    }

    private static XElement Reply(XElement request, string type, XElement? child)
    {
        ArgumentNullException.ThrowIfNull(request);
        var reply = new XElement(request.Name, new XAttribute("type", type));
        Copy("id", "id");
        Copy("to", "from");
        Copy("from", "to");
        reply.Add(child);
        return reply;

        void Copy(string source, string target)
        {
            if (request.Attribute(source) is { } attribute)
            {
                reply.SetAttributeValue(target, attribute.Value);
            }
        }
    }
}
