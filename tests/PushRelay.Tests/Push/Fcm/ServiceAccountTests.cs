using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Push.Fcm;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push.Fcm;

public sealed class ServiceAccountTests : IDisposable
{
    private static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    private readonly RSA key = RSA.Create(2048);

    public void Dispose() => key.Dispose();

    [Fact]
    public void An_assertion_says_what_Google_asks_for()
    {
        using var account = ServiceAccount.FromJson(Credentials());

        var parts = account.Assertion(Now).Split('.');
        var (head, claims) = (Json(parts[0]), Json(parts[1]));

        Assert.Equal(("RS256", "JWT", "key-1"), ((string?)head["alg"], (string?)head["typ"], (string?)head["kid"]));
        Assert.Equal("push@p.iam.gserviceaccount.com", (string?)claims["iss"]);
        Assert.Equal("https://www.googleapis.com/auth/firebase.messaging", (string?)claims["scope"]);
        Assert.Equal("https://oauth2.googleapis.com/token", (string?)claims["aud"]);
        Assert.Equal(Now.AddMinutes(-1).ToUnixTimeSeconds(), (long?)claims["iat"]);
        Assert.Equal(3600, (long?)claims["exp"] - (long?)claims["iat"]);
        Assert.True(
            key.VerifyData(
                Encoding.ASCII.GetBytes($"{parts[0]}.{parts[1]}"),
                Base64Url.DecodeFromChars(parts[2]),
                HashAlgorithmName.SHA256,
                RSASignaturePadding.Pkcs1
            )
        );
    }

    [Theory]
    [InlineData("type", "authorized_user", "service_account")]
    [InlineData("type", null, "type")]
    [InlineData("project_id", "a/../b", "project_id")]
    [InlineData("project_id", null, "project_id")]
    [InlineData("private_key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "private_key")]
    [InlineData("private_key", "secret", "private_key")]
    [InlineData("client_email", null, "client_email")]
    [InlineData("private_key_id", null, "private_key_id")]
    [InlineData("token_uri", "http://oauth2.googleapis.com/token", "token_uri")]
    [InlineData("token_uri", "https://user@oauth2.googleapis.com/token", "token_uri")]
    [InlineData("token_uri", "nonsense", "token_uri")]
    public void A_key_file_that_cannot_be_used_says_which_member_is_wrong_and_nothing_of_the_key(string member, string? value, string says)
    {
        var json = JsonNode.Parse(Credentials())!.AsObject();
        json[member] = value;

        var refusal = Assert.Throws<FormatException>(() => ServiceAccount.FromJson(json.ToJsonString()));

        Assert.Contains(says, refusal.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", refusal.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("PRIVATE KEY", refusal.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("not JSON")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{\"type\":")]
    public void What_is_no_key_file_is_refused(string text) => Assert.Throws<FormatException>(() => ServiceAccount.FromJson(text));

    [Fact]
    public void A_public_key_signs_nothing() =>
        Assert.Throws<FormatException>(() =>
            ServiceAccount.FromJson(FcmSimulator.Credentials("p", "a@b", "key-1", key.ExportSubjectPublicKeyInfoPem()))
        );

    private string Credentials() =>
        FcmSimulator.Credentials("p", "push@p.iam.gserviceaccount.com", "key-1", key.ExportPkcs8PrivateKeyPem());

    private static JsonObject Json(string part) => JsonNode.Parse(Base64Url.DecodeFromChars(part))!.AsObject();
}
