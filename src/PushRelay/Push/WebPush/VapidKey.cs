using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Push.WebPush;

/// <summary>
/// Shows push services who sends (VAPID, RFC 8292): one key pair per app, kept for life, for a subscription is bound to it. Thread-safe.
/// </summary>
internal sealed class VapidKey : IDisposable
{
    // push services allow a day; our clock may be wrong by half of it either way
    private static readonly TimeSpan Lifetime = TimeSpan.FromHours(12);

    // Apple asks not to renew more often than hourly
    private static readonly TimeSpan RenewAfter = TimeSpan.FromHours(6);

    private const int OriginsMax = 1000;

    private readonly ECDsa key;
    private readonly string subject;
    private readonly ConcurrentDictionary<string, (string Header, DateTimeOffset RenewAt)> headers = new(StringComparer.Ordinal);

    private VapidKey(ECDsa key, string subject)
    {
        this.key = key;
        this.subject = subject;
        var q = key.ExportParameters(includePrivateParameters: false).Q;
        PublicKey = Base64Url.EncodeToString([0x04, .. q.X!, .. q.Y!]);
    }

    /// <summary>As a browser wants it for <c>applicationServerKey</c>: the point, 65 bytes, in base64url.</summary>
    public string PublicKey { get; }

    /// <param name="pem">A private key on the curve P-256, PKCS #8 or SEC 1.</param>
    /// <param name="subject">Who answers for the messages: see <see cref="IsSubject"/>.</param>
    /// <exception cref="FormatException">It is no such key; the message says why, and nothing of the key.</exception>
    public static VapidKey FromPem(string pem, string subject)
    {
        var key = ECDsa.Create();
        try
        {
            key.ImportFromPem(pem);
            var parameters = key.ExportParameters(includePrivateParameters: true);
            if (parameters.Curve.Oid.Value != ECCurve.NamedCurves.nistP256.Oid.Value)
            {
                throw new FormatException("the key is not on the curve P-256.");
            }

            CryptographicOperations.ZeroMemory(parameters.D);
            return new VapidKey(key, subject);
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException or FormatException)
        {
            key.Dispose();
            throw exception as FormatException
                ?? new FormatException("there is no private key in it that can be read (PEM, P-256, no password).", exception);
        }
    }

    /// <summary>A new key, as the settings take it.</summary>
    public static string CreatePem()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return key.ExportPkcs8PrivateKeyPem() + "\n";
    }

    /// <summary>
    /// Whether every push service takes it: <c>mailto:</c> and one address, or an https URL; no space, no angle brackets (Apple answers
    /// those with 403 BadJwtToken).
    /// </summary>
    public static bool IsSubject(string text)
    {
        if (text.Length > 255 || text.Any(c => c <= ' ' || c > '~' || c is '<' or '>' or '"' or '\\'))
        {
            return false;
        }

        const string mailto = "mailto:";
        if (!text.StartsWith(mailto, StringComparison.Ordinal))
        {
            return Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme == Uri.UriSchemeHttps && url.UserInfo.Length == 0;
        }

        var address = text[mailto.Length..].Split('@');
        return address is [{ Length: > 0 }, { Length: > 0 }] && !address[0].Contains(':', StringComparison.Ordinal);
    }

    /// <summary>The value of <c>Authorization</c> for a push service.</summary>
    /// <param name="origin">Scheme, host and, where it is not the usual one, port; nothing after.</param>
    /// <param name="now">By the clock that everything else goes by.</param>
    public string Authorization(string origin, DateTimeOffset now)
    {
        if (headers.TryGetValue(origin, out var kept) && now < kept.RenewAt && now >= kept.RenewAt - Lifetime)
        {
            return kept.Header;
        }

        // endpoints are chosen by whoever registers: their number is not ours to know
        if (headers.Count >= OriginsMax)
        {
            headers.Clear();
        }

        var header = $"vapid t={Sign(origin, now)}, k={PublicKey}";
        headers[origin] = (header, now + RenewAfter);
        return header;
    }

    public void Dispose() => key.Dispose();

    private string Sign(string origin, DateTimeOffset now)
    {
        var expires = (now + Lifetime).ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        // neither an origin nor a subject has a letter that JSON would escape
        var claims = $$"""{"aud":"{{origin}}","exp":{{expires}},"sub":"{{subject}}"}""";
        var signed =
            $"{Base64Url.EncodeToString("""{"typ":"JWT","alg":"ES256"}"""u8)}.{Base64Url.EncodeToString(Encoding.UTF8.GetBytes(claims))}";
        byte[] signature;
        lock (key)
        {
            signature = key.SignData(Encoding.ASCII.GetBytes(signed), HashAlgorithmName.SHA256);
        }

        return $"{signed}.{Base64Url.EncodeToString(signature)}";
    }
}
