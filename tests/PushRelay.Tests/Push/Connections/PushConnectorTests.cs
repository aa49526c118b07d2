using System.Net;
using System.Net.Sockets;
using System.Text;
using PushRelay.Push.Connections;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push.Connections;

/// <summary>Ways to a push network: several addresses, inside addresses, a proxy.</summary>
public sealed class PushConnectorTests : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);

    public PushConnectorTests() => listener.Start();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    public ValueTask DisposeAsync()
    {
        listener.Dispose();
        return ValueTask.CompletedTask;
    }

    [Fact]
    public async Task An_address_that_swallows_packets_costs_a_quarter_of_a_second()
    {
        using var silent = new SilentAddress(Port);
        var connector = Connector(silent.Address, IPAddress.Loopback);
        var started = TimeProvider.System.GetTimestamp();

        using var stream = await connector.ConnectAsync(new DnsEndPoint("push.example", Port), Token);

        var took = TimeProvider.System.GetElapsedTime(started);
        Assert.InRange(took.TotalMilliseconds, 240, 900);
        Assert.True(listener.Pending());
    }

    [Fact]
    public async Task An_address_that_refuses_costs_nothing()
    {
        var connector = Connector(IPAddress.Parse("127.0.0.9"), IPAddress.IPv6Loopback, IPAddress.Loopback);
        var started = TimeProvider.System.GetTimestamp();

        using var stream = await connector.ConnectAsync(new DnsEndPoint("push.example", Port), Token);

        Assert.True(TimeProvider.System.GetElapsedTime(started) < TimeSpan.FromMilliseconds(200));
    }

    [Fact]
    public async Task Where_none_answers_the_first_failure_is_the_answer()
    {
        var connector = Connector(IPAddress.Parse("127.0.0.9"), IPAddress.Parse("127.0.0.8"));

        var failure = await Assert.ThrowsAsync<SocketException>(() =>
            connector.ConnectAsync(new DnsEndPoint("push.example", Port), Token).AsTask()
        );

        Assert.Equal(SocketError.ConnectionRefused, failure.SocketErrorCode);
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    [InlineData("::ffff:127.0.0.1")]
    [InlineData("10.1.2.3")]
    [InlineData("169.254.169.254")]
    [InlineData("64:ff9b::7f00:1")]
    public async Task What_a_stranger_names_never_leads_inside(string address)
    {
        var connector = Connector(IPAddress.Parse(address));

        await Assert.ThrowsAsync<BlockedAddressException>(() =>
            connector.ConnectPublicAsync(new DnsEndPoint("evil.example", Port), mayLeaveToProxy: false, Token).AsTask()
        );
        Assert.False(listener.Pending());
    }

    [Fact]
    public async Task A_name_that_is_looked_up_again_is_checked_again()
    {
        // rebinding: each connection looks the name up once, and goes to what it checked
        var answers = new Queue<IPAddress>([IPAddress.Parse("192.0.2.200"), IPAddress.Loopback]);
        var asked = 0;
        var connector = new PushConnector(
            null,
            TimeProvider.System,
            (_, _) =>
            {
                asked++;
                return Task.FromResult<IPAddress[]>([answers.Dequeue()]);
            }
        );
        foreach (var _ in (int[])[1, 2])
        {
            await Assert.ThrowsAsync<BlockedAddressException>(() =>
                connector.ConnectPublicAsync(new DnsEndPoint("evil.example", Port), mayLeaveToProxy: false, Token).AsTask()
            );
        }

        Assert.Equal(2, asked);
        Assert.False(listener.Pending());
    }

    [Fact]
    public async Task Through_a_proxy_an_operators_host_is_named_and_a_strangers_is_an_address()
    {
        await using var proxy = new ProxyServer { Credentials = "relay:pass:wörd" };
        var target = new IPEndPoint(IPAddress.Loopback, Port);
        proxy.Routes["api.push.apple.com:443"] = target;
        proxy.Routes["8.8.4.4:443"] = target;
        Assert.True(PushProxy.TryRead($"http://relay:pass%3Aw%C3%B6rd@127.0.0.1:{proxy.Port}", out var way));
        var connector = new PushConnector(way, TimeProvider.System, (_, _) => Task.FromResult<IPAddress[]>([IPAddress.Parse("8.8.4.4")]));

        using var named = await connector.ConnectAsync(new DnsEndPoint("api.push.apple.com", 443), Token);
        using var address = await connector.ConnectPublicAsync(new DnsEndPoint("push.example", 443), mayLeaveToProxy: false, Token);

        Assert.Equal(["api.push.apple.com:443", "8.8.4.4:443"], proxy.Asked);
        // the way is open and nothing was read ahead
        using var accepted = await listener.AcceptSocketAsync(Token);
        await accepted.SendAsync(Encoding.ASCII.GetBytes("hi"), Token);
        var word = new byte[2];
        await named.ReceiveAsync(word, Token);
        Assert.Equal("hi", Encoding.ASCII.GetString(word));
    }

    [Fact]
    public async Task Where_the_name_cannot_be_resolved_only_a_listed_host_is_left_to_the_proxy()
    {
        await using var proxy = new ProxyServer();
        proxy.Routes["web.push.apple.com:443"] = new IPEndPoint(IPAddress.Loopback, Port);
        Assert.True(PushProxy.TryRead($"http://127.0.0.1:{proxy.Port}", out var way));
        var connector = new PushConnector(way, TimeProvider.System, (_, _) => throw new SocketException((int)SocketError.HostNotFound));

        using var stream = await connector.ConnectPublicAsync(new DnsEndPoint("web.push.apple.com", 443), mayLeaveToProxy: true, Token);
        await Assert.ThrowsAsync<SocketException>(() =>
            connector.ConnectPublicAsync(new DnsEndPoint("web.push.apple.com", 443), mayLeaveToProxy: false, Token).AsTask()
        );

        Assert.Equal(["web.push.apple.com:443"], proxy.Asked);
    }

    [Fact]
    public async Task A_proxy_that_refuses_says_so()
    {
        await using var proxy = new ProxyServer { Credentials = "relay:secret" };
        Assert.True(PushProxy.TryRead($"http://relay:wrong@127.0.0.1:{proxy.Port}", out var wrong));
        Assert.True(PushProxy.TryRead($"http://relay:secret@127.0.0.1:{proxy.Port}", out var right));

        var refused = await Assert.ThrowsAsync<ProxyRefusedException>(() =>
            new PushConnector(wrong, TimeProvider.System).ConnectAsync(new DnsEndPoint("fcm.googleapis.com", 443), Token).AsTask()
        );
        var away = await Assert.ThrowsAsync<ProxyRefusedException>(() =>
            new PushConnector(right, TimeProvider.System).ConnectAsync(new DnsEndPoint("fcm.googleapis.com", 443), Token).AsTask()
        );

        Assert.Equal((407, 502), (refused.Status, away.Status));
    }

    [Theory]
    [InlineData("SSH-2.0-OpenSSH_9.2\r\n\r\n")]
    [InlineData("HTTP/1.1 20x OK\r\n\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nX: y")]
    [InlineData("HTTP/1.1 200 OK\r\n\r\ntoo early")]
    public async Task What_is_no_proxy_is_an_error_and_no_wait(string answer)
    {
        Assert.True(PushProxy.TryRead($"http://127.0.0.1:{Port}", out var way));
        var connecting = new PushConnector(way, TimeProvider.System).ConnectAsync(new DnsEndPoint("fcm.googleapis.com", 443), Token);
        using (var accepted = await listener.AcceptSocketAsync(Token))
        {
            await accepted.ReceiveAsync(new byte[1000], Token);
            await accepted.SendAsync(Encoding.ASCII.GetBytes(answer), Token);
        }

        await Assert.ThrowsAnyAsync<IOException>(() => connecting.AsTask());
    }

    [Theory]
    [InlineData("http://proxy.example:3128", true)]
    [InlineData("http://user:password@proxy.example:3128/", true)]
    [InlineData("http://[::1]:3128", true)]
    [InlineData("https://proxy.example:3128", false)]
    [InlineData("socks5://proxy.example:1080", false)]
    [InlineData("http://proxy.example:3128/path", false)]
    [InlineData("http://proxy.example:3128/#x", false)]
    [InlineData("proxy.example:3128", false)]
    [InlineData("", false)]
    public void A_proxy_is_an_http_origin_with_or_without_credentials(string text, bool reads) =>
        Assert.Equal(reads, PushProxy.TryRead(text, out _));

    private static PushConnector Connector(params IPAddress[] addresses) =>
        new(null, TimeProvider.System, (_, _) => Task.FromResult(addresses));

    /// <summary>A listener whose queue is full: the kernel drops what comes.</summary>
    private sealed class SilentAddress : IDisposable
    {
        private readonly List<Socket> sockets = [];

        public SilentAddress(int port)
        {
            var full = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            full.Bind(new IPEndPoint(Address, port));
            full.Listen(0);
            sockets.Add(full);
            for (var i = 0; i < 4; i++)
            {
                var filler = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
                sockets.Add(filler);
                try
                {
                    filler.Connect(new IPEndPoint(Address, port));
                }
                catch (SocketException)
                {
                    // it is under way
                }
            }
        }

        public IPAddress Address { get; } = IPAddress.Parse("127.0.0.77");

        public void Dispose() => sockets.ForEach(socket => socket.Dispose());
    }
}
