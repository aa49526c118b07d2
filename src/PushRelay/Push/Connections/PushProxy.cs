using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;

namespace PushRelay.Push.Connections;

/// <summary>The proxy that every push network is reached through, by HTTP's method CONNECT (RFC 9110 section 9.3.6).</summary>
internal sealed class PushProxy
{
    /// <summary>What a text that <see cref="TryRead"/> refuses must be.</summary>
    public const string Must = "it must be http://host:port or http://user:password@host:port, or null for none";

    private const int AnswerBytesMax = 16 * 1024;

    private readonly string? credentials;

    private PushProxy(Uri url, string? credentials) => (Host, Port, this.credentials) = (url.IdnHost, url.Port, credentials);

    public string Host { get; }

    public int Port { get; }

    public static bool TryRead(string text, [NotNullWhen(true)] out PushProxy? proxy)
    {
        proxy = null;
        if (
            !Uri.TryCreate(text, UriKind.Absolute, out var url)
            || url.Scheme != Uri.UriSchemeHttp
            || url.PathAndQuery != "/"
            || url.Fragment.Length > 0
            || url.Host.Length == 0
        )
        {
            return false;
        }

        // user and password may hold any letter, percent-encoded; of the first colon on it is the password (RFC 7617)
        var user = Uri.UnescapeDataString(url.UserInfo);
        proxy = new PushProxy(url, user.Length == 0 ? null : Convert.ToBase64String(Encoding.UTF8.GetBytes(user)));
        return true;
    }

    /// <summary>Asks for the way to a host on a fresh connection to the proxy; after it the connection is the host's.</summary>
    /// <exception cref="ProxyRefusedException">It answers something else than 2xx.</exception>
    /// <exception cref="IOException">Its answer is none of HTTP, or ends early.</exception>
    public async Task OpenAsync(Stream stream, string host, int port, CancellationToken cancellationToken)
    {
        var authority =
            (host.Contains(':', StringComparison.Ordinal) ? $"[{host}]" : host) + ":" + port.ToString(CultureInfo.InvariantCulture);
        var request = $"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n";
        if (credentials is not null)
        {
            request += $"Proxy-Authorization: Basic {credentials}\r\n";
        }

        await stream.WriteAsync(Encoding.ASCII.GetBytes(request + "\r\n"), cancellationToken);
        var status = ReadStatus(await ReadHeadAsync(stream, cancellationToken));
        if (status is < 200 or > 299)
        {
            throw new ProxyRefusedException(status);
        }
    }

    /// <summary>Up to the empty line and not a byte more: what follows is the host's. Nothing does before we speak to it.</summary>
    private static async Task<string> ReadHeadAsync(Stream stream, CancellationToken cancellationToken)
    {
        var head = new byte[AnswerBytesMax];
        var read = 0;
        while (read < head.Length)
        {
            var bytes = await stream.ReadAsync(head.AsMemory(read), cancellationToken);
            if (bytes == 0)
            {
                break;
            }

            read += bytes;
            var end = head.AsSpan(0, read).IndexOf("\r\n\r\n"u8);
            if (end >= 0)
            {
                return end + 4 == read ? Encoding.Latin1.GetString(head, 0, end)
                    : ReadStatus(Encoding.Latin1.GetString(head, 0, end)) is var status and not (>= 200 and <= 299)
                        ? throw new ProxyRefusedException(status)
                    : throw new IOException("The proxy of setting Network:Proxy speaks before the host does.");
            }
        }

        throw new IOException("The proxy of setting Network:Proxy gives no whole answer.");
    }

    private static int ReadStatus(string head) =>
        head.StartsWith("HTTP/1.", StringComparison.Ordinal)
        && head.Length >= 12
        && int.TryParse(head.AsSpan(9, 3), NumberStyles.None, CultureInfo.InvariantCulture, out var status)
            ? status
            : throw new IOException("The proxy of setting Network:Proxy does not answer in HTTP.");
}
