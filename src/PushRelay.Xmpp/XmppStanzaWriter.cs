using System.Buffers;
using System.Text;
using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>
/// Writes a stanza as it stands in a component stream: in UTF-8, its default namespace that of the stream, each change of
/// namespace declared where it happens, no prefix but for attributes that need one.
/// </summary>
internal static class XmppStanzaWriter
{
    private static readonly SearchValues<char> Special = SearchValues.Create(
        "\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\t\n\u000B\u000C\r\u000E\u000F\u0010\u0011\u0012\u0013\u0014\u0015\u0016"
            + "\u0017\u0018\u0019\u001A\u001B\u001C\u001D\u001E\u001F<>&'\"\uFFFE\uFFFF"
    );

    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>The stanza with the component's own address as <c>from</c> if it has none.</summary>
    /// <exception cref="ArgumentException">It is no stanza of the component namespace, has no <c>to</c>, is over a bound, or holds what XML
    /// cannot.</exception>
    public static byte[] Write(XElement stanza, XmppComponentOptions options)
    {
        if (stanza.Name != XmppStanza.Message && stanza.Name != XmppStanza.Iq && stanza.Name != XmppStanza.Presence)
        {
            throw new ArgumentException(
                $"A stanza is message, iq or presence in the namespace {XmppStanza.Component}, not {stanza.Name}.",
                nameof(stanza)
            );
        }

        if (string.IsNullOrEmpty((string?)stanza.Attribute("to")))
        {
            throw new ArgumentException("A stanza from a component needs a 'to' (XEP-0114).", nameof(stanza));
        }

        var text = new StringBuilder(512);
        var sender = stanza.Attribute("from") is null ? options.Domain : null;
        Write(text, stanza, XmppStanza.Component, sender, options.DepthMax);
        try
        {
            var bytes = Strict.GetBytes(text.ToString());
            return bytes.Length <= options.StanzaBytesMax
                ? bytes
                : throw new ArgumentException(
                    $"The stanza has {bytes.Length} bytes, {options.StanzaBytesMax} are allowed.",
                    nameof(stanza)
                );
        }
        catch (EncoderFallbackException unpaired)
        {
            throw new ArgumentException("The stanza holds a lone surrogate.", nameof(stanza), unpaired);
        }
    }

    private static void Write(StringBuilder text, XElement element, XNamespace inForce, string? sender, int depthLeft)
    {
        if (depthLeft == 0)
        {
            throw new ArgumentException("The stanza is nested too deep.", nameof(element));
        }

        text.Append('<').Append(element.Name.LocalName);
        if (element.Name.Namespace != inForce)
        {
            WriteAttribute(text, "xmlns", element.Name.NamespaceName);
        }

        if (sender is not null)
        {
            WriteAttribute(text, "from", sender);
        }

        WriteAttributes(text, element);
        if (element.IsEmpty || element.FirstNode is null)
        {
            text.Append("/>");
            return;
        }

        text.Append('>');
        foreach (var node in element.Nodes())
        {
            switch (node)
            {
                case XElement child:
                    Write(text, child, element.Name.Namespace, null, depthLeft - 1);
                    break;
                case XText content:
                    WriteText(text, content.Value, isAttribute: false);
                    break;
                default:
                    throw new ArgumentException($"A stanza cannot hold a {node.NodeType} (RFC 6120 section 11.1).", nameof(element));
            }
        }

        text.Append("</").Append(element.Name.LocalName).Append('>');
    }

    private static void WriteAttributes(StringBuilder text, XElement element)
    {
        var prefixes = 0;
        foreach (var attribute in element.Attributes())
        {
            if (attribute.IsNamespaceDeclaration)
            {
                continue;
            }

            var name = attribute.Name.LocalName;
            if (attribute.Name.Namespace == XNamespace.Xml)
            {
                name = $"xml:{name}";
            }
            else if (attribute.Name.Namespace != XNamespace.None)
            {
                name = $"a{prefixes}:{name}";
                WriteAttribute(text, $"xmlns:a{prefixes++}", attribute.Name.NamespaceName);
            }

            WriteAttribute(text, name, attribute.Value);
        }
    }

    private static void WriteAttribute(StringBuilder text, string name, string value)
    {
        text.Append(' ').Append(name).Append("='");
        WriteText(text, value, isAttribute: true);
        text.Append('\'');
    }

    private static void WriteText(StringBuilder text, ReadOnlySpan<char> value, bool isAttribute)
    {
        while (value.IndexOfAny(Special) is >= 0 and var at)
        {
            text.Append(value[..at]);
            text.Append(
                value[at] switch
                {
                    '<' => "&lt;",
                    '>' => "&gt;",
                    '&' => "&amp;",
                    '\'' => "&apos;",
                    '"' => "&quot;",
                    // As it stands a reader would make a line feed of it (XML 1.0 section 2.11), or in an attribute a space (3.3.3).
                    '\r' => "&#xD;",
                    '\n' => isAttribute ? "&#xA;" : "\n",
                    '\t' => isAttribute ? "&#x9;" : "\t",
                    _ => throw new ArgumentException("The stanza holds a character that XML does not have.", nameof(value)),
                }
            );
            value = value[(at + 1)..];
        }

        text.Append(value);
    }
}
