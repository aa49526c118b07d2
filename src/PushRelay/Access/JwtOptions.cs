using System.Security.Cryptography;
using System.Text;
using Microsoft.IdentityModel.Tokens;
using PushRelay.Settings;

namespace PushRelay.Access;

/// <summary>Settings <c>Api:Jwt</c>: tokens of the operator's identity provider. Which algorithms count follows from the key
/// alone.</summary>
internal sealed class JwtOptions
{
    private const int SecretBytesMin = 32;

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

    /// <summary>The provider's issuer: its keys are found by OpenID Connect discovery.</summary>
    public string? Authority { get; set; }

    /// <summary>Instead of <see cref="Authority"/>: a PEM public key, or a secret of at least 32 bytes.</summary>
    public string? SigningKey { get; set; }

    /// <summary>What <c>iss</c> must be; with <see cref="Authority"/> the provider itself says it.</summary>
    public string? Issuer { get; set; }

    /// <summary>What <c>aud</c> must hold.</summary>
    public string Audience { get; set; } = "pushrelay";

    /// <summary>The claim with the account's bare JID.</summary>
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

    /// <summary>The fixed key; null where the provider is asked.</summary>
    public SecurityKey? OpenKey()
    {
        if (string.IsNullOrEmpty(SigningKey))
        {
            return null;
        }

        if (!SigningKey.Contains("-----BEGIN", StringComparison.Ordinal))
        {
            var secret = Encoding.UTF8.GetBytes(SigningKey);
            return secret.Length >= SecretBytesMin
                ? new SymmetricSecurityKey(secret)
                : throw new SettingsException(
                    $"Api:Jwt:SigningKey has {secret.Length} bytes; a secret must have at least {SecretBytesMin}. Make one with: "
                        + $"openssl rand -hex 32"
                );
        }

        if (SigningKey.Contains("PRIVATE KEY", StringComparison.Ordinal))
        {
            throw new SettingsException(
                "Api:Jwt:SigningKey is a private key, which only the identity provider may have; give its public key (-----BEGIN "
                    + "PUBLIC KEY-----)."
            );
        }

        return (SecurityKey?)OpenRsa(SigningKey)
            ?? OpenEcdsa(SigningKey)
            ?? throw new SettingsException("Api:Jwt:SigningKey is no RSA or EC public key in PEM (-----BEGIN PUBLIC KEY-----).");
    }

    public void Check()
    {
        if (!string.IsNullOrEmpty(Authority) && !string.IsNullOrEmpty(SigningKey))
        {
            throw new SettingsException("Api:Jwt has both Authority and SigningKey; give one.");
        }

        if (
            !string.IsNullOrEmpty(Authority)
            && !(
                Uri.TryCreate(Authority, UriKind.Absolute, out var uri)
                && (uri.Scheme == "https" || (uri.Scheme == "http" && uri.IsLoopback))
            )
        )
        {
            throw new SettingsException(
                $"Api:Jwt:Authority is '{Authority}'; it must be the issuer's https address, such as https://id.example.com/realms/chat."
            );
        }

        if (IsOn && (Audience.Length == 0 || AccountClaim.Length == 0))
        {
            throw new SettingsException(
                "Api:Jwt:Audience and Api:Jwt:AccountClaim must not be empty: a token made for something else would open the relay."
            );
        }

        OpenKey();
    }

    private static RsaSecurityKey? OpenRsa(string pem)
    {
        var rsa = RSA.Create();
        try
        {
            rsa.ImportFromPem(pem);
            return rsa.KeySize >= 2048
                ? new RsaSecurityKey(rsa)
                : throw new SettingsException($"Api:Jwt:SigningKey is an RSA key of {rsa.KeySize} bits; it must have at least 2048.");
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
