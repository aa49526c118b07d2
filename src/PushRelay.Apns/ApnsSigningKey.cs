using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Apns;

/// <summary>
/// The key of a team, from the <c>.p8</c> file of Apple's developer site; signs the provider tokens. Clients that are given the same
/// object share one provider token. Safe for concurrent use.
/// </summary>
public sealed class ApnsSigningKey : IDisposable
{
    private const string P256 = "1.2.840.10045.3.1.7";

    private readonly ECDsa key;
    private readonly Lock signing = new();

    private ApnsSigningKey(string teamId, string keyId, ECDsa key)
    {
        TeamId = teamId;
        KeyId = keyId;
        this.key = key;
        OwnTokens = new MemoryTokenStore();
    }

    public string TeamId { get; }

    public string KeyId { get; }

    /// <summary>Where the token is kept when the nodes of a cluster share none.</summary>
    internal IApnsTokenStore OwnTokens { get; }

    /// <summary>Reads a <c>.p8</c>: PKCS#8 (or SEC 1) PEM, P-256, not encrypted.</summary>
    /// <exception cref="FormatException">It is not such a key; the message names what it is instead, and never shows its
    /// content.</exception>
    public static ApnsSigningKey FromPem(string teamId, string keyId, string pem)
    {
        CheckId(teamId, "team id");
        CheckId(keyId, "key id");
        ArgumentNullException.ThrowIfNull(pem);
        return new ApnsSigningKey(teamId, keyId, Read(pem));
    }

    /// <summary>The token that Apple takes for an hour from <paramref name="issuedAt"/> (cut to whole seconds) on.</summary>
    internal ApnsProviderToken Sign(DateTimeOffset issuedAt)
    {
        var seconds = issuedAt.ToUnixTimeSeconds();
        var head = Encode($$"""{"alg":"ES256","kid":"{{KeyId}}"}""");
        var claims = Encode($$"""{"iss":"{{TeamId}}","iat":{{seconds}}}""");
        var signed = $"{head}.{claims}";
        byte[] signature;
        lock (signing)
        {
            // RFC 7518 section 3.4: r and s side by side, 32 bytes each, not the DER that OpenSSL writes.
            signature = this.key.SignData(
                Encoding.ASCII.GetBytes(signed),
                HashAlgorithmName.SHA256,
                DSASignatureFormat.IeeeP1363FixedFieldConcatenation
            );
        }

        return new ApnsProviderToken($"{signed}.{Base64Url.EncodeToString(signature)}", DateTimeOffset.FromUnixTimeSeconds(seconds));

        static string Encode(string json) => Base64Url.EncodeToString(Encoding.ASCII.GetBytes(json));
    }

    public void Dispose() => this.key.Dispose();

    private static void CheckId(string id, string what)
    {
        if (string.IsNullOrEmpty(id) || id.Length > 64 || !id.All(char.IsAsciiLetterOrDigit))
        {
            throw new FormatException($"The {what} must be letters and digits, as Apple's developer site shows it (usually 10 of them).");
        }
    }

    private static ECDsa Read(string pem)
    {
        if (string.IsNullOrWhiteSpace(pem))
        {
            throw new FormatException("The key file is empty.");
        }

        if (FindKey(pem) is not var (label, der))
        {
            throw new FormatException(
                "The key file is not PEM: it has no '-----BEGIN PRIVATE KEY-----' block. Use the .p8 file as Apple gave it."
            );
        }

        if (label is not ("PRIVATE KEY" or "EC PRIVATE KEY"))
        {
            throw new FormatException(
                label switch
                {
                    "ENCRYPTED PRIVATE KEY" =>
                        "The key is encrypted with a password; Apple's .p8 files are not. Use the file as Apple gave it.",
                    "RSA PRIVATE KEY" => "The key is an RSA key; a P-256 (ES256) key is needed.",
                    "CERTIFICATE" => "The file holds a certificate, not a private key. Use the .p8 file of an APNs authentication key.",
                    "PUBLIC KEY" => "The file holds a public key, not a private key. Use the .p8 file of an APNs authentication key.",
                    _ => $"The file holds a PEM block of another kind ({label}), not a private key.",
                }
            );
        }

        var key = ECDsa.Create();
        try
        {
            if (label == "PRIVATE KEY")
            {
                key.ImportPkcs8PrivateKey(der, out _);
            }
            else
            {
                key.ImportECPrivateKey(der, out _);
            }

            CheckCurve(key);
            return key;
        }
        catch (CryptographicException)
        {
            key.Dispose();
            throw new FormatException(
                IsRsa(der)
                    ? "The key is an RSA key; a P-256 (ES256) key is needed."
                    : "The private key cannot be read: the file is damaged, or the key is of a kind other than P-256 (ES256)."
            );
        }
        catch (FormatException)
        {
            key.Dispose();
            throw;
        }
    }

    /// <summary>The first block with a private key; where there is none, the first block of any kind.</summary>
    private static (string Label, byte[] Der)? FindKey(string pem)
    {
        (string, byte[])? first = null;
        var rest = pem.AsSpan();
        while (PemEncoding.TryFind(rest, out var fields))
        {
            var label = rest[fields.Label].ToString();
            var block = (label, Convert.FromBase64String(rest[fields.Base64Data].ToString()));
            if (label.EndsWith("PRIVATE KEY", StringComparison.Ordinal))
            {
                return block;
            }

            first ??= block;
            rest = rest[fields.Location.End..];
        }

        return first;
    }

    private static void CheckCurve(ECDsa key)
    {
        var curve = key.ExportParameters(includePrivateParameters: false).Curve;
        if (!curve.IsNamed || curve.Oid.Value != P256)
        {
            var name = curve.IsNamed ? curve.Oid.FriendlyName ?? curve.Oid.Value : "a curve of its own";
            throw new FormatException($"The key is on the curve {Named(name)}; a P-256 (ES256) key is needed.");
        }

        static string? Named(string? name) =>
            name switch
            {
                "ECDSA_P384" or "nistP384" => "P-384",
                "ECDSA_P521" or "nistP521" => "P-521",
                _ => name,
            };
    }

    private static bool IsRsa(byte[] der)
    {
        using var rsa = RSA.Create();
        try
        {
            rsa.ImportPkcs8PrivateKey(der, out _);
            return true;
        }
        catch (CryptographicException)
        {
            return false;
        }
    }
}
