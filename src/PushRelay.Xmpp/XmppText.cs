using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Unicode;
using System.Xml;

namespace PushRelay.Xmpp;

/// <summary>
/// Decodes text, CDATA sections and attribute values as XML 1.0 sections 2.2, 2.11, 3.3.3 and 4.1 say, and gathers the pieces of
/// one text within its bound.
/// </summary>
internal sealed class XmppText(int textBytesMax)
{
    private enum Kind
    {
        Text,
        CharacterData,
        Attribute,
    }

    // What makes a second look needful. Everything else stands for itself.
    private static readonly SearchValues<char> Special = SearchValues.Create(
        "\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\t\n\u000B\u000C\r\u000E\u000F\u0010\u0011\u0012\u0013\u0014\u0015\u0016"
            + "\u0017\u0018\u0019\u001A\u001B\u001C\u001D\u001E\u001F&]\uFFFE\uFFFF"
    );

    private char[] chars = new char[256];
    private string? first;
    private StringBuilder? more;
    private int bytes;

    /// <summary>Refuses a text that is over the bound with these bytes, before it is complete.</summary>
    public void CheckBytes(int pending)
    {
        if (bytes + pending > textBytesMax)
        {
            throw XmppTagReader.OverBound("text too long");
        }
    }

    public void AppendText(ReadOnlySpan<byte> raw) => Append(raw, Kind.Text);

    public void AppendCharacterData(ReadOnlySpan<byte> raw) => Append(raw, Kind.CharacterData);

    /// <summary>The text gathered since the last call; null if there is none.</summary>
    public string? Take()
    {
        var taken = more?.ToString() ?? first;
        (first, more, bytes) = (null, null, 0);
        return taken is "" ? null : taken;
    }

    public string Attribute(ReadOnlySpan<byte> raw) => Decode(raw, Kind.Attribute);

    private void Append(ReadOnlySpan<byte> raw, Kind kind)
    {
        var piece = Decode(raw, kind);
        bytes += raw.Length;
        if (first is null)
        {
            first = piece;
        }
        else
        {
            (more ??= new StringBuilder(first)).Append(piece);
        }
    }

    private string Decode(ReadOnlySpan<byte> raw, Kind kind)
    {
        CheckBytes(raw.Length);
        if (chars.Length < raw.Length)
        {
            chars = new char[Math.Min(textBytesMax, raw.Length * 2)];
        }

        if (Utf8.ToUtf16(raw, chars, out _, out var length, replaceInvalidSequences: false) != OperationStatus.Done)
        {
            throw Malformed("no UTF-8");
        }

        var source = chars.AsSpan(0, length);
        var special = source.IndexOfAny(Special);
        if (special < 0)
        {
            return source.ToString();
        }

        // In place: nothing gets longer (the shortest reference has four characters and stands for two at most).
        var written = special;
        for (var at = special; at < source.Length; )
        {
            var character = source[at++];
            switch (character)
            {
                case '&' when kind is not Kind.CharacterData:
                    var end = source[at..].IndexOf(';');
                    var code = end < 0 ? throw Malformed("a reference") : Reference(source.Slice(at, end));
                    at += end + 1;
                    written += new Rune(code).EncodeToUtf16(source[written..]);
                    break;
                case ']' when kind is Kind.Text && source[at..].StartsWith("]>"):
                    throw Malformed("']]>' in text");
                case '\r':
                    at += at < source.Length && source[at] == '\n' ? 1 : 0;
                    source[written++] = kind is Kind.Attribute ? ' ' : '\n';
                    break;
                case '\t' or '\n':
                    source[written++] = kind is Kind.Attribute ? ' ' : character;
                    break;
                case < ' ' or '\uFFFE' or '\uFFFF':
                    throw Malformed("a character that XML does not have");
                default:
                    source[written++] = character;
                    break;
            }
        }

        return source[..written].ToString();
    }

    private static int Reference(ReadOnlySpan<char> name)
    {
        switch (name)
        {
            case "lt":
                return '<';
            case "gt":
                return '>';
            case "amp":
                return '&';
            case "quot":
                return '"';
            case "apos":
                return '\'';
        }

        if (name is not ['#', .. var number])
        {
            // RFC 6120 section 11.1: other entities could only come from a document type.
            throw name.IsEmpty || !XmlConvert.IsStartNCNameChar(name[0])
                ? Malformed("a reference")
                : new XmppStreamException("restricted-xml", "an entity reference");
        }

        var isHex = number is ['x', ..];
        var digits = isHex ? number[1..] : number;
        if (
            !int.TryParse(digits, isHex ? NumberStyles.AllowHexSpecifier : NumberStyles.None, CultureInfo.InvariantCulture, out var code)
            || !Rune.IsValid(code)
            || code is < ' ' and not ('\t' or '\n' or '\r') or 0xFFFE or 0xFFFF
        )
        {
            throw Malformed("a character reference");
        }

        return code;
    }

    private static XmppStreamException Malformed(string what) => new("not-well-formed", what);
}
