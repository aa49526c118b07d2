using System.Globalization;
using System.Security.Cryptography;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push.WebPush;

public sealed class VapidKeyTests
{
    private const string Subject = "mailto:ops@example.com";
    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    [Fact]
    public void The_check_of_the_tests_takes_the_example_of_RFC_8292()
    {
        // section 2.4
        const string header =
            "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6"
            + "Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, "
            + "k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

        var shown = VapidCheck.Read(header, "https://push.example.net", DateTimeOffset.FromUnixTimeSeconds(1453500000));

        Assert.Null(shown.Fault);
        Assert.Equal("mailto:push@example.com", shown.Subject);
        Assert.NotNull(VapidCheck.Read(header, "https://push.example.net:8443", DateTimeOffset.FromUnixTimeSeconds(1453500000)).Fault);
        Assert.NotNull(VapidCheck.Read(header, "https://push.example.net", DateTimeOffset.FromUnixTimeSeconds(1453523769)).Fault);
        Assert.NotNull(VapidCheck.Read(header, "https://push.example.net", DateTimeOffset.FromUnixTimeSeconds(1453400000)).Fault);
        Assert.NotNull(
            VapidCheck
                .Read(
                    header.Replace(".i3CY", ".i3CX", StringComparison.Ordinal),
                    "https://push.example.net",
                    DateTimeOffset.FromUnixTimeSeconds(1453500000)
                )
                .Fault
        );
    }

    [Theory]
    [InlineData("https://web.push.apple.com")]
    [InlineData("https://ntfy.example.org:8443")]
    public void It_is_signed_for_the_origin_with_its_port(string origin)
    {
        using var key = VapidKey.FromPem(VapidKey.CreatePem(), Subject);

        var shown = VapidCheck.Read(key.Authorization(origin, Now), origin, Now);

        Assert.Null(shown.Fault);
        Assert.Equal((key.PublicKey, Subject), (shown.PublicKey, shown.Subject));
    }

    [Fact]
    public void It_is_kept_for_six_hours_and_valid_for_twelve()
    {
        using var key = VapidKey.FromPem(VapidKey.CreatePem(), Subject);
        var first = key.Authorization("https://a.example", Now);

        Assert.Equal(first, key.Authorization("https://a.example", Now.AddHours(6).AddSeconds(-1)));
        Assert.NotEqual(first, key.Authorization("https://b.example", Now));
        Assert.NotEqual(first, key.Authorization("https://a.example", Now.AddHours(6)));
        // the clock was set back: what is kept would be valid for longer than push services allow
        Assert.NotEqual(first, key.Authorization("https://a.example", Now.AddHours(-13)));
        Assert.Null(VapidCheck.Read(first, "https://a.example", Now.AddHours(12).AddSeconds(-1)).Fault);
    }

    [Fact]
    public void Both_forms_of_a_private_key_are_read()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var pkcs8 = VapidKey.FromPem(key.ExportPkcs8PrivateKeyPem(), Subject);
        using var sec1 = VapidKey.FromPem(key.ExportECPrivateKeyPem(), Subject);

        Assert.Equal(pkcs8.PublicKey, sec1.PublicKey);
        Assert.Equal(87, pkcs8.PublicKey.Length);
        Assert.StartsWith("B", pkcs8.PublicKey, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_no_P256_private_key_is_refused_without_showing_it()
    {
        using var rsa = RSA.Create(2048);
        using var other = ECDsa.Create(ECCurve.NamedCurves.nistP384);
        using var own = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        foreach (
            var pem in (string[])
                [
                    "",
                    "secret nonsense",
                    rsa.ExportPkcs8PrivateKeyPem(),
                    other.ExportPkcs8PrivateKeyPem(),
                    own.ExportSubjectPublicKeyInfoPem(),
                ]
        )
        {
            var refusal = Assert.Throws<FormatException>(() => VapidKey.FromPem(pem, Subject));
            Assert.DoesNotContain("secret", refusal.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("mailto:ops@example.com", true)]
    [InlineData("https://example.com/contact", true)]
    [InlineData("mailto: ops@example.com", false)]
    [InlineData("mailto:<ops@example.com>", false)]
    [InlineData("mailto:mailto:ops@example.com", false)]
    [InlineData("mailto:ops", false)]
    [InlineData("mailto:a@b@c", false)]
    [InlineData("ops@example.com", false)]
    [InlineData("http://example.com", false)]
    [InlineData("https://example.com/\"", false)]
    [InlineData("", false)]
    public void A_subject_is_one_that_every_push_service_takes(string subject, bool takes) =>
        Assert.Equal(takes, VapidKey.IsSubject(subject));
}
