using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;

namespace PushRelay.Apns;

/// <summary>What a text costs in the JSON of a payload, and where it may be cut.</summary>
internal static class PayloadText
{
    /// <summary>The same text with each lone surrogate replaced by U+FFFD; the same object where there is none.</summary>
    public static string WellFormed(string text)
    {
        if (!text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF'))
        {
            return text;
        }

        var whole = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            whole.Append(rune);
        }

        return whole.ToString();
    }

    /// <summary>Bytes of the text between the quotes, as <see cref="PayloadEncoder"/> writes it.</summary>
    public static int EncodedBytes(ReadOnlySpan<char> text)
    {
        var bytes = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            bytes += PayloadEncoder.EncodedBytes(rune);
        }

        return bytes;
    }

    /// <summary>
    /// The longest beginning that ends between two text elements (Unicode UAX 29 extended grapheme clusters) and, with
    /// <paramref name="ellipsis"/>, costs at most <paramref name="bytesMax"/>; empty where not even the ellipsis fits.
    /// </summary>
    public static string Cut(string text, int bytesMax, string ellipsis)
    {
        var left = bytesMax - EncodedBytes(ellipsis);
        if (left < 0)
        {
            return "";
        }

        text = WellFormed(text);
        var end = 0;
        while (end < text.Length)
        {
            var length = StringInfo.GetNextTextElementLength(text, end);
            left -= EncodedBytes(text.AsSpan(end, length));
            if (left < 0)
            {
                break;
            }

            end += length;
        }

        return string.Concat(text.AsSpan(0, end), ellipsis);
    }
}

/// <summary>
/// Escapes what RFC 8259 section 7 demands and nothing else. The encoders of the framework, the "relaxed" one too, write an emoji as 12
/// bytes where UTF-8 needs 4; those bytes are missing from the text. The payload is never put into HTML.
/// </summary>
internal sealed unsafe class PayloadEncoder : JavaScriptEncoder
{
    public static readonly PayloadEncoder Instance = new();

    public override int MaxOutputCharactersPerInputCharacter => 6;

    public static int EncodedBytes(Rune rune) =>
        rune.Value switch
        {
            '"' or '\\' or '\b' or '\t' or '\n' or '\f' or '\r' => 2,
            < 0x20 => 6,
            _ => rune.Utf8SequenceLength,
        };

    public override bool WillEncode(int unicodeScalar) => unicodeScalar is < 0x20 or '"' or '\\';

    public override int FindFirstCharacterToEncode(char* text, int textLength)
    {
        var rest = new ReadOnlySpan<char>(text, textLength);
        for (var i = 0; i < rest.Length; i++)
        {
            if (WillEncode(rest[i]))
            {
                return i;
            }

            if (char.IsSurrogate(rest[i]))
            {
                if (!char.IsHighSurrogate(rest[i]) || i + 1 == rest.Length || !char.IsLowSurrogate(rest[i + 1]))
                {
                    return i;
                }

                i++;
            }
        }

        return -1;
    }

    public override bool TryEncodeUnicodeScalar(int unicodeScalar, char* buffer, int bufferLength, out int numberOfCharactersWritten)
    {
        var target = new Span<char>(buffer, bufferLength);
        if (!WillEncode(unicodeScalar))
        {
            // Asked for the replacement of a lone surrogate.
            return new Rune(unicodeScalar).TryEncodeToUtf16(target, out numberOfCharactersWritten);
        }

        ReadOnlySpan<char> escaped = unicodeScalar switch
        {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\b' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\f' => "\\f",
            '\r' => "\\r",
            _ => string.Create(CultureInfo.InvariantCulture, $"\\u{unicodeScalar:x4}"),
        };
        numberOfCharactersWritten = escaped.TryCopyTo(target) ? escaped.Length : 0;
        return numberOfCharactersWritten > 0;
    }
}
