using System.Text;
using System.Xml.Linq;
using CsCheck;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

public sealed class XmppStanzaTests
{
    private static readonly XmppComponentOptions Options = new()
    {
        Host = "127.0.0.1",
        Port = 5347,
        Domain = "push.example.com",
        Secret = "s",
    };
    private static readonly XNamespace Bridge = "urn:pushrelay:bridge:1";

    [Fact]
    public void A_result_has_the_id_byte_for_byte_and_the_addresses_swapped()
    {
        var request = Iq("set", "a'\"b<&>+/= \n\u738B");

        var result = XmppStanza.IqResult(request, new XElement(Bridge + "ok"));

        Assert.Equal(XmppStanza.Component + "iq", result.Name);
        Assert.Equal(("result", "a'\"b<&>+/= \n\u738B"), ((string?)result.Attribute("type"), (string?)result.Attribute("id")));
        Assert.Equal(("example.com", "push.example.com"), ((string?)result.Attribute("to"), (string?)result.Attribute("from")));
        Assert.NotNull(result.Element(Bridge + "ok"));
        Assert.Equal("a'\"b<&>+/= \n\u738B", (string?)Reparse(Write(result)).Attribute("id"));
    }

    [Fact]
    public void An_error_names_type_condition_and_text()
    {
        var error = XmppStanza.ErrorReply(Iq("get", "1"), "cancel", "item-not-found", "No such node.");

        Assert.Equal(
            "<iq type='error' id='1' from='push.example.com' to='example.com'><error type='cancel'>"
                + "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
                + "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>No such node.</text></error></iq>",
            Write(error)
        );
    }

    [Fact]
    public void A_stanza_is_written_in_the_namespace_of_the_stream_and_gets_the_components_address()
    {
        var stanza = new XElement(
            XmppStanza.Component + "message",
            new XAttribute("to", "example.com"),
            new XElement(Bridge + "ack", new XAttribute("epoch", "9f"), new XAttribute("seq", 57))
        );

        Assert.Equal(
            "<message from='push.example.com' to='example.com'><ack xmlns='urn:pushrelay:bridge:1' epoch='9f' seq='57'/></message>",
            Write(stanza)
        );
        Assert.Null(stanza.Attribute("from"));
    }

    [Fact]
    public void Elements_without_namespace_and_attributes_with_one_survive()
    {
        var stanza = Message(new XElement("plain", new XAttribute(Bridge + "a", "1"), new XElement(XmppStanza.Component + "body", "x")));

        Assert.True(XNode.DeepEquals(stanza, Reparse(Write(stanza))));
    }

    public static TheoryData<XElement, string> Refused =>
        new()
        {
            { new XElement("message", new XAttribute("to", "example.com")), "jabber:component:accept" },
            { new XElement(XNamespace.Get("jabber:client") + "message", new XAttribute("to", "example.com")), "jabber:component:accept" },
            { new XElement(XmppStanza.Component + "handshake", new XAttribute("to", "example.com")), "jabber:component:accept" },
            { new XElement(XmppStanza.Component + "message"), "'to'" },
            { Message(new XElement("a", "x\u0000")), "character" },
            { Message(new XElement("a", "x\uFFFE")), "character" },
            { Message(new XElement("a", new XAttribute("b", "\u0001"))), "character" },
            { Message(new XElement("a", "x\uD800")), "surrogate" },
            { Message(new XComment("no")), "Comment" },
            { Message(new XElement("a", new string('x', 256 * 1024))), "bytes" },
            { Message(Nested(40)), "deep" },
        };

    [Theory]
    [MemberData(nameof(Refused))]
    public void What_a_server_would_end_the_stream_for_is_refused_before_it_is_sent(XElement stanza, string because) =>
        Assert.Contains(because, Assert.Throws<ArgumentException>(() => Write(stanza)).Message, StringComparison.Ordinal);

    [Fact]
    public void What_is_written_reads_back_equal_to_both_readers() =>
        Gen.Select(Gen.String[Gen.Char["ab <>&'\"\r\n\t]\u00E9\u738B"], 0, 20], Gen.String[Gen.Char["ab <>&'\"\r\n\t]\u00E9"], 1, 20])
            .Sample(
                (attribute, text) =>
                {
                    var stanza = Message(new XElement(Bridge + "a", new XAttribute("b", attribute), text, new XElement("c", text)));
                    var written = Write(stanza);

                    Assert.True(XNode.DeepEquals(stanza, Reparse(written)), written);
                    var outer = XElement.Parse($"<s xmlns='{XmppStanza.Component}'>{written}</s>", LoadOptions.PreserveWhitespace);
                    Assert.Equal(attribute, (string?)outer.Descendants(Bridge + "a").Single().Attribute("b"));
                    Assert.Equal(text, outer.Descendants("c").Single().Value);
                }
            );

    private static XElement Nested(int depth) => depth == 0 ? new XElement("a") : new XElement("a", Nested(depth - 1));

    private static XElement Message(params object[] content) =>
        new(XmppStanza.Component + "message", new XAttribute("from", "push.example.com"), new XAttribute("to", "example.com"), content);

    private static XElement Iq(string type, string id) =>
        new(
            XmppStanza.Component + "iq",
            new XAttribute("type", type),
            new XAttribute("id", id),
            new XAttribute("from", "example.com"),
            new XAttribute("to", "push.example.com")
        );

    private static string Write(XElement stanza) => Encoding.UTF8.GetString(XmppStanzaWriter.Write(stanza, Options));

    private static XElement Reparse(string stanza) => ParserDriver.Stanza(stanza);
}
