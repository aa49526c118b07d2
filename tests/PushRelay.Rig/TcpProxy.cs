using System.Net;
using System.Net.Sockets;

namespace PushRelay.Rig;

/// <summary>
/// Stands between two ends as the network does, and fails as it does: connections that fall silent without a word (a lost NAT entry, a
/// half-open link), a black hole, a cut.
/// </summary>
internal sealed class TcpProxy : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource stop = new();
    private readonly Lock state = new();
    private readonly List<Connection> connections = [];
    private readonly int target;
    private readonly Task accepting;
    private bool blackHole;

    public TcpProxy(int targetPort)
    {
        target = targetPort;
        listener.Start();
        accepting = AcceptAsync();
    }

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    public int ConnectionsSeen { get; private set; }

    /// <summary>Not a byte passes any more on what is open now, and no end is told; new connections are well.</summary>
    public void FreezeOpen()
    {
        lock (state)
        {
            connections.ForEach(connection => connection.Frozen = true);
        }
    }

    /// <summary>Nothing passes, on new connections neither, until <see cref="Heal"/>; what was frozen stays so.</summary>
    public void Freeze()
    {
        lock (state)
        {
            blackHole = true;
            connections.ForEach(connection => connection.Frozen = true);
        }
    }

    /// <summary>New connections pass again.</summary>
    public void Heal()
    {
        lock (state)
        {
            blackHole = false;
        }
    }

    /// <summary>Resets every connection.</summary>
    public void Cut()
    {
        lock (state)
        {
            connections.ForEach(connection => connection.Cut());
        }
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        listener.Stop();
        Cut();
        await accepting;
        stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        var serving = new List<Task>();
        try
        {
            while (true)
            {
                var client = await listener.AcceptTcpClientAsync(stop.Token);
                serving.Add(ServeAsync(client));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(serving);
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using var near = client;
        using var far = new TcpClient();
        var connection = new Connection(near, far);
        lock (state)
        {
            connection.Frozen = blackHole;
            connections.Add(connection);
            ConnectionsSeen++;
        }

        try
        {
            await far.ConnectAsync(IPAddress.Loopback, target, stop.Token);
            (near.NoDelay, far.NoDelay) = (true, true);
            await Task.WhenAny(
                CopyAsync(near.GetStream(), far.GetStream(), connection),
                CopyAsync(far.GetStream(), near.GetStream(), connection)
            );
        }
        catch (Exception exception) when (exception is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // an end went
        }
        finally
        {
            lock (state)
            {
                connections.Remove(connection);
            }
        }
    }

    private async Task CopyAsync(NetworkStream from, NetworkStream to, Connection connection)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            int read;
            while ((read = await from.ReadAsync(buffer, stop.Token)) > 0 || connection.Frozen)
            {
                if (connection.Frozen)
                {
                    // what was sent is swallowed, and the end of one side is not told to the other
                    await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, stop.Token);
                }

                await to.WriteAsync(buffer.AsMemory(0, read), stop.Token);
            }
        }
        catch (Exception exception) when (exception is IOException or OperationCanceledException or ObjectDisposedException)
        {
            if (connection.Frozen && !stop.IsCancellationRequested)
            {
                await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, stop.Token).ContinueWith(_ => { }, TaskScheduler.Default);
            }
        }
    }

    private sealed class Connection(TcpClient near, TcpClient far)
    {
        public volatile bool Frozen;

        public void Cut()
        {
            near.Client?.Close(0);
            far.Client?.Close(0);
        }
    }
}
