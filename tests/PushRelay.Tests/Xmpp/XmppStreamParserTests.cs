using System.Text;
using System.Xml.Linq;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

public sealed class XmppStreamParserTests
{
    private static readonly XmppComponentOptions Options = new()
    {
        Host = "127.0.0.1",
        Port = 5347,
        Domain = "push.example.com",
        Secret = "s",
    };

    // What an ejabberd 23.01 really sends, in one line as it came.
    private const string Publish =
        "<iq to='push.localhost' from='localhost' type='set' "
        + "id='rr-1795387256551-9208041659500282951-4cZJLILvWvaq9eiaM+GzU33fkZo=-70306884'>"
        + "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='bob-phone'><item><notification xmlns='urn:xmpp:push:0'>"
        + "<x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>"
        + "<field var='last-message-body' type='text-single' label='The body text'><value>h\u00E9llo \U0001F600 &amp; "
        + "&lt;b&gt;</value></field></x>"
        + "</notification></item></publish></pubsub></iq>";

    [Fact]
    public void A_real_stanza_reads_as_XmlReader_reads_it()
    {
        var stanza = ParserDriver.Stanza(Publish);

        XmppStreamParserPropertyTests.AssertSame(XmppStreamParserPropertyTests.Reference(Publish).Elements().Single(), stanza);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(7)]
    [InlineData(int.MaxValue)]
    public void Portions_make_no_difference_and_several_stanzas_may_come_at_once(int portionBytes)
    {
        var driver = new ParserDriver();
        driver.Feed(ParserDriver.Header + "<handshake/>", portionBytes);
        driver.Authenticated();

        driver.Feed($"{Publish} \n{Publish}<message/>\r\n\t<presence></presence></stream:stream>", portionBytes);

        Assert.Equal("1", (string?)driver.StreamHeader!.Attribute("id"));
        Assert.Equal(["handshake", "iq", "iq", "message", "presence"], driver.Stanzas.Select(stanza => stanza.Name.LocalName));
        Assert.All(driver.Stanzas, stanza => Assert.Equal(XmppStanza.Component, stanza.Name.Namespace));
        XmppStreamParserPropertyTests.AssertSame(XmppStreamParserPropertyTests.Reference(Publish).Elements().Single(), driver.Stanzas[2]);
        Assert.True(driver.IsClosed);
    }

    [Fact]
    public void Prefixes_quotes_and_the_order_of_attributes_make_no_difference()
    {
        var plain = ParserDriver.Stanza("<iq id='1' to='a'><publish xmlns='u:p' node='n' x='2'><item xmlns='u:i'/></publish></iq>");
        var tricky = ParserDriver.Stanza(
            "<c:iq xmlns:c=\"jabber:component:accept\" to=\"a\"\n id = '1' xmlns='other'>"
                + "<p:publish xmlns:q='u:i' xmlns:p='u:p' node='n' x='2'><q:item xmlns='y'></q:item></p:publish></c:iq>"
        );

        Assert.Equal(plain.Elements().Single().ToString(), tricky.Elements().Single().ToString());
        Assert.Equal(plain.Name, tricky.Name);
        Assert.Equal((string?)plain.Attribute("to"), (string?)tricky.Attribute("to"));
    }

    [Fact]
    public void Character_data_sections_references_and_line_ends_become_text()
    {
        var stanza = ParserDriver.Stanza(
            "<message a='x&#9;y\tz\r\nw&quot;'>1<![CDATA[<&]] >]]]]><![CDATA[>\r\n]]>&#x1F600;\r2\r\n3&#xD;</message>"
        );

        Assert.Equal("1<&]] >]]>\n\U0001F600\n2\n3\r", stanza.Value);
        Assert.Equal("x\ty z w\"", (string?)stanza.Attribute("a"));
    }

    [Theory]
    [InlineData("\uFEFF" + ParserDriver.Header)]
    [InlineData("<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept'>")]
    [InlineData(
        "<?xml version=\"1.0\" encoding='utf-8' standalone='yes' ?>\n<stream:stream xmlns:stream='http://etherx.jabber.org/streams' "
            + "xmlns='jabber:component:accept'>"
    )]
    [InlineData(" \n<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' id=''>")]
    public void A_stream_may_begin_in_every_way_that_XML_allows(string header)
    {
        foreach (var portion in new[] { 1, int.MaxValue })
        {
            var driver = new ParserDriver();
            driver.Feed(header, portion);
            Assert.NotNull(driver.StreamHeader);
        }
    }

    public static TheoryData<string, string> BadStreams =>
        new()
        {
            { "HTTP/1.1 400 Bad Request\r\n\r\n", "not-well-formed" },
            { "<html></html>", "invalid-namespace" },
            { "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", "invalid-namespace" },
            { "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://example.com/'>", "invalid-namespace" },
            { "<stream xmlns='jabber:component:accept'>", "invalid-namespace" },
            { "<stream:stream xmlns='jabber:component:accept'>", "not-well-formed" },
            { "<?xml version='1.0' encoding='UTF-16'?>", "unsupported-encoding" },
            { "<?xml version='1.0' encoding='ISO-8859-1'?>", "unsupported-encoding" },
            { "<?xml version='1.1'?>", "not-well-formed" },
            { "<?xml encoding='UTF-8' version='1.0'?>", "not-well-formed" },
            { "<?xml?>", "not-well-formed" },
            { "<?php echo ?>", "restricted-xml" },
            { " <?xml version='1.0'?>", "restricted-xml" },
            { "\uFEFF\uFEFF<?xml version='1.0'?>", "not-well-formed" },
            { "<!DOCTYPE a [<!ENTITY b 'c'>]>", "restricted-xml" },
            { "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;'>]>", "restricted-xml" },
            { "<?xml version='1.0'?><!DOCTYPE a SYSTEM 'file:///etc/passwd'>", "restricted-xml" },
            { "<!-- x -->", "restricted-xml" },
            { "</stream:stream>", "not-well-formed" },
        };

    [Theory]
    [MemberData(nameof(BadStreams))]
    public void What_is_no_component_stream_is_refused_with_its_condition(string bytes, string condition)
    {
        Assert.Equal(condition, new ParserDriver().Condition(Encoding.UTF8.GetBytes(bytes)));
        Assert.Equal(condition, new ParserDriver().Condition(Encoding.UTF8.GetBytes(bytes), portionBytes: 1));
    }

    [Fact]
    public void UTF16_and_UTF32_are_refused_at_the_first_bytes()
    {
        foreach (var encoding in new Encoding[] { Encoding.Unicode, Encoding.BigEndianUnicode, Encoding.UTF32 })
        {
            Assert.Equal("unsupported-encoding", new ParserDriver().Condition(encoding.GetBytes(ParserDriver.Header)));
            Assert.Equal(
                "unsupported-encoding",
                new ParserDriver().Condition(encoding.GetPreamble().Concat(encoding.GetBytes(ParserDriver.Header)).ToArray(), 1)
            );
        }
    }

    public static TheoryData<string, string> BadStanzas =>
        new()
        {
            { "<message><!-- x --></message>", "restricted-xml" },
            { "<!DOCTYPE a>", "restricted-xml" },
            { "<message><!ENTITY a 'b'></message>", "restricted-xml" },
            { "<message><?pi x?></message>", "restricted-xml" },
            { "<?xml version='1.0'?>", "restricted-xml" },
            { "<message>&lol;</message>", "restricted-xml" },
            { "<message a='&lol;'/>", "restricted-xml" },
            { "<message>&#xD800;</message>", "not-well-formed" },
            { "<message>&#0;</message>", "not-well-formed" },
            { "<message>&#xFFFF;</message>", "not-well-formed" },
            { "<message>&#x110000;</message>", "not-well-formed" },
            { "<message>&#99999999999999999999;</message>", "not-well-formed" },
            { "<message>&#;</message>", "not-well-formed" },
            { "<message>&#x;</message>", "not-well-formed" },
            { "<message>& b</message>", "not-well-formed" },
            { "<message>&;</message>", "not-well-formed" },
            { "<message>\u0000</message>", "not-well-formed" },
            { "<message>\u0001</message>", "not-well-formed" },
            { "<message>\uFFFF</message>", "not-well-formed" },
            { "<message a='\u0000'/>", "not-well-formed" },
            { "<message>]]></message>", "not-well-formed" },
            { "<message></iq>", "not-well-formed" },
            { "<message></message x>", "not-well-formed" },
            { "<p:message xmlns:p='jabber:component:accept'></message>", "not-well-formed" },
            { "<message a='1' a='2'/>", "not-well-formed" },
            { "<message xmlns:p='u' xmlns:q='u' p:a='1' q:a='2'/>", "not-well-formed" },
            { "<message xmlns:p='u' xmlns:p='u'/>", "not-well-formed" },
            { "<message a='1'b='2'/>", "not-well-formed" },
            { "<message a/>", "not-well-formed" },
            { "<message a=1/>", "not-well-formed" },
            { "<message a='<'/>", "not-well-formed" },
            { "<message <a/>", "not-well-formed" },
            { "<message", "" },
            { "< message/>", "not-well-formed" },
            { "<1/>", "not-well-formed" },
            { "<>", "not-well-formed" },
            { "</>", "not-well-formed" },
            { "<//>", "not-well-formed" },
            { "<a:b:c/>", "not-well-formed" },
            { "<a:/>", "not-well-formed" },
            { "<:a/>", "not-well-formed" },
            { "<p:message/>", "not-well-formed" },
            { "<message p:a=''/>", "not-well-formed" },
            { "<xmlns:a/>", "not-well-formed" },
            { "<message xmlns:p=''/>", "not-well-formed" },
            { "<message xmlns:xmlns='u'/>", "not-well-formed" },
            { "<message xmlns:xml='u'/>", "not-well-formed" },
            { "<message xmlns:p='http://www.w3.org/2000/xmlns/'/>", "not-well-formed" },
            { "<message xmlns='http://www.w3.org/XML/1998/namespace'/>", "not-well-formed" },
            { "hello", "bad-format" },
            { "<message/>hello", "bad-format" },
            { "<![CDATA[x]]>", "bad-format" },
        };

    [Theory]
    [MemberData(nameof(BadStanzas))]
    public void What_is_malformed_or_forbidden_inside_a_stream_ends_it_with_its_condition(string bytes, string condition)
    {
        var expected = condition.Length == 0 ? null : condition;
        Assert.Equal(expected, ParserDriver.Opened().Condition(Encoding.UTF8.GetBytes(bytes)));
        Assert.Equal(expected, ParserDriver.Opened().Condition(Encoding.UTF8.GetBytes(bytes), portionBytes: 1));
    }

    [Theory]
    [InlineData(new byte[] { (byte)'<', (byte)'a', (byte)'>', 0xC0, 0x80, (byte)'<', (byte)'/', (byte)'a', (byte)'>' })] // overlong NUL
    [InlineData(new byte[] { (byte)'<', (byte)'a', (byte)'>', 0xED, 0xA0, 0x80, (byte)'<', (byte)'/', (byte)'a', (byte)'>' })] // surrogate
    [InlineData(new byte[] { (byte)'<', (byte)'a', (byte)'>', 0xFF, (byte)'<', (byte)'/', (byte)'a', (byte)'>' })]
    [InlineData(new byte[] { (byte)'<', (byte)'a', (byte)'>', 0xF0, 0x9F, 0x98, (byte)'<', (byte)'/', (byte)'a', (byte)'>' })] // cut short
    [InlineData(new byte[] { (byte)'<', 0xC3, (byte)'/', (byte)'>' })]
    [InlineData(new byte[] { (byte)'<', (byte)'a', (byte)' ', (byte)'b', (byte)'=', (byte)'\'', 0xFE, (byte)'\'', (byte)'/', (byte)'>' })]
    public void Invalid_UTF8_is_not_well_formed_wherever_it_stands(byte[] bytes) =>
        Assert.Equal("not-well-formed", ParserDriver.Opened().Condition(bytes));

    public static TheoryData<string, string> Endless =>
        new()
        {
            { "<message a='", "x" }, // a tag that never closes
            { "<", "a" }, // a name that never ends
            { "<message ", "a" },
            { "<message ", " " },
            { "<message>", "text " },
            { "<message><![CDATA[", "data]" },
            { "<message>", "<![CDATA[]]>" },
            { "<message>", "<a/>" },
            { "<message>", "<a>" }, // depth
            { "<message><a", " b='c'" },
            { "<message>", "<a b='c'>d</a>" },
            { "<message>", "&amp;" },
            { "</", "x" },
        };

    [Theory]
    [MemberData(nameof(Endless))]
    public void What_never_ends_is_cut_off_before_300_KiB_are_held(string start, string repeated)
    {
        var chunk = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(repeated, 1 + (4096 / repeated.Length))));
        var driver = ParserDriver.Opened();
        string? condition = driver.Condition(Encoding.UTF8.GetBytes(start));
        while (condition is null)
        {
            Assert.True(driver.FedBytes < 300 * 1024, "nothing has stopped it");
            condition = driver.Condition(chunk);
        }

        Assert.Equal("policy-violation", condition);
        Assert.True(driver.BufferBytesMax < 300 * 1024);
    }

    [Fact]
    public void Memory_does_not_follow_a_stream_that_never_ends_a_tag()
    {
        var driver = ParserDriver.Opened();
        var chunk = new byte[XmppStreamParser.ReadBytes];
        chunk.AsSpan().Fill((byte)'a');
        driver.Feed("<message a='");
        var before = GC.GetAllocatedBytesForCurrentThread();

        string? condition = null;
        while (condition is null)
        {
            condition = driver.Condition(chunk);
        }

        // The buffer doubles from 16 KiB to its bound: less than three times the bound over all its sizes, and the exception.
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 3 * 300 * 1024);
    }

    [Fact]
    public void Each_bound_is_exact()
    {
        AssertBound(Options with { StanzaBytesMax = 100 }, bytes => $"<message a='{new string('x', bytes - 15)}'/>", 100);
        AssertBound(Options with { StanzaBytesMax = 100 }, bytes => $"<message>{new string('x', bytes - 19)}</message>", 100);
        AssertBound(
            Options with
            {
                DepthMax = 5,
            },
            depth => string.Concat(Enumerable.Repeat("<a>", depth)) + string.Concat(Enumerable.Repeat("</a>", depth)),
            5
        );
        AssertBound(
            Options with
            {
                AttributesMax = 5,
            },
            count => $"<a {string.Join(' ', Enumerable.Range(0, count).Select(i => $"b{i}=''"))}/>",
            5
        );
        AssertBound(Options with { NameCharsMax = 20 }, length => $"<{new string('a', length)}/>", 20);
        AssertBound(Options with { NameCharsMax = 20 }, length => $"<a {new string('b', length)}=''/>", 20);
        AssertBound(Options with { NamespaceCharsMax = 50 }, length => $"<a xmlns='{new string('u', length)}'/>", 50);
        AssertBound(Options with { TextBytesMax = 500 }, length => $"<a>{new string('x', length)}</a>", 500);
        AssertBound(Options with { TextBytesMax = 500 }, length => $"<a>{new string('x', length - 1)}<![CDATA[y]]></a>", 500);
        AssertBound(Options with { TextBytesMax = 500 }, length => $"<a b='{new string('x', length)}'/>", 500);
        AssertBound(Options with { NodesMax = 10 }, count => $"<a>{string.Concat(Enumerable.Repeat("<b/>", count - 1))}</a>", 10);
        AssertBound(
            Options with
            {
                NodesMax = 10,
            },
            count => $"<a>{string.Concat(Enumerable.Repeat("<b c=''>x</b>", (count - 1) / 3))}</a>",
            10,
            13
        );

        static void AssertBound(XmppComponentOptions options, Func<int, string> stanza, int last, int? first = null)
        {
            foreach (var portion in new[] { 1, 3, int.MaxValue })
            {
                var driver = ParserDriver.Opened(options);
                // Twice and with keep-alives between: a bound is that of one stanza.
                Assert.Null(driver.Condition(Encoding.UTF8.GetBytes(stanza(last) + new string(' ', 1000) + stanza(last)), portion));
                Assert.Equal(2, driver.Stanzas.Count);
                Assert.Equal("policy-violation", driver.Condition(Encoding.UTF8.GetBytes(stanza(first ?? last + 1)), portion));
            }
        }
    }

    [Fact]
    public void Before_the_handshake_is_over_8_KiB_are_the_bound_for_everything()
    {
        var driver = new ParserDriver();
        driver.Feed(ParserDriver.Header);

        Assert.Equal(
            "policy-violation",
            driver.Condition(
                new byte[] { (byte)' ' }
                    .Concat(Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat("<a/> ", 2000))))
                    .ToArray()
            )
        );
        Assert.InRange(driver.BufferBytesMax, 0, 3 * XmppStreamParser.ReadBytes);
    }

    [Fact]
    public void Keep_alives_are_no_stanzas_and_never_add_up()
    {
        var driver = ParserDriver.Opened(Options with { StanzaBytesMax = 1000 });

        driver.Feed(new string(' ', 100_000) + "<me");
        driver.Feed("ssage/>");

        Assert.Single(driver.Stanzas);
    }

    [Fact]
    public void A_long_attribute_byte_by_byte_takes_linear_time()
    {
        var driver = ParserDriver.Opened();

        driver.Feed($"<message a='{new string('x', 120_000)}' b='{new string('>', 100_000)}'/>", portionBytes: 1);

        Assert.Equal(100_000, ((string?)Assert.Single(driver.Stanzas).Attribute("b"))!.Length);
    }

    [Fact]
    public void Names_that_a_peer_invents_are_kept_up_to_a_bound_and_those_understood_always_read()
    {
        XName known = XNamespace.Get("urn:pushrelay:bridge:1") + "events";
        var options = Options with { NamesMax = 100, KnownNames = [known, "epoch"] };
        var driver = ParserDriver.Opened(options, new XmppNames(options.KnownNames, options.NamesMax));

        for (var i = 0; i < 500; i++)
        {
            driver.Feed($"<message from='a' invented{i}=''><x{i} xmlns='urn:{i}' y{i}='z'>t</x{i}></message>");
            Assert.Equal(i < 33, driver.IsWhole);
        }

        Assert.Equal("a", (string?)driver.Stanzas[^1].Attribute("from"));
        driver.Feed("<message from='a' to='b'><events xmlns='urn:pushrelay:bridge:1' epoch='1'/></message>");
        Assert.True(driver.IsWhole);
        Assert.Equal(known, driver.Stanzas[^1].Elements().Single().Name);
    }
}
