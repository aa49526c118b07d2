using System.ComponentModel;
using System.Security.Cryptography;
using System.Text;
using Microsoft.IdentityModel.Tokens;
using PushRelay.Settings;

namespace PushRelay.Access;

/// <summary>Settings <c>Api:Jwt</c>: tokens of the operator's identity provider. Which algorithms count follows from the key
/// alone.</summary>
internal sealed class JwtOptions : ISettings
{
    private const int SecretBytesMin = 32;
    private const int RsaBitsMin = 2048;

    private static readonly string[] Rsa =
    [
        SecurityAlgorithms.RsaSha256,
        SecurityAlgorithms.RsaSha384,
        SecurityAlgorithms.RsaSha512,
        SecurityAlgorithms.RsaSsaPssSha256,
        SecurityAlgorithms.RsaSsaPssSha384,
        SecurityAlgorithms.RsaSsaPssSha512,
    ];

    private static readonly string[] Ecdsa =
    [
        SecurityAlgorithms.EcdsaSha256,
        SecurityAlgorithms.EcdsaSha384,
        SecurityAlgorithms.EcdsaSha512,
    ];
    private static readonly string[] Hmac = [SecurityAlgorithms.HmacSha256, SecurityAlgorithms.HmacSha384, SecurityAlgorithms.HmacSha512];

    [Description("the identity provider's issuer, https: its keys are found by OpenID Connect discovery")]
    public string? Authority { get; set; }

    [Secret]
    [Description("instead of `Authority`: a PEM public key (RSA or EC), or a shared secret of at least 32 bytes")]
    public string? SigningKey { get; set; }

    [Description("what `iss` must be; with `Authority` the provider says it")]
    public string? Issuer { get; set; }

    [Description("what `aud` must contain")]
    public string Audience { get; set; } = "pushrelay";

    [Description("the claim with the account's bare JID")]
    public string AccountClaim { get; set; } = "sub";

    public bool IsOn => !string.IsNullOrEmpty(Authority) || !string.IsNullOrEmpty(SigningKey);

    /// <summary>With a public key from discovery only what needs the private one: never a shared secret.</summary>
    public IReadOnlyList<string> Algorithms =>
        OpenKey() switch
        {
            null => [.. Rsa, .. Ecdsa],
            RsaSecurityKey => Rsa,
            ECDsaSecurityKey => Ecdsa,
            _ => Hmac,
        };

    /// <summary>The fixed key; null where the provider is asked. Of options that passed <see cref="Check"/>.</summary>
    public SecurityKey? OpenKey() => string.IsNullOrEmpty(SigningKey) ? null : Open(SigningKey, out _);

    public void Check(SettingsCheck check)
    {
        if (!string.IsNullOrEmpty(Authority) && !string.IsNullOrEmpty(SigningKey))
        {
            check.Report("", "has both Authority and SigningKey; give one.");
        }

        if (
            !string.IsNullOrEmpty(Authority)
            && !(
                Uri.TryCreate(Authority, UriKind.Absolute, out var uri)
                && (uri.Scheme == "https" || (uri.Scheme == "http" && uri.IsLoopback))
            )
        )
        {
            check.Wrong(nameof(Authority), Authority, "the issuer's https address, such as https://id.example.com/realms/chat");
        }

        foreach (var (name, value) in new[] { (nameof(Audience), Audience), (nameof(AccountClaim), AccountClaim) })
        {
            if (IsOn && value.Length == 0)
            {
                check.Report(name, "must not be empty: a token made for something else would open the relay.");
            }
        }

        if (!string.IsNullOrEmpty(SigningKey) && Open(SigningKey, out var problem) is null)
        {
            check.Report(nameof(SigningKey), problem);
        }
    }

    /// <summary>Null: it cannot be used, with the reason and the cure.</summary>
    private static SecurityKey? Open(string text, out string problem)
    {
        if (!text.Contains("-----BEGIN", StringComparison.Ordinal))
        {
            var secret = Encoding.UTF8.GetBytes(text);
            problem = $"has {secret.Length} bytes; a secret must have at least {SecretBytesMin}. Make one with: openssl rand -hex 32";
            return secret.Length >= SecretBytesMin ? new SymmetricSecurityKey(secret) : null;
        }

        if (text.Contains("PRIVATE KEY", StringComparison.Ordinal))
        {
            problem = "is a private key, which only the identity provider may have; give its public key (-----BEGIN PUBLIC KEY-----).";
            return null;
        }

        if (OpenRsa(text) is { } rsa)
        {
            problem = $"is an RSA key of {rsa.KeySize} bits; it must have at least {RsaBitsMin}.";
            return rsa.KeySize >= RsaBitsMin ? rsa : null;
        }

        problem = "is no RSA or EC public key in PEM (-----BEGIN PUBLIC KEY-----).";
        return OpenEcdsa(text);
    }

    private static RsaSecurityKey? OpenRsa(string pem)
    {
        var rsa = RSA.Create();
        try
        {
            rsa.ImportFromPem(pem);
            return new RsaSecurityKey(rsa);
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException)
        {
            rsa.Dispose();
            return null;
        }
    }

    private static ECDsaSecurityKey? OpenEcdsa(string pem)
    {
        var ecdsa = ECDsa.Create();
        try
        {
            ecdsa.ImportFromPem(pem);
            return new ECDsaSecurityKey(ecdsa);
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException)
        {
            ecdsa.Dispose();
            return null;
        }
    }
}
