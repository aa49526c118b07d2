using System.Text;
using System.Xml.Linq;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

/// <summary>Feeds a parser with portions of bytes as a socket would, and keeps what came out.</summary>
internal sealed class ParserDriver
{
    public const string Header =
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
        + "xmlns:stream='http://etherx.jabber.org/streams' id='1' from='push.example.com'>";

    private readonly XmppStreamParser parser;

    public ParserDriver(XmppComponentOptions? options = null, XmppNames? names = null)
    {
        options ??= new XmppComponentOptions
        {
            Host = "127.0.0.1",
            Port = 5347,
            Domain = "push.example.com",
            Secret = "s",
        };
        parser = new XmppStreamParser(options, names ?? new XmppNames([], options.NamesMax));
    }

    public List<XElement> Stanzas { get; } = [];

    public XElement? StreamHeader { get; private set; }

    public bool IsClosed { get; private set; }

    public bool IsWhole => parser.IsWhole;

    public long FedBytes { get; private set; }

    public int BufferBytesMax { get; private set; }

    public static ParserDriver Opened(XmppComponentOptions? options = null, XmppNames? names = null)
    {
        var driver = new ParserDriver(options, names);
        driver.Feed(Header);
        driver.parser.Authenticated();
        return driver;
    }

    public static XElement Stanza(string text)
    {
        var driver = Opened();
        driver.Feed(text);
        return Assert.Single(driver.Stanzas);
    }

    public void Authenticated() => parser.Authenticated();

    public void Feed(string text, int portionBytes = int.MaxValue) => Feed(Encoding.UTF8.GetBytes(text), portionBytes);

    public void Feed(ReadOnlyMemory<byte> bytes, int portionBytes = int.MaxValue)
    {
        while (!bytes.IsEmpty)
        {
            var free = parser.Free();
            var count = Math.Min(Math.Min(bytes.Length, portionBytes), free.Length);
            bytes[..count].CopyTo(free);
            bytes = bytes[count..];
            FedBytes += count;
            parser.Received(count);
            BufferBytesMax = Math.Max(BufferBytesMax, parser.BufferBytes);
            Drain();
        }
    }

    /// <summary>The condition the bytes end the stream with; null if they do not.</summary>
    public string? Condition(ReadOnlyMemory<byte> bytes, int portionBytes = int.MaxValue)
    {
        try
        {
            Feed(bytes, portionBytes);
            return null;
        }
        catch (XmppStreamException exception)
        {
            Assert.False(exception.FromServer);
            return exception.Condition;
        }
    }

    private void Drain()
    {
        while (true)
        {
            switch (parser.Next())
            {
                case XmppStreamItem.Incomplete:
                    return;
                case XmppStreamItem.Closed:
                    IsClosed = true;
                    return;
                case XmppStreamItem.Header:
                    StreamHeader = parser.Element;
                    break;
                case XmppStreamItem.Stanza:
                    Stanzas.Add(parser.Element!);
                    break;
            }
        }
    }
}
