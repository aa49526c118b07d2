using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PushRelay.Push.WebPush;

/// <summary>
/// The URL of a subscription. Whoever registers chooses it, so that it says nothing of what is behind it: only https, a name, and ports
/// that no system service listens on.
/// </summary>
internal sealed class PushEndpoint
{
    public const int CharsMax = 2048;

    /// <summary>What a text that <see cref="TryRead"/> refuses must be.</summary>
    public const string Must =
        "must be an https URL of at most 2048 characters with a host name (no address), port 443 or from 1024 on, without user or fragment";

    private const int HttpsPort = 443;
    private const int UserPortMin = 1024;

    private PushEndpoint(Uri url)
    {
        Url = url;
        var port = url.Port == HttpsPort ? "" : ":" + url.Port.ToString(CultureInfo.InvariantCulture);
        Host = url.IdnHost + port;
    }

    public Uri Url { get; }

    /// <summary>The push service: name in its ASCII form and, where it is not 443, port.</summary>
    public string Host { get; }

    /// <summary>As VAPID's <c>aud</c>: RFC 8292 section 2, RFC 6454 section 6.2.</summary>
    public string Origin => $"https://{Host}";

    public static bool TryRead(string? text, [NotNullWhen(true)] out PushEndpoint? endpoint)
    {
        endpoint = null;
        if (
            text is null
            || text.Length > CharsMax
            // what a parser would repair: white space, control characters, backslashes, what is no URL letter (RFC 3986 section 2)
            || text.Any(c => c is <= ' ' or > '~' or '\\' or '#')
            || !Uri.TryCreate(text, UriKind.Absolute, out var url)
            || url.Scheme != Uri.UriSchemeHttps
            || url.UserInfo.Length > 0
            || text.AsSpan(text.IndexOf("//", StringComparison.Ordinal) + 2)
                .ToString()
                .Split('/', '?')[0]
                .Contains('@', StringComparison.Ordinal)
            || url.HostNameType != UriHostNameType.Dns
            || !IsName(url.IdnHost)
            || !IsPort(url.Port)
        )
        {
            return false;
        }

        endpoint = new PushEndpoint(url);
        return true;
    }

    public static bool IsPort(int port) => port is HttpsPort or >= UserPortMin;

    /// <summary>
    /// Whether one of the hosts of a list is this one: exactly, or <c>*.suffix</c> for any name below it. The parsed name is compared,
    /// never the URL's text. An empty list allows every host.
    /// </summary>
    public bool IsAmong(IReadOnlyCollection<string> hosts) => hosts.Count == 0 || hosts.Any(Matches);

    /// <summary>Whether a text can stand in a list of hosts.</summary>
    public static bool IsHostPattern(string text) =>
        IsName(text.StartsWith("*.", StringComparison.Ordinal) ? text[2..] : text)
        && !text.EndsWith('.')
        && Uri.CheckHostName(text.TrimStart('*', '.')) == UriHostNameType.Dns;

    private bool Matches(string pattern) =>
        pattern.StartsWith("*.", StringComparison.Ordinal)
            ? Url.IdnHost.EndsWith(pattern[1..], StringComparison.OrdinalIgnoreCase) && Url.IdnHost.Length > pattern.Length - 1
            : Url.IdnHost.Equals(pattern, StringComparison.OrdinalIgnoreCase);

    // the last label of a name has a letter (RFC 3696 section 2): what has none is an address in one of its many spellings
    private static bool IsName(string host) =>
        host.Length is > 0 and <= 253
        && host.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_')
        && host.Split('.') is var labels
        && labels.All(label => label.Length is > 0 and <= 63)
        && !labels[^1].StartsWith("0x", StringComparison.OrdinalIgnoreCase)
        && labels[^1].Any(char.IsAsciiLetter);
}
