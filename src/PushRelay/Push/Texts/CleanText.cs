using System.Globalization;
using System.Text;

namespace PushRelay.Push.Texts;

/// <summary>Texts of strangers, made fit for a lock screen: what could hide, reorder or break a line of it is gone.</summary>
internal static class CleanText
{
    private const int NameElementsMax = 100;

    // RFC 7622 has no such order; XEP-0106 section 4.2
    private static readonly (string Escape, string Character)[] Escapes =
    [
        (@"\20", " "),
        (@"\22", "\""),
        (@"\26", "&"),
        (@"\27", "'"),
        (@"\2f", "/"),
        (@"\3a", ":"),
        (@"\3c", "<"),
        (@"\3e", ">"),
        (@"\40", "@"),
        (@"\5c", @"\"),
    ];

    /// <summary>One line, without controls and direction marks, at most 100 characters as a reader counts them.</summary>
    public static string Name(string name)
    {
        var clean = new StringBuilder(name.Length);
        foreach (var c in name)
        {
            if (IsLineEnd(c) || c == '\t')
            {
                clean.Append(' ');
            }
            else if (!char.IsControl(c) && !IsDirection(c))
            {
                clean.Append(c);
            }
        }

        var text = clean.ToString().Trim();
        if (text.Length <= NameElementsMax)
        {
            return text;
        }

        var elements = StringInfo.ParseCombiningCharacters(text);
        return elements.Length > NameElementsMax ? text[..elements[NameElementsMax]] + "…" : text;
    }

    /// <summary>An address as a person reads it: escapes of XEP-0106 in the local part stand for their characters.</summary>
    public static string Address(string jid)
    {
        var at = jid.LastIndexOf('@');
        return Name(at < 0 ? jid : Unescape(jid[..at]) + jid[at..]);
    }

    /// <summary>The same of a local part alone.</summary>
    public static string Local(string local) => Name(Unescape(local));

    /// <summary>Lines stay; other controls go, and a direction that is opened is closed.</summary>
    public static string Body(string text)
    {
        if (!text.Any(c => (char.IsControl(c) && c is not ('\n' or '\t')) || IsDirection(c) || c is '\u2028' or '\u2029' or '\u0085'))
        {
            return text;
        }

        var clean = new StringBuilder(text.Length);
        var open = new Stack<char>();
        for (var i = 0; i < text.Length; i++)
        {
            var c = text[i];
            switch (c)
            {
                case '\r' when i + 1 < text.Length && text[i + 1] == '\n':
                    break;
                case '\r' or '\u2028' or '\u2029' or '\u0085':
                    clean.Append('\n');
                    break;
                case '\n' or '\t':
                    clean.Append(c);
                    break;
                case '\u202a' or '\u202b' or '\u202d' or '\u202e':
                    open.Push('\u202c');
                    clean.Append(c);
                    break;
                case '\u2066' or '\u2067' or '\u2068':
                    open.Push('\u2069');
                    clean.Append(c);
                    break;
                case '\u202c' or '\u2069':
                    if (open.TryPeek(out var expected) && expected == c)
                    {
                        open.Pop();
                        clean.Append(c);
                    }

                    break;
                default:
                    if (!char.IsControl(c))
                    {
                        clean.Append(c);
                    }

                    break;
            }
        }

        foreach (var close in open)
        {
            clean.Append(close);
        }

        return clean.ToString();
    }

    private static string Unescape(string local)
    {
        if (!local.Contains('\\', StringComparison.Ordinal))
        {
            return local;
        }

        var text = new StringBuilder(local.Length);
        for (var i = 0; i < local.Length; i++)
        {
            var rest = local.AsSpan(i);
            var escape = Array.Find(Escapes, e => local.AsSpan(i).StartsWith(e.Escape, StringComparison.OrdinalIgnoreCase));
            if (rest[0] == '\\' && escape.Escape is not null)
            {
                text.Append(escape.Character);
                i += escape.Escape.Length - 1;
            }
            else
            {
                text.Append(local[i]);
            }
        }

        return text.ToString();
    }

    private static bool IsLineEnd(char c) => c is '\n' or '\r' or '\u0085' or '\u2028' or '\u2029';

    private static bool IsDirection(char c) =>
        c is '\u200e' or '\u200f' or '\u061c' or (>= '\u202a' and <= '\u202e') or (>= '\u2066' and <= '\u2069');
}
