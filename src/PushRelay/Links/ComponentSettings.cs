using System.Xml.Linq;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>Settings <c>Xmpp:Components:*</c> as the XMPP library wants them.</summary>
internal static class ComponentSettings
{
    /// <summary>How the XMPP library is to connect.</summary>
    /// <param name="options">From the settings.</param>
    /// <param name="names">The XML names that must stay readable.</param>
    public static XmppComponentOptions ToXmpp(this ComponentOptions options, IEnumerable<XName> names) =>
        new()
        {
            Host = options.Host,
            Port = options.Port,
            Domain = options.AddressOf(options.Domain),
            Secret = options.Secret,
            ServerDomain = options.AddressOf(options.Servers[0]),
            KnownNames = [.. names],
        };

    /// <summary>From and to as the settings spell them: the XMPP server knows no other spelling.</summary>
    public static XElement Addressed(this ComponentOptions options, XElement stanza)
    {
        foreach (var name in (string[])["from", "to"])
        {
            stanza.SetAttributeValue(name, options.AddressOf((string?)stanza.Attribute(name)));
        }

        return stanza;
    }

    /// <summary>The same, for a question that is not worth a long wait.</summary>
    public static XmppComponentOptions ToXmppProbe(this ComponentOptions options, IEnumerable<XName> names) =>
        options.ToXmpp(names) with
        {
            ConnectTimeout = LinkProbe.Timeout,
            HandshakeTimeout = LinkProbe.Timeout,
        };
}
