using System.Net;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Settings;

namespace PushRelay.Access;

/// <summary>Settings <c>Api</c>: who may use the REST interface.</summary>
internal sealed class ApiOptions
{
    public List<OperatorKey> OperatorKeys { get; set; } = [];

    public JwtOptions Jwt { get; set; } = new();

    public AccountTokenOptions AccountTokens { get; set; } = new();

    public RateLimitOptions RateLimits { get; set; } = new();

    /// <summary>Where apps reach the REST interface; sent to them with an account token.</summary>
    public string? PublicUrl { get; set; }

    /// <summary>Origins whose pages may call; empty: none.</summary>
    public List<string> CorsOrigins { get; set; } = [];

    /// <summary>Reverse proxies whose <c>X-Forwarded-For</c> is believed: addresses or networks.</summary>
    public List<string> TrustedProxies { get; set; } = [];

    public void Check()
    {
        for (var i = 0; i < OperatorKeys.Count; i++)
        {
            if (OperatorKeys.FindIndex(key => key.Name == OperatorKeys[i].Name) is var first && first < i)
            {
                throw new SettingsException(
                    $"Api:OperatorKeys:{i}:Name is '{OperatorKeys[i].Name}', as that of Api:OperatorKeys:{first}; it must be another, "
                        + $"the log tells keys apart by it."
                );
            }

            OperatorKeys[i].Check($"Api:OperatorKeys:{i}");
        }

        Jwt.Check();
        SettingsReader.Require("Api:AccountTokens:Lifetime", AccountTokens.Lifetime, TimeSpan.FromMinutes(1), TimeSpan.FromDays(3650));
        SettingsReader.Require("Api:AccountTokens:Max", AccountTokens.Max, 1, 1000);
        foreach (var limit in typeof(RateLimitOptions).GetProperties())
        {
            SettingsReader.Require($"Api:RateLimits:{limit.Name}", (int)limit.GetValue(RateLimits)!, 0, 1_000_000);
        }

        if (!string.IsNullOrEmpty(PublicUrl) && !IsOrigin(PublicUrl, mayHavePath: true))
        {
            throw new SettingsException($"Api:PublicUrl is '{PublicUrl}'; it must be an address such as https://push.example.com.");
        }

        for (var i = 0; i < CorsOrigins.Count; i++)
        {
            if (!IsOrigin(CorsOrigins[i], mayHavePath: false))
            {
                throw new SettingsException(
                    $"Api:CorsOrigins:{i} is '{CorsOrigins[i]}'; it must be an origin such as https://app.example.com."
                );
            }
        }

        for (var i = 0; i < TrustedProxies.Count; i++)
        {
            if (!IPAddress.TryParse(TrustedProxies[i], out _) && !IPNetwork.TryParse(TrustedProxies[i], out _))
            {
                throw new SettingsException(
                    $"Api:TrustedProxies:{i} is '{TrustedProxies[i]}'; it must be an address or a network such as 10.0.0.0/8."
                );
            }
        }
    }

    private static bool IsOrigin(string text, bool mayHavePath) =>
        Uri.TryCreate(text, UriKind.Absolute, out var uri)
        && uri.Scheme is "https" or "http"
        && uri is { UserInfo: "", Query: "", Fragment: "" }
        && (mayHavePath || text == uri.GetLeftPart(UriPartial.Authority));
}

/// <summary>Settings <c>Api:AccountTokens</c>.</summary>
internal sealed class AccountTokenOptions
{
    /// <summary>1 minute to 10 years.</summary>
    public TimeSpan Lifetime { get; set; } = TimeSpan.FromDays(90);

    /// <summary>Of one account; one more ends the oldest.</summary>
    public int Max { get; set; } = 20;
}

/// <summary>One key of the operator: acts on any account of the configured servers.</summary>
internal sealed class OperatorKey
{
    private const int KeyCharsMin = 16;
    private byte[]? hash;

    /// <summary>Shown in logs instead of the key.</summary>
    public string Name { get; set; } = "";

    public string? Key { get; set; }

    /// <summary>The key's SHA-256, hex, for those who do not want the key in a file.</summary>
    public string? KeySha256 { get; set; }

    /// <summary>32 bytes, to compare in constant time.</summary>
    public byte[] Hash() => hash ??= string.IsNullOrEmpty(KeySha256) ? Hash(Key!) : Convert.FromHexString(KeySha256);

    public static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    public void Check(string setting)
    {
        if (Name.Length == 0)
        {
            throw new SettingsException($"{setting}:Name is missing; give the key a name, it stands in the log.");
        }

        if (string.IsNullOrEmpty(Key) == string.IsNullOrEmpty(KeySha256))
        {
            throw new SettingsException($"{setting} must have one of Key, KeyFile or KeySha256; make a key with: openssl rand -hex 32");
        }

        if (Key is { Length: > 0 and < KeyCharsMin })
        {
            throw new SettingsException(
                $"{setting}:Key has {Key.Length} characters; it must have at least {KeyCharsMin}. Make one with: openssl rand -hex 32"
            );
        }

        if (Key?.StartsWith(Access.AccountTokens.Prefix, StringComparison.Ordinal) == true)
        {
            throw new SettingsException($"{setting}:Key begins as account tokens do. Make one with: openssl rand -hex 32");
        }

        if (!string.IsNullOrEmpty(KeySha256) && !(KeySha256.Length == 64 && KeySha256.All(char.IsAsciiHexDigit)))
        {
            throw new SettingsException($"{setting}:KeySha256 must be 64 hex digits, as from: printf %s \"$KEY\" | sha256sum");
        }
    }
}
