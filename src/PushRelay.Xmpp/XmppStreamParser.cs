using System.Buffers;
using System.Runtime.InteropServices;
using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>What the parser found: nothing complete yet, the stream header, a stanza, or the end of the stream.</summary>
internal enum XmppStreamItem
{
    Incomplete,
    Header,
    Stanza,
    Closed,
}

/// <summary>
/// Reads the endless document of a component stream from bytes in any portions, within the bounds of the options. Bounds are
/// checked on the bytes as they come: at most <see cref="XmppComponentOptions.StanzaBytesMax"/> and one read are ever held.
/// </summary>
/// <remarks>
/// XML 1.0 in UTF-8 with namespaces, less what RFC 6120 section 11 forbids (document type, comments, processing
/// instructions, entities of one's own). Not <see cref="System.Xml.XmlReader"/>: it reads ahead of the stanza, knows no bound
/// for one, and keeps every name for ever. Not thread-safe.
/// </remarks>
internal sealed class XmppStreamParser(XmppComponentOptions options, XmppNames names)
{
    internal const int ReadBytes = 16 * 1024;

    private static readonly SearchValues<byte> TagStops = SearchValues.Create("\"'<>"u8);

    private readonly XmppTagReader tags = new(options, names);
    private readonly XmppText text = new(options.TextBytesMax);
    private readonly List<Open> open = []; // the stream, then the stanza, then its descendants
    private readonly List<byte> openNames = []; // their names as written, one after the other
    private byte[] buffer = new byte[ReadBytes];
    private int start; // of the token that comes next
    private int scanned; // so far its end was looked for
    private int end;
    private byte quote; // of the attribute value in which that search stands, or 0
    private bool markSeen;
    private bool begun; // something was consumed: an XML declaration may no longer come
    private bool closed;
    private bool authenticated;
    private int bytes; // consumed of this stanza, or in all before the handshake is over
    private int nodes;

    /// <summary>The header or stanza that <see cref="Next"/> found.</summary>
    public XElement? Element { get; private set; }

    /// <summary>False if the stanza had names beyond the bound: what is left of it is only good for an answer.</summary>
    public bool IsWhole => tags.IsWhole;

    /// <summary>Size of the buffer now.</summary>
    internal int BufferBytes => buffer.Length;

    /// <summary>Where the next bytes from the socket go. Call it only after <see cref="Next"/> said Incomplete.</summary>
    public Memory<byte> Free()
    {
        if (start > 0)
        {
            buffer.AsSpan(start, end - start).CopyTo(buffer);
            (scanned, end, start) = (scanned - start, end - start, 0);
        }

        if (buffer.Length - end < ReadBytes / 4)
        {
            Array.Resize(ref buffer, Math.Min(buffer.Length * 2, BytesMax + ReadBytes));
        }

        return buffer.AsMemory(end, Math.Min(ReadBytes, buffer.Length - end));
    }

    public void Received(int count) => end += count;

    /// <summary>The handshake is over: from here on the bounds are those of a stanza.</summary>
    public void Authenticated() => (authenticated, bytes) = (true, 0);

    /// <exception cref="XmppStreamException">The only one: this is no component stream, or over a bound. Nothing can follow.</exception>
    public XmppStreamItem Next()
    {
        while (!closed)
        {
            var found =
                !begun && !Begin() || start == end ? null
                : buffer[start] == '<' ? ReadMarkup()
                : ReadText();
            if (found is null)
            {
                CheckBytes(end - start);
                return XmppStreamItem.Incomplete;
            }

            if (found is not XmppStreamItem.Incomplete)
            {
                return found.Value;
            }
        }

        return XmppStreamItem.Closed;
    }

    private int BytesMax => authenticated ? options.StanzaBytesMax : options.HandshakeBytesMax;

    // The first bytes tell the encoding (XML 1.0 appendix F). False: too few to tell.
    private bool Begin()
    {
        var head = buffer.AsSpan(start, end - start);
        if (head is [0xFE or 0xFF or 0, ..] or [_, 0, ..])
        {
            throw new XmppStreamException("unsupported-encoding", "the stream is not UTF-8");
        }

        if (head.Length < 2 || (head[0] == 0xEF && head.Length < 3))
        {
            return false;
        }

        if (!markSeen && head.StartsWith("\uFEFF"u8))
        {
            (start, scanned, markSeen) = (start + 3, start + 3, true);
        }

        return true;
    }

    // Of this and the next four: null, the token is not complete; Incomplete, read on.
    private XmppStreamItem? ReadMarkup() =>
        (end - start < 2 ? (byte)0 : buffer[start + 1]) switch
        {
            0 when end - start < 2 => null,
            (byte)'?' => ReadDeclaration(),
            (byte)'!' => ReadCharacterData(),
            _ => ReadTag(),
        };

    private XmppStreamItem? ReadDeclaration()
    {
        if (begun)
        {
            throw new XmppStreamException("restricted-xml", "a processing instruction or second XML declaration");
        }

        var token = buffer.AsSpan(start, end - start);
        var length = token.IndexOf("?>"u8) + 2;
        if (length < 2)
        {
            return null;
        }

        tags.CheckDeclaration(token[..length]);
        return Consumed(length);
    }

    private XmppStreamItem? ReadCharacterData()
    {
        var opening = "<![CDATA["u8;
        var token = buffer.AsSpan(start, end - start);
        if (!opening.StartsWith(token[..Math.Min(token.Length, opening.Length)]))
        {
            throw new XmppStreamException("restricted-xml", "a document type, comment or other declaration");
        }

        if (token.Length < opening.Length)
        {
            return null;
        }

        if (open.Count < 2)
        {
            throw Outside();
        }

        // Two back: the end mark may have been cut by the read.
        var from = Math.Max(opening.Length, scanned - start - 2);
        var length = token[from..].IndexOf("]]>"u8);
        if (length < 0)
        {
            scanned = end;
            text.CheckBytes(token.Length - opening.Length - 2);
            return null;
        }

        text.AppendCharacterData(token[opening.Length..(from + length)]);
        return Consumed(from + length + 3);
    }

    private XmppStreamItem? ReadText()
    {
        var token = buffer.AsSpan(start, end - start);
        if (open.Count < 2)
        {
            // Whitespace between stanzas keeps the link alive (RFC 6120 section 4.6.1) and is part of none.
            var blank = token.IndexOfAnyExcept(" \t\r\n"u8);
            return Consumed(
                blank < 0 ? token.Length
                : blank > 0 ? blank
                : throw Outside()
            );
        }

        var from = scanned - start;
        var length = token[from..].IndexOf((byte)'<');
        if (length < 0)
        {
            scanned = end;
            text.CheckBytes(token.Length);
            return null;
        }

        text.AppendText(token[..(from + length)]);
        return Consumed(from + length);
    }

    private XmppStreamItem? ReadTag()
    {
        for (scanned = Math.Max(scanned, start + 1); scanned < end; scanned++)
        {
            var rest = buffer.AsSpan(scanned, end - scanned);
            var stop = quote == 0 ? rest.IndexOfAny(TagStops) : rest.IndexOfAny(quote, (byte)'<');
            if (stop < 0)
            {
                scanned = end;
                return null;
            }

            scanned += stop;
            var found = buffer[scanned];
            if (found == '<')
            {
                throw new XmppStreamException("not-well-formed", "'<' inside a tag");
            }

            if (found == '>' && quote == 0)
            {
                var tag = buffer.AsSpan(start + 1, scanned - start - 1);
                CheckBytes(tag.Length + 2);
                FlushText();
                var item = tag is [(byte)'/', ..] ? EndTag(tag[1..]) : StartTag(tag);
                Consumed(tag.Length + 2);
                return item;
            }

            quote = quote == 0 ? found : (byte)0;
        }

        return null;
    }

    private XmppStreamItem StartTag(ReadOnlySpan<byte> tag)
    {
        var isEmpty = tag is [.., (byte)'/'];
        if (open.Count > options.DepthMax)
        {
            throw XmppTagReader.OverBound("nested too deep");
        }

        if (open.Count == 1)
        {
            nodes = 0;
            tags.BeginStanza();
        }

        var scope = tags.Scope;
        var element = tags.Read(isEmpty ? tag[..^1] : tag, out var name);
        AddNodes(1 + tags.AttributeCount);
        if (open.Count == 0)
        {
            if (element.Name != XmppStanza.Stream || tags.DefaultNamespace != XmppStanza.Component.NamespaceName)
            {
                throw new XmppStreamException("invalid-namespace", "no stream of jabber:component:accept");
            }
        }
        else if (open.Count > 1)
        {
            open[^1].Element.Add(element);
        }

        open.Add(new Open(element, openNames.Count, scope));
        openNames.AddRange(name);
        if (isEmpty)
        {
            return Close();
        }

        if (open.Count > 1)
        {
            return XmppStreamItem.Incomplete;
        }

        Element = element;
        return XmppStreamItem.Header;
    }

    private XmppStreamItem EndTag(ReadOnlySpan<byte> tag)
    {
        if (open.Count == 0 || !tag.TrimEnd(" \t\r\n"u8).SequenceEqual(CollectionsMarshal.AsSpan(openNames)[open[^1].NameStart..]))
        {
            throw new XmppStreamException("not-well-formed", "an end tag without its start tag");
        }

        return Close();
    }

    private XmppStreamItem Close()
    {
        var (element, nameStart, scope) = open[^1];
        open.RemoveAt(open.Count - 1);
        openNames.RemoveRange(nameStart, openNames.Count - nameStart);
        tags.Leave(scope);
        if (open.Count > 1)
        {
            return XmppStreamItem.Incomplete;
        }

        closed = open.Count == 0;
        Element = element;
        return closed ? XmppStreamItem.Closed : XmppStreamItem.Stanza;
    }

    private void FlushText()
    {
        if (text.Take() is { } value)
        {
            open[^1].Element.Add(value);
            AddNodes(1);
        }
    }

    private void AddNodes(int count)
    {
        if ((nodes += count) > options.NodesMax && open.Count > 0)
        {
            throw XmppTagReader.OverBound("too many elements, attributes and texts");
        }
    }

    private XmppStreamItem Consumed(int count)
    {
        start += count;
        if (authenticated && open.Count < 2)
        {
            bytes = 0; // The end of a stanza, or whitespace between two.
        }
        else
        {
            CheckBytes(count);
            bytes += count;
        }

        (scanned, quote, begun) = (start, 0, true);
        return XmppStreamItem.Incomplete;
    }

    private void CheckBytes(int more)
    {
        if (bytes + more > BytesMax)
        {
            throw XmppTagReader.OverBound(authenticated ? "stanza too large" : "too much before the handshake");
        }
    }

    private XmppStreamException Outside() =>
        open.Count == 0
            ? new XmppStreamException("not-well-formed", "text outside the stream")
            : new XmppStreamException("bad-format", "text between stanzas");

    private readonly record struct Open(XElement Element, int NameStart, int Scope);
}
