using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Tests.Xmpp;

/// <summary>The server side of XEP-0114 as a test wants it: each step is written out, every wait is bounded.</summary>
internal sealed class ScriptedServer : IDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly TcpListener listener = new(IPAddress.Loopback, 0);

    public ScriptedServer() => listener.Start();

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    public void Dispose() => listener.Dispose();

    public async Task<ScriptedLink> AcceptAsync() =>
        new(
            await listener
                .AcceptSocketAsync(TestContext.Current.CancellationToken)
                .AsTask()
                .WaitAsync(Patience, TestContext.Current.CancellationToken)
        );

    /// <summary>Accepts and plays the handshake as Prosody does, checking the digest.</summary>
    public async Task<ScriptedLink> AcceptComponentAsync(string secret = "s3cret", string streamId = "stream-1")
    {
        var link = await AcceptAsync();
        await link.ExpectHeaderAsync();
        await link.WriteAsync(ScriptedLink.Header(streamId));
        await link.ExpectAsync($"<handshake>{Digest(streamId, secret)}</handshake>");
        await link.WriteAsync("<handshake/>");
        return link;
    }

    public static string Digest(string streamId, string secret)
    {
#pragma warning disable CA5350 // XEP-0114 says SHA-1.
        return Convert.ToHexStringLower(SHA1.HashData(Encoding.UTF8.GetBytes(streamId + secret)));
#pragma warning restore CA5350
    }
}

/// <summary>One accepted connection of a <see cref="ScriptedServer"/>.</summary>
internal sealed class ScriptedLink(Socket socket) : IDisposable
{
    private readonly StringBuilder received = new();
    private readonly byte[] buffer = new byte[64 * 1024];

    public static string Header(string streamId) =>
        $"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' "
        + $"id='{streamId}' from='push.example.com'>";

    public Task ExpectHeaderAsync() =>
        ExpectAsync(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
                + "xmlns:stream='http://etherx.jabber.org/streams' to='push.example.com'>"
        );

    /// <summary>The next bytes are exactly these.</summary>
    public async Task ExpectAsync(string text)
    {
        while (received.Length < text.Length && text.StartsWith(received.ToString(), StringComparison.Ordinal) && await ReceiveAsync()) { }

        var got = received.ToString();
        Assert.Equal(text, got[..Math.Min(got.Length, text.Length)]);
        received.Remove(0, text.Length);
    }

    /// <summary>What comes up to and with the mark.</summary>
    public async Task<string> ReadToAsync(string mark)
    {
        int at;
        while ((at = received.ToString().IndexOf(mark, StringComparison.Ordinal)) < 0)
        {
            Assert.True(await ReceiveAsync(), $"closed before {mark}: {received}");
        }

        var text = received.ToString(0, at + mark.Length);
        received.Remove(0, text.Length);
        return text;
    }

    /// <summary>Everything to the end of the connection.</summary>
    public async Task<string> ReadToEndAsync()
    {
        while (await ReceiveAsync()) { }

        return received.ToString();
    }

    public Task WriteAsync(string text) => WriteAsync(Encoding.UTF8.GetBytes(text));

    public async Task WriteAsync(ReadOnlyMemory<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            bytes = bytes[
                await socket.SendAsync(bytes, TestContext.Current.CancellationToken).AsTask().WaitAsync(ScriptedServer.Patience)..
            ];
        }
    }

    /// <summary>How much the connection takes in all before it is full.</summary>
    public long Fill(byte[] bytes)
    {
        socket.Blocking = false;
        var sent = 0L;
        while (true)
        {
            var count = socket.Send(bytes, SocketFlags.None, out var error);
            if (error == SocketError.WouldBlock && !socket.Poll(TimeSpan.FromMilliseconds(300), SelectMode.SelectWrite))
            {
                socket.Blocking = true;
                return sent;
            }

            sent += count;
        }
    }

    public void HalfClose() => socket.Shutdown(SocketShutdown.Send);

    /// <summary>Closes with a reset, as a killed host does.</summary>
    public void Cut()
    {
        socket.LingerState = new LingerOption(true, 0);
        socket.Dispose();
    }

    public void Dispose() => socket.Dispose();

    private async Task<bool> ReceiveAsync()
    {
        var count = await socket
            .ReceiveAsync(buffer, TestContext.Current.CancellationToken)
            .AsTask()
            .WaitAsync(ScriptedServer.Patience, TestContext.Current.CancellationToken);
        received.Append(Encoding.UTF8.GetString(buffer, 0, count));
        return count > 0;
    }
}
