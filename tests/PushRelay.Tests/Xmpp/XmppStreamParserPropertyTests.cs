using System.Text;
using System.Xml;
using System.Xml.Linq;
using CsCheck;

namespace PushRelay.Tests.Xmpp;

/// <summary>The parser against any bytes, and against .NET's own reader.</summary>
public sealed class XmppStreamParserPropertyTests
{
    [Fact]
    public void Any_bytes_end_in_stanzas_or_in_the_one_exception_whatever_the_portions() =>
        Gen.Select(AnyBytes, Gen.Int[1, 9], Gen.Bool)
            .Sample(
                (bytes, portion, opened) =>
                {
                    var (whole, cut) = opened ? (ParserDriver.Opened(), ParserDriver.Opened()) : (new ParserDriver(), new ParserDriver());

                    var (first, second) = (whole.Condition(bytes), cut.Condition(bytes, portion));

                    Assert.Equal(first, second);
                    Assert.Equal(whole.Stanzas.Select(stanza => stanza.ToString()), cut.Stanzas.Select(stanza => stanza.ToString()));
                },
                iter: 20_000
            );

    [Fact]
    public void Nothing_is_taken_that_XmlReader_refuses_and_nothing_is_read_otherwise() =>
        Fragments.Sample(
            body =>
            {
                var driver = ParserDriver.Opened();
                var condition = driver.Condition(Encoding.UTF8.GetBytes(body + "</stream:stream>"));
                XElement? reference = null;
                try
                {
                    reference = Reference(body);
                }
                catch (XmlException) { }

                if (reference is null)
                {
                    Assert.True(condition is not null || !driver.IsClosed, body);
                }
                else if (condition is null)
                {
                    var expected = reference.Elements().ToList();
                    Assert.True(driver.IsClosed && expected.Count == driver.Stanzas.Count, body);
                    foreach (var (left, right) in expected.Zip(driver.Stanzas))
                    {
                        AssertSame(left, right);
                    }
                }
                else
                {
                    // XML, but not XMPP.
                    Assert.True(condition is "restricted-xml" or "bad-format" or "policy-violation", $"{condition}: {body}");
                }
            },
            iter: 20_000
        );

    private static readonly Gen<string> Piece = Gen.OneOf(
        "<a>",
        "</a>",
        "<b x='1'>",
        "</b>",
        "<p:c xmlns:p='u'>",
        "</p:c>",
        "<d/>",
        "<d />",
        "<e xmlns=''/>",
        "<e xmlns='u:e' p='1'/>",
        "</a >",
        "<a\n>",
        "text",
        " ",
        "\r\n",
        "\r",
        "\t",
        "&amp;",
        "&#65;",
        "&#x41;",
        "&#xD800;",
        "&#13;",
        "&lol;",
        "&",
        "]]>",
        "]]",
        ">",
        "<![CDATA[",
        "<![CDATA[x<&]]>",
        "é",
        "王",
        "\U0001F600",
        "<a b=\"x\ty\r\nz\"/>",
        "<a b='1' b='2'/>",
        "<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>",
        "<a xmlns:p='u' xmlns:q='v' p:b='1' q:b='2' b='3'/>",
        "<a b='<'/>",
        "<a b='>'/>",
        "<a b=1/>",
        "<a b='1'c='2'/>",
        "<1/>",
        "<q:b/>",
        "< a/>",
        "<a b = 'c' />",
        "<a xml:lang='en'/>",
        "<xml:a/>",
        "<a xmlns:p=''/>",
        "<é王/>",
        "<a é='1'/>",
        "<a.b-c_d1/>",
        "<-a/>",
        "\u0001",
        "\u0085",
        "\uFFFD",
        "\uFFFE",
        "<a b='&quot;&apos;&lt;'/>",
        "<a b='&#10;'/>",
        "<stream:x/>",
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<a/ >",
        "<a/",
        "<",
        "'",
        "\"",
        "<!-- c -->",
        "<?p i?>",
        "<a:b:c/>",
        "<a b:='1'/>",
        "<a xmlns:1='u'/>",
        "<\U0001F600/>",
        "<a \u00B7b=''/>",
        "<a b\u00B7=''/>"
    );

    private static readonly Gen<string> Tree = Gen.Recursive<string>(
        (depth, tree) =>
            depth > 3
                ? Piece
                : Gen.OneOf(
                    Piece,
                    Gen.Select(
                        Gen.OneOf("a", "p:b xmlns:p='u'", "c x='1'", "d xmlns='v'"),
                        tree.Array[0, 4],
                        (tag, inner) => $"<{tag}>{string.Concat(inner)}</{tag.Split(' ')[0]}>"
                    )
                )
    );

    private static readonly Gen<string> Fragments = Gen.OneOf(
        Tree.Array[1, 3].Select(string.Concat),
        Piece.Array[1, 6].Select(pieces => $"<m>{string.Concat(pieces)}</m>"),
        Piece.Array[1, 3].Select(string.Concat)
    );

    private static readonly Gen<byte[]> AnyBytes = Gen.OneOf(
        Gen.Byte.Array[0, 300],
        Fragments.Select(Encoding.UTF8.GetBytes),
        Gen.Select(
            Fragments,
            Gen.Byte,
            Gen.Int[0, 1000],
            (text, value, at) =>
            {
                var bytes = Encoding.UTF8.GetBytes(text);
                bytes[at % bytes.Length] = value;
                return bytes;
            }
        )
    );

    internal static XElement Reference(string body)
    {
        using var text = new StringReader(ParserDriver.Header + body + "</stream:stream>");
        using var reader = XmlReader.Create(text, new XmlReaderSettings { DtdProcessing = DtdProcessing.Prohibit, XmlResolver = null });
        return XDocument.Load(reader, LoadOptions.PreserveWhitespace).Root!;
    }

    internal static void AssertSame(XElement expected, XElement actual)
    {
        Assert.Equal(expected.Name, actual.Name);
        Assert.Equal(
            expected
                .Attributes()
                .Where(attribute => !attribute.IsNamespaceDeclaration)
                .Select(attribute => (attribute.Name, attribute.Value)),
            actual.Attributes().Select(attribute => (attribute.Name, attribute.Value))
        );
        Assert.Equal(Texts(expected), Texts(actual));
        var (left, right) = (expected.Elements().ToList(), actual.Elements().ToList());
        Assert.Equal(left.Count, right.Count);
        foreach (var (first, second) in left.Zip(right))
        {
            AssertSame(first, second);
        }

        // Text between the same elements, with CDATA as text; comments never get this far.
        static List<string> Texts(XElement element) =>
            element
                .Nodes()
                .Aggregate(
                    new List<string> { "" },
                    (texts, node) =>
                    {
                        if (node is XText text)
                        {
                            texts[^1] += text.Value;
                        }
                        else
                        {
                            texts.Add("");
                        }

                        return texts;
                    }
                );
    }
}
