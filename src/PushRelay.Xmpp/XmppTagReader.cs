using System.Buffers;
using System.Text.Unicode;
using System.Xml;
using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>
/// Turns one complete start tag into an element: attributes, and the namespaces in force (Namespaces in XML 1.0), which are
/// resolved and not kept as attributes, so that a prefix makes no difference.
/// </summary>
internal sealed class XmppTagReader(XmppComponentOptions options, XmppNames names)
{
    private const string XmlnsUri = "http://www.w3.org/2000/xmlns/";
    private static readonly SearchValues<byte> NameStops = SearchValues.Create(" \t\r\n=/>\"'"u8);

    private readonly List<(string Prefix, XmppNames.Space Space)> declared = [];
    private readonly (Range Name, Range Value, bool IsDeclaration)[] attributes = new (Range, Range, bool)[options.AttributesMax];
    private readonly XmppText values = new(options.TextBytesMax);
    private readonly char[] nameChars = new char[options.NameCharsMax];
    private readonly XmppNames.Space none = names.Namespace("");
    private readonly XmppNames.Space xml = names.Namespace(XNamespace.Xml.NamespaceName);

    /// <summary>How many declarations are in force; <see cref="Leave"/> goes back to it.</summary>
    public int Scope => declared.Count;

    /// <summary>Of the last tag, namespace declarations included.</summary>
    public int AttributeCount { get; private set; }

    /// <summary>False once a name since <see cref="BeginStanza"/> was beyond the bound of names and left out.</summary>
    public bool IsWhole { get; private set; } = true;

    /// <summary>The namespace of names without prefix.</summary>
    public string DefaultNamespace => Find("").Uri;

    public static XmppStreamException OverBound(string what) => new("policy-violation", what);

    public void BeginStanza() => IsWhole = true;

    public void Leave(int scope) => declared.RemoveRange(scope, declared.Count - scope);

    /// <summary>Reads what stands between <c>&lt;</c> and <c>&gt;</c>, without the slash of an empty element.</summary>
    public XElement Read(ReadOnlySpan<byte> tag, out ReadOnlySpan<byte> name)
    {
        var length = tag.IndexOfAny(NameStops);
        name = length < 0 ? tag : tag[..length];
        Split(tag, name.Length);
        Declare(tag);
        var element = new XElement(Resolve(name, Find("")) ?? XmppStanza.NotKept);
        for (var i = 0; i < AttributeCount; i++)
        {
            var (attribute, value, isDeclaration) = attributes[i];
            if (isDeclaration || Resolve(tag[attribute], none) is not { } attributeName)
            {
                continue;
            }

            if (element.Attribute(attributeName) is not null)
            {
                throw Malformed("an attribute twice");
            }

            element.Add(new XAttribute(attributeName, values.Attribute(tag[value])));
        }

        return element;
    }

    /// <summary>The XML declaration may say version 1.0, UTF-8 and standalone, in this order (XML 1.0 production 23).</summary>
    public void CheckDeclaration(ReadOnlySpan<byte> declaration)
    {
        if (!declaration.StartsWith("<?xml"u8))
        {
            throw new XmppStreamException("restricted-xml", "a processing instruction");
        }

        var content = declaration[5..^2];
        Split(content, 0);
        var position = -1;
        for (var i = 0; i < AttributeCount; i++)
        {
            var name = content[attributes[i].Name];
            var value = values.Attribute(content[attributes[i].Value]);
            var next =
                name.SequenceEqual("version"u8) ? 0
                : name.SequenceEqual("encoding"u8) ? 1
                : name.SequenceEqual("standalone"u8) ? 2
                : -1;
            if (next <= position || (position < 0 && next != 0) || (next == 2 && value is not ("yes" or "no")))
            {
                throw Malformed("the XML declaration");
            }

            if (next == 0 && value != "1.0")
            {
                throw new XmppStreamException("not-well-formed", "XML is not version 1.0");
            }

            if (next == 1 && !value.Equals("UTF-8", StringComparison.OrdinalIgnoreCase))
            {
                throw new XmppStreamException("unsupported-encoding", "the stream is not UTF-8");
            }

            position = next;
        }

        if (position < 0)
        {
            throw Malformed("the XML declaration");
        }
    }

    // name="value" pairs, each after whitespace; the values are not looked into.
    private void Split(ReadOnlySpan<byte> tag, int from)
    {
        var count = 0;
        for (var at = from; ; count++)
        {
            var begin = Skip(tag, at);
            if (begin == tag.Length)
            {
                break;
            }

            if (count == attributes.Length)
            {
                throw OverBound("too many attributes");
            }

            var length = tag[begin..].IndexOfAny(NameStops);
            var nameEnd = begin + length;
            var equals = length < 1 ? tag.Length : Skip(tag, nameEnd);
            var open = equals < tag.Length && tag[equals] == '=' ? Skip(tag, equals + 1) : tag.Length;
            if (begin == at || open >= tag.Length || tag[open] is not ((byte)'"' or (byte)'\''))
            {
                throw Malformed("an attribute");
            }

            var valueLength = tag[(open + 1)..].IndexOf(tag[open]);
            if (valueLength < 0)
            {
                throw Malformed("an attribute");
            }

            at = open + 1 + valueLength + 1;
            var name = tag[begin..nameEnd];
            attributes[count] = (begin..nameEnd, (open + 1)..(at - 1), name.SequenceEqual("xmlns"u8) || name.StartsWith("xmlns:"u8));
        }

        AttributeCount = count;
    }

    private static int Skip(ReadOnlySpan<byte> tag, int from)
    {
        var blank = tag[from..].IndexOfAnyExcept(" \t\r\n"u8);
        return blank < 0 ? tag.Length : from + blank;
    }

    private void Declare(ReadOnlySpan<byte> tag)
    {
        var outer = declared.Count;
        for (var i = 0; i < AttributeCount; i++)
        {
            if (!attributes[i].IsDeclaration)
            {
                continue;
            }

            var name = tag[attributes[i].Name];
            var prefix = name.Length == 5 ? "" : Decode(name[6..]).ToString();
            var uri = values.Attribute(tag[attributes[i].Value]);
            if (uri.Length > options.NamespaceCharsMax)
            {
                throw OverBound("a namespace name too long");
            }

            // Namespaces in XML 1.0 section 3: reserved prefixes and namespace names; only the default can be taken back.
            var isBad =
                (prefix.Length > 0 && (uri.Length == 0 || !IsNcName(prefix)))
                || prefix == "xmlns"
                || uri == XmlnsUri
                || (prefix == "xml") != (uri == xml.Uri)
                || declared.FindIndex(outer, declaration => declaration.Prefix == prefix) >= 0;
            if (isBad)
            {
                throw Malformed("a namespace declaration");
            }

            declared.Add((prefix, names.Namespace(uri)));
        }
    }

    // Null: the name is beyond the bound.
    private XName? Resolve(ReadOnlySpan<byte> qualified, XmppNames.Space withoutPrefix)
    {
        var chars = Decode(qualified);
        var colon = chars.IndexOf(':');
        var local = chars[(colon + 1)..];
        if (!IsNcName(local) || (colon >= 0 && !IsNcName(chars[..colon])))
        {
            throw Malformed("a name");
        }

        var found = names.Find(colon < 0 ? withoutPrefix : Find(chars[..colon]), local);
        IsWhole &= found is not null;
        return found;
    }

    private XmppNames.Space Find(ReadOnlySpan<char> prefix)
    {
        for (var i = declared.Count - 1; i >= 0; i--)
        {
            if (prefix.SequenceEqual(declared[i].Prefix))
            {
                return declared[i].Space;
            }
        }

        return prefix is "" ? none
            : prefix is "xml" ? xml
            : throw Malformed("a prefix without declaration");
    }

    private ReadOnlySpan<char> Decode(ReadOnlySpan<byte> name) =>
        Utf8.ToUtf16(name, nameChars, out _, out var written, replaceInvalidSequences: false) switch
        {
            OperationStatus.Done => nameChars.AsSpan(0, written),
            OperationStatus.DestinationTooSmall => throw OverBound("a name too long"),
            OperationStatus.NeedMoreData or OperationStatus.InvalidData => throw Malformed("no UTF-8"),
        };

    private static bool IsNcName(ReadOnlySpan<char> name)
    {
        if (name.IsEmpty || !XmlConvert.IsStartNCNameChar(name[0]))
        {
            return false;
        }

        foreach (var character in name[1..])
        {
            if (!XmlConvert.IsNCNameChar(character))
            {
                return false;
            }
        }

        return true;
    }

    private static XmppStreamException Malformed(string what) => new("not-well-formed", what);
}
