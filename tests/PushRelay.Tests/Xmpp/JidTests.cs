using System.Globalization;
using System.Text;
using CsCheck;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

public sealed class JidTests
{
    private static readonly string Part1023 = new('a', 1023);

    [Theory]
    // As they are
    [InlineData("example.com", null, "example.com", null)]
    [InlineData("bob@example.com", "bob", "example.com", null)]
    [InlineData("bob@example.com/phone", "bob", "example.com", "phone")]
    [InlineData("example.com/x", null, "example.com", "x")]
    [InlineData("localhost", null, "localhost", null)]
    [InlineData("a_b.example", null, "a_b.example", null)]
    // The resource begins at the first slash and keeps everything behind it
    [InlineData("bob@example.com/a/b@c", "bob", "example.com", "a/b@c")]
    [InlineData("example.com/a@b", null, "example.com", "a@b")]
    [InlineData("bob@example.com/Phone 7 <&>", "bob", "example.com", "Phone 7 <&>")]
    [InlineData("bob@example.com/ ", "bob", "example.com", " ")]
    // Local part: NFKC, simple lower case
    [InlineData("BOB@example.com", "bob", "example.com", null)]
    [InlineData("J\u00FCrgen@example.com", "j\u00FCrgen", "example.com", null)]
    [InlineData("Ju\u0308RGEN@example.com", "j\u00FCrgen", "example.com", null)]
    [InlineData(
        "\u03A3\u03AF\u03C3\u03C5\u03C6\u03BF\u03A3@example.com",
        "\u03C3\u03AF\u03C3\u03C5\u03C6\u03BF\u03C3",
        "example.com",
        null
    )]
    [InlineData("stra\u00DFe@example.com", "stra\u00DFe", "example.com", null)]
    [InlineData("\uFF42\uFF4F\uFF42@example.com", "bob", "example.com", null)]
    [InlineData("\uFB01x@example.com", "fix", "example.com", null)]
    [InlineData("\u738B@example.com", "\u738B", "example.com", null)]
    [InlineData("\U00010400@example.com", "\U00010428", "example.com", null)]
    [InlineData("a.b-c_d+e=f!g#h@example.com", "a.b-c_d+e=f!g#h", "example.com", null)]
    // Domain: lower case, Unicode, no trailing dot
    [InlineData("bob@EXAMPLE.Com", "bob", "example.com", null)]
    [InlineData("bob@example.com.", "bob", "example.com", null)]
    [InlineData("bob@example.com./x", "bob", "example.com", "x")]
    [InlineData("bob@M\u00DCNCHEN.example", "bob", "m\u00FCnchen.example", null)]
    [InlineData("bob@xn--mnchen-3ya.example", "bob", "m\u00FCnchen.example", null)]
    [InlineData("bob@XN--MNCHEN-3YA.example", "bob", "m\u00FCnchen.example", null)]
    [InlineData("bob@\u4F8B\u3048\u3002\u30C6\u30B9\u30C8", "bob", "\u4F8B\u3048.\u30C6\u30B9\u30C8", null)]
    [InlineData("bob@\uFF41.com", "bob", "a.com", null)]
    [InlineData("bob@192.0.2.1", "bob", "192.0.2.1", null)]
    [InlineData("bob@[::1]", "bob", "[::1]", null)]
    [InlineData("bob@[2001:DB8:0:0:0:0:0:1]/x", "bob", "[2001:db8::1]", "x")]
    // Resource: NFC, nothing else
    [InlineData("bob@example.com/Caf\u0065\u0301", "bob", "example.com", "Caf\u00E9")]
    [InlineData("bob@example.com/\uFB01", "bob", "example.com", "\uFB01")]
    [InlineData("bob@example.com/\U0001F4F1", "bob", "example.com", "\U0001F4F1")]
    public void An_address_is_split_and_normalised(string text, string? local, string domain, string? resource)
    {
        Assert.True(Jid.TryParse(text, out var jid));

        Assert.Equal((local, domain, resource), (jid.Local, jid.Domain, jid.Resource));
        Assert.Equal(resource is null, jid.IsBare);
        Assert.Equal(jid, Jid.Parse(jid.ToString()));
        Assert.Equal(local is null ? domain : $"{local}@{domain}", jid.Bare.ToString());
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("@")]
    [InlineData("/")]
    [InlineData("@example.com")]
    [InlineData("bob@")]
    [InlineData("bob@example.com/")]
    [InlineData("bob@/x")]
    [InlineData("/x")]
    [InlineData("a@b@c")]
    [InlineData("bob@.")]
    [InlineData("bob@..")]
    [InlineData("bob@example..com")]
    [InlineData("bob@.example.com")]
    [InlineData("bob@example.com..")]
    [InlineData("bob@exa mple.com")]
    [InlineData(" bob@example.com")]
    [InlineData("bob @example.com")]
    [InlineData("bo\u00A0b@example.com")]
    [InlineData("bo\u3000b@example.com")]
    [InlineData("bo\"b@example.com")]
    [InlineData("bo&b@example.com")]
    [InlineData("bo'b@example.com")]
    [InlineData("bo:b@example.com")]
    [InlineData("bo<b@example.com")]
    [InlineData("bo>b@example.com")]
    [InlineData("bo\u0000b@example.com")]
    [InlineData("bo\tb@example.com")]
    [InlineData("bo\u0085b@example.com")]
    [InlineData("bo\uFF20b@example.com")] // NFKC makes it an at-sign
    [InlineData("\u2100@example.com")] // and this one "a/c"
    [InlineData("bob@example.com/a\u0000")]
    [InlineData("bob@example.com/a\n")]
    [InlineData("bob@exam<ple.com")]
    [InlineData("bob@exam\u0000ple.com")]
    [InlineData("bob@xn--zzzzzzzz99999")]
    [InlineData("bob@[::1")]
    [InlineData("bob@[192.0.2.1]")]
    [InlineData("bob@[fe80::1%1]")]
    [InlineData("bob@[]")]
    [InlineData("bob@::1")]
    public void What_is_no_address_is_refused(string? text)
    {
        Assert.False(Jid.TryParse(text, out var jid));
        Assert.Null(jid);
        Assert.Throws<FormatException>(() => Jid.Parse(text!));
    }

    [Fact]
    public void Lone_surrogates_are_refused_in_every_part()
    {
        Assert.False(Jid.TryParse("b\uD800ob@example.com", out _));
        Assert.False(Jid.TryParse("bob@exam\uDC00ple.com", out _));
        Assert.False(Jid.TryParse("bob@example.com/x\uD83D", out _));
    }

    [Fact]
    public void A_part_has_at_most_1023_bytes_of_UTF8()
    {
        Assert.True(Jid.TryParse($"{Part1023}@{Part1023}/{Part1023}", out var longest));
        Assert.Equal((3 * 1023) + 2, longest.ToString().Length);
        Assert.False(Jid.TryParse($"{Part1023}a@example.com", out _));
        Assert.False(Jid.TryParse($"bob@{Part1023}a", out _));
        Assert.False(Jid.TryParse($"bob@example.com/{Part1023}a", out _));
        Assert.False(Jid.TryParse($"{new string('\u00FC', 512)}@example.com", out _));
        Assert.False(Jid.TryParse(new string('a', 1_000_000), out _));
    }

    [Fact]
    public void Equal_addresses_are_equal_values_and_the_resource_counts()
    {
        Assert.Equal(Jid.Parse("Bob@Example.COM./x"), Jid.Parse("bob@example.com/x"));
        Assert.Equal(Jid.Parse("Bob@Example.COM./x").GetHashCode(), Jid.Parse("bob@example.com/x").GetHashCode());
        Assert.NotEqual(Jid.Parse("bob@example.com/x"), Jid.Parse("bob@example.com/X"));
        Assert.Equal(Jid.Parse("bob@example.com/x").Bare, Jid.Parse("bob@example.com"));
        var bare = Jid.Parse("bob@example.com");
        Assert.Same(bare, bare.Bare);
    }

    [Fact]
    public void Every_character_either_is_refused_or_normalises_to_something_that_stays_as_it_is()
    {
        // The planes that have characters.
        foreach (var code in Enumerable.Range(0, 0x20000).Concat(Enumerable.Range(0xE0000, 0x200)).Where(Rune.IsValid))
        {
            foreach (
                var text in new[]
                {
                    $"a{new Rune(code)}b@example.com",
                    $"a@b{new Rune(code)}c.example",
                    $"a@example.com/b{new Rune(code)}c",
                }
            )
            {
                if (Jid.TryParse(text, out var jid))
                {
                    Assert.True(Jid.TryParse(jid.ToString(), out var again), code.ToString("X", CultureInfo.InvariantCulture));
                    Assert.Equal(jid, again);
                }
            }
        }
    }

    [Fact]
    public void Any_text_is_parsed_or_refused_without_an_exception_and_parsing_is_idempotent() =>
        Gen.String[Gen.OneOf(Gen.Char, Gen.Char["@/.:[]abAB\u0301\u0130\uD83D\uDCF1"]), 0, 30]
            .Sample(text =>
            {
                if (Jid.TryParse(text, out var jid))
                {
                    Assert.Equal(jid, Jid.Parse(jid.ToString()));
                }
            });
}
