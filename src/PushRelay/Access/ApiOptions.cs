using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Limits;
using PushRelay.Settings;

namespace PushRelay.Access;

/// <summary>Settings <c>Api</c>: who may use the REST interface.</summary>
internal sealed class ApiOptions : ISettings
{
    public List<OperatorKey> OperatorKeys { get; set; } = [];

    public AccountTokenOptions AccountTokens { get; set; } = new();

    public JwtOptions Jwt { get; set; } = new();

    [Description("where apps reach the REST interface, if not at the first of `Urls`; the command `pushrelay:token` tells them")]
    public string? PublicUrl { get; set; }

    [Description("origins whose web pages may call; none without")]
    public List<string> CorsOrigins { get; set; } = [];

    [Description(
        "addresses or networks whose `X-Forwarded-For` is believed. **Behind a reverse proxy set it**, or all callers share the limits of "
            + "one address"
    )]
    public List<string> TrustedProxies { get; set; } = [];

    public RateLimitOptions RateLimits { get; set; } = new();

    public void Check(SettingsCheck check)
    {
        foreach (var (index, key) in OperatorKeys.Index())
        {
            if (OperatorKeys.FindIndex(other => other.Name == key.Name) is var first && first < index)
            {
                check.Report(
                    SettingNode.Combine(nameof(OperatorKeys), $"{index}:{nameof(OperatorKey.Name)}"),
                    $"is '{key.Name}', as that of Api:OperatorKeys:{first}; it must be another."
                );
            }
        }

        if (!string.IsNullOrEmpty(PublicUrl) && !IsOrigin(PublicUrl, mayHavePath: true))
        {
            check.Wrong(nameof(PublicUrl), PublicUrl, "an address such as https://push.example.com");
        }

        foreach (var (index, origin) in CorsOrigins.Index().Where(entry => !IsOrigin(entry.Item, mayHavePath: false)))
        {
            check.Wrong(SettingNode.Combine(nameof(CorsOrigins), $"{index}"), origin, "an origin such as https://app.example.com");
        }

        foreach (var (index, proxy) in TrustedProxies.Index())
        {
            if (!IPAddress.TryParse(proxy, out _) && !IPNetwork.TryParse(proxy, out _))
            {
                check.Wrong(SettingNode.Combine(nameof(TrustedProxies), $"{index}"), proxy, "an address or a network such as 10.0.0.0/8");
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
    [Description("how long an account token is valid")]
    [Range(typeof(TimeSpan), "00:01:00", "3650.00:00:00")]
    public TimeSpan Lifetime { get; set; } = TimeSpan.FromDays(90);

    [Description("account tokens of one account; a further one replaces the oldest")]
    [Range(1, 1000)]
    public int Max { get; set; } = 20;
}

/// <summary>What an operator key may do.</summary>
internal enum OperatorRole
{
    /// <summary>Everything.</summary>
    Operator,

    /// <summary>Reads everything, changes nothing.</summary>
    Viewer,
}

/// <summary>Settings <c>Api:RateLimits</c>.</summary>
internal sealed class RateLimitOptions
{
    internal const int Burst = 10;
    private const int Most = 1_000_000;

    [Description(
        "of an account; ten times as many at once. Its requests over XMPP have a limit of the same size. Here and below: 0 is no limit, "
            + "and operator keys have none"
    )]
    [Range(0, Most)]
    public int RequestsPerSecond { get; set; } = 5;

    [Description("of an account; three times as many at once")]
    [Range(0, Most)]
    public int RegistrationsPerMinute { get; set; } = 10;

    [Description("account tokens that an account may ask for")]
    [Range(0, Most)]
    public int TokensPerMinute { get; set; } = 5;

    [Description("test alerts to one device")]
    [Range(0, Most)]
    public int TestsPerHour { get; set; } = 6;

    [Description("wrong credentials from one address (a /64 of IPv6) that are looked at; a right one is always taken")]
    [Range(0, Most)]
    public int FailuresPerMinute { get; set; } = 30;

    [Description("requests without a right credential from one address; ten times as many at once")]
    [Range(0, Most)]
    public int AnonymousPerSecond { get; set; } = 20;

    /// <summary>A new limit of <see cref="RequestsPerSecond"/>.</summary>
    internal RateLimit Requests(TimeProvider clock) => new(RequestsPerSecond, TimeSpan.FromSeconds(1), Burst * RequestsPerSecond, clock);
}

/// <summary>One key of the operator: acts on any account of the configured servers.</summary>
internal sealed class OperatorKey : ISettings
{
    private const int KeyCharsMin = 16;
    private const string MakeOne = "make one with: openssl rand -hex 32";
    private byte[]? hash;

    [Description("a name of its own, which log and audit show instead of the key")]
    public string Name { get; set; } = "";

    [Secret]
    [Description("the key, at least 16 characters")]
    public string? Key { get; set; }

    [Secret]
    [Description("instead of `Key`: its SHA-256, 64 hex digits: `printf %s \"$KEY\" | sha256sum`")]
    public string? KeySha256 { get; set; }

    [Description("what the key may do; `Viewer`: read everything, change nothing")]
    public OperatorRole Role { get; set; } = OperatorRole.Operator;

    /// <summary>32 bytes, to compare in constant time.</summary>
    public byte[] Hash() => hash ??= string.IsNullOrEmpty(KeySha256) ? Hash(Key!) : Convert.FromHexString(KeySha256);

    public static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    public void Check(SettingsCheck check)
    {
        if (Name.Length == 0)
        {
            check.Report(nameof(Name), "is missing; give the key a name, it stands in the log.");
        }

        if (string.IsNullOrEmpty(Key) == string.IsNullOrEmpty(KeySha256))
        {
            check.Report("", $"must have one of Key, KeyFile or KeySha256; {MakeOne}");
        }
        else if (Key is { Length: > 0 and < KeyCharsMin })
        {
            check.Report(nameof(Key), $"has {Key.Length} characters; it must have at least {KeyCharsMin}; {MakeOne}");
        }
        else if (Key?.StartsWith(Access.AccountTokens.Prefix, StringComparison.Ordinal) == true)
        {
            check.Report(nameof(Key), $"begins as account tokens do; {MakeOne}");
        }
        else if (!string.IsNullOrEmpty(KeySha256) && !(KeySha256.Length == 64 && KeySha256.All(char.IsAsciiHexDigit)))
        {
            check.Report(nameof(KeySha256), "must be 64 hex digits, as from: printf %s \"$KEY\" | sha256sum");
        }
    }
}
