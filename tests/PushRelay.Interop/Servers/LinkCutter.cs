using System.Net;
using System.Net.Sockets;
using System.Text;

namespace PushRelay.Interop.Servers;

/// <summary>
/// Passes bytes on between the relay and its server, holds the server's back, and cuts the connection in the middle of them on demand.
/// </summary>
internal sealed class LinkCutter : IAsyncDisposable
{
    private const int Free = int.MaxValue;

    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource stop = new();
    private readonly Lock gate = new();
    private readonly List<Socket> open = [];
    private readonly BridgeMeter meter = new();
    private readonly int target;
    private readonly Task accepting;
    private TaskCompletionSource opened = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int quota = Free;

    public LinkCutter(int target)
    {
        this.target = target;
        listener.Start();
        Port = ((IPEndPoint)listener.LocalEndpoint).Port;
        accepting = AcceptAsync();
    }

    public int Port { get; }

    /// <summary>How many messages stand in stanzas whose acknowledgement has come from the relay.</summary>
    public int Acknowledged => meter.Acknowledged;

    /// <summary>Lets so many more bytes of the server's pass, on whatever connection, and then none until it is told otherwise.</summary>
    public void Hold(int afterBytes) => Allow(afterBytes);

    /// <summary>Everything passes.</summary>
    public void Release() => Allow(Free);

    /// <summary>Resets every connection; what is under way on them is gone.</summary>
    public void Cut()
    {
        lock (gate)
        {
            foreach (var socket in open)
            {
                // without a word of TCP's own: a reset. Closed already, it is no matter
                socket.Close(0);
            }

            open.Clear();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        listener.Dispose();
        Cut();
        await accepting;
        stop.Dispose();
    }

    private void Allow(int bytes)
    {
        lock (gate)
        {
            quota = bytes;
            opened.SetResult();
            opened = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }
    }

    private async Task AcceptAsync()
    {
        var pumps = new List<Task>();
        try
        {
            while (true)
            {
                var near = await listener.AcceptSocketAsync(stop.Token);
                var far = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                lock (gate)
                {
                    open.AddRange([near, far]);
                }

                pumps.Add(ConnectAsync(near, far));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException or SocketException)
        {
            await Task.WhenAll(pumps);
        }
    }

    private async Task ConnectAsync(Socket near, Socket far)
    {
        try
        {
            await far.ConnectAsync(IPAddress.Loopback, target, stop.Token);
            await Task.WhenAll(PumpAsync(near, far, byServer: false), PumpAsync(far, near, byServer: true));
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException or SocketException)
        {
            near.Dispose();
            far.Dispose();
        }
    }

    private async Task PumpAsync(Socket from, Socket to, bool byServer)
    {
        var buffer = new byte[16 * 1024];
        var said = "";
        try
        {
            while (await from.ReceiveAsync(buffer, stop.Token) is > 0 and var length)
            {
                said = meter.Hear(said + Encoding.Latin1.GetString(buffer, 0, length), byServer);
                var sent = 0;
                while (sent < length)
                {
                    var pass = byServer ? await AllowedAsync(from, length - sent) : length - sent;
                    sent += await to.SendAsync(buffer.AsMemory(sent, pass), stop.Token);
                }
            }

            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException or SocketException)
        {
            from.Dispose();
            to.Dispose();
        }
    }

    private async Task<int> AllowedAsync(Socket from, int wanted)
    {
        while (true)
        {
            Task more;
            lock (gate)
            {
                ObjectDisposedException.ThrowIf(from.SafeHandle.IsClosed, from); // cut: what is allowed is for others
                if (quota > 0)
                {
                    var allowed = Math.Min(wanted, quota);
                    quota -= quota == Free ? 0 : allowed;
                    return allowed;
                }

                more = opened.Task;
            }

            await more.WaitAsync(stop.Token);
        }
    }
}
