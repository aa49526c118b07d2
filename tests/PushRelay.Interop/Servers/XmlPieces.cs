using System.Xml.Linq;

namespace PushRelay.Interop.Servers;

/// <summary>Cuts the text of an XMPP stream into its top-level elements, as they become whole.</summary>
internal sealed class XmlPieces
{
    public const string StreamPrefix = "xmlns:stream='http://etherx.jabber.org/streams'";

    private string text = "";
    private int at;
    private int from;
    private int depth;

    public void Add(string more) => text += more;

    /// <returns>The next whole element; null where it needs more text.</returns>
    public XElement? Next()
    {
        while (true)
        {
            var open = text.IndexOf('<', at);
            var close = open < 0 ? -1 : EndOfTag(open);
            if (close < 0)
            {
                return null;
            }

            at = close + 1;
            if (text[open + 1] == '?')
            {
                continue;
            }

            var was = depth;
            if (text[open + 1] == '/')
            {
                depth--;
            }
            else
            {
                from = depth == 1 ? open : from;
                depth += text[close - 1] == '/' ? 0 : 1;
            }

            if (depth == 1 && was > 0)
            {
                var element = XElement.Parse($"<x xmlns='jabber:client' {StreamPrefix}>{text[from..at]}</x>").Elements().First();
                (text, at) = (text[at..], 0);
                return element;
            }
        }
    }

    private int EndOfTag(int open)
    {
        var quote = '\0';
        for (var i = open + 1; i < text.Length; i++)
        {
            var c = text[i];
            if (quote != '\0')
            {
                quote = c == quote ? '\0' : quote;
            }
            else if (c is '\'' or '"')
            {
                quote = c;
            }
            else if (c == '>')
            {
                return i;
            }
        }

        return -1;
    }
}
