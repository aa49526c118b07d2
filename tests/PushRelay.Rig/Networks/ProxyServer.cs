using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace PushRelay.Rig.Networks;

/// <summary>An HTTP proxy that knows CONNECT and nothing else, and whom it let through where.</summary>
internal sealed class ProxyServer : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource ended = new();
    private readonly ConcurrentQueue<string> asked = new();
    private readonly Task accepting;

    public ProxyServer()
    {
        listener.Start();
        accepting = AcceptAsync();
    }

    /// <summary>Null: everybody may.</summary>
    public string? Credentials { get; init; }

    /// <summary>Where a way to that authority leads instead: the rig has no internet.</summary>
    public ConcurrentDictionary<string, IPEndPoint> Routes { get; } = new();

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    /// <summary>What it was asked for: <c>host:port</c>.</summary>
    public IReadOnlyList<string> Asked => [.. asked];

    public async ValueTask DisposeAsync()
    {
        await ended.CancelAsync();
        listener.Stop();
        await accepting;
        ended.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await listener.AcceptTcpClientAsync(ended.Token);
                _ = ServeAsync(client);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // closed
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using var own = client;
        try
        {
            var stream = client.GetStream();
            var head = await ReadHeadAsync(stream);
            var authority = head[0].Split(' ')[1];
            asked.Enqueue(authority);
            var expected = "Proxy-Authorization: Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes(Credentials ?? ""));
            if (Credentials is not null && !head.Contains(expected))
            {
                await SayAsync(
                    stream,
                    "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"rig\"\r\nContent-Length: 3\r\n\r\nno."
                );
                return;
            }

            if (!Routes.TryGetValue(authority, out var target))
            {
                await SayAsync(stream, "502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
                return;
            }

            using var server = new TcpClient();
            await server.ConnectAsync(target, ended.Token);
            await SayAsync(stream, "200 Connection established\r\n\r\n");
            var other = server.GetStream();
            await Task.WhenAny(stream.CopyToAsync(other, ended.Token), other.CopyToAsync(stream, ended.Token));
        }
        catch (Exception exception) when (exception is IOException or SocketException or OperationCanceledException)
        {
            // one side went
        }
    }

    private Task SayAsync(NetworkStream stream, string answer) =>
        stream.WriteAsync(Encoding.ASCII.GetBytes("HTTP/1.1 " + answer), ended.Token).AsTask();

    private async Task<string[]> ReadHeadAsync(NetworkStream stream)
    {
        var head = new StringBuilder();
        var buffer = new byte[1];
        while (!head.ToString().EndsWith("\r\n\r\n", StringComparison.Ordinal))
        {
            if (await stream.ReadAsync(buffer, ended.Token) == 0)
            {
                throw new IOException("The client went.");
            }

            head.Append((char)buffer[0]);
        }

        return head.ToString().Split("\r\n");
    }
}
