using System.Net;
using System.Net.Sockets;

namespace PushRelay.Push.Connections;

/// <summary>Every address that a name has is one that may not be connected to.</summary>
internal sealed class BlockedAddressException(string host) : IOException($"Every address of {host} is inside of a network.");

/// <summary>The proxy does not open the way; its answer says why.</summary>
internal sealed class ProxyRefusedException(int status) : IOException($"The proxy of setting Network:Proxy answers {status}.")
{
    public int Status { get; } = status;
}

/// <summary>
/// Opens connections to push networks, for all of them: directly or through the proxy of <c>Network:Proxy</c>, to the first of a name's
/// addresses that answers (RFC 8305). Thread-safe.
/// </summary>
/// <param name="proxy">Null: directly.</param>
/// <param name="clock">Of the delay between attempts.</param>
/// <param name="resolve">Asks the name service; null: the system's.</param>
internal sealed class PushConnector(
    PushProxy? proxy,
    TimeProvider clock,
    Func<string, CancellationToken, Task<IPAddress[]>>? resolve = null
)
{
    /// <summary>RFC 8305 section 8, Connection Attempt Delay: an address that swallows packets costs so much and no more.</summary>
    public static readonly TimeSpan AttemptDelay = TimeSpan.FromMilliseconds(250);

    private const int AddressesMax = 16;

    private readonly Func<string, CancellationToken, Task<IPAddress[]>> resolve = resolve ?? Dns.GetHostAddressesAsync;

    /// <summary>To a host that the operator named. Through a proxy, it resolves the name.</summary>
    /// <exception cref="IOException">No address of it answers; also <see cref="SocketException"/>.</exception>
    public async ValueTask<Socket> ConnectAsync(DnsEndPoint host, CancellationToken cancellationToken) =>
        proxy is null
            ? await FirstAsync(await ResolveAsync(host.Host, cancellationToken), host.Port, DialAsync, cancellationToken)
            : await ThroughAsync(proxy, host.Host, host.Port, cancellationToken);

    /// <summary>
    /// To a host that a stranger named: only to its public addresses. The name is resolved and checked here also where a proxy connects,
    /// which is then asked for the checked address.
    /// </summary>
    /// <param name="mayLeaveToProxy">Where the name cannot be resolved here, the proxy may: the operator has listed the host.</param>
    /// <exception cref="BlockedAddressException">It has none but inside addresses, or a port of a system service.</exception>
    /// <exception cref="IOException">No address of it answers; also <see cref="SocketException"/>.</exception>
    public async ValueTask<Socket> ConnectPublicAsync(DnsEndPoint host, bool mayLeaveToProxy, CancellationToken cancellationToken)
    {
        IPAddress[] addresses;
        try
        {
            addresses = await ResolveAsync(host.Host, cancellationToken);
        }
        catch (SocketException) when (proxy is not null && mayLeaveToProxy)
        {
            return await ThroughAsync(proxy, host.Host, host.Port, cancellationToken);
        }

        addresses = Array.FindAll(addresses, PublicAddresses.Contains);
        if (addresses.Length == 0)
        {
            throw new BlockedAddressException(host.Host);
        }

        return await FirstAsync(addresses, host.Port, proxy is null ? DialAsync : DialThroughProxyAsync, cancellationToken);
    }

    private async Task<IPAddress[]> ResolveAsync(string host, CancellationToken cancellationToken)
    {
        var addresses = IPAddress.TryParse(host, out var address) ? [address] : await resolve(host, cancellationToken);
        if (addresses.Length == 0)
        {
            throw new SocketException((int)SocketError.NoData);
        }

        return Interleave(addresses);
    }

    /// <summary>RFC 8305 section 4: the families by turns, beginning with that of the resolver's first (it sorts by RFC 6724).</summary>
    private static IPAddress[] Interleave(IPAddress[] addresses)
    {
        var first = addresses.Where(a => a.AddressFamily == addresses[0].AddressFamily).ToArray();
        var second = addresses.Where(a => a.AddressFamily != addresses[0].AddressFamily).ToArray();
        return
        [
            .. Enumerable
                .Range(0, Math.Max(first.Length, second.Length))
                .SelectMany(i => first.Skip(i).Take(1).Concat(second.Skip(i).Take(1)))
                .Take(AddressesMax),
        ];
    }

    /// <summary>
    /// RFC 8305 section 5: the next address is tried when the one before fails, or has not answered for <see cref="AttemptDelay"/>; the
    /// first that answers is it.
    /// </summary>
    private async Task<Socket> FirstAsync(
        IPAddress[] addresses,
        int port,
        Func<IPAddress, int, CancellationToken, Task<Socket>> dial,
        CancellationToken cancellationToken
    )
    {
        if (addresses.Length == 1)
        {
            return await dial(addresses[0], port, cancellationToken);
        }

        using var decided = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var attempts = new List<Task<Socket>>();
        Exception? failure = null;
        try
        {
            for (var next = 0; ; )
            {
                if (next < addresses.Length)
                {
                    attempts.Add(dial(addresses[next++], port, decided.Token));
                }

                if (
                    await EndedAsync(attempts, next < addresses.Length ? AttemptDelay : Timeout.InfiniteTimeSpan, decided.Token)
                    is not { } ended
                )
                {
                    continue;
                }

                attempts.Remove(ended);
                try
                {
                    return await ended;
                }
                catch (Exception exception) when (exception is SocketException or IOException)
                {
                    failure ??= exception;
                }

                if (attempts.Count == 0 && next == addresses.Length)
                {
                    throw failure;
                }
            }
        }
        finally
        {
            await decided.CancelAsync();
            attempts.ForEach(Abandon);
        }
    }

    /// <summary>The first attempt that ended; null: none within the delay.</summary>
    private async Task<Task<Socket>?> EndedAsync(List<Task<Socket>> attempts, TimeSpan delay, CancellationToken cancellationToken)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var ended = await Task.WhenAny([.. attempts, Task.Delay(delay, clock, over.Token)]);
        await over.CancelAsync();
        cancellationToken.ThrowIfCancellationRequested();
        return ended as Task<Socket>;
    }

    /// <summary>What connected all the same is closed.</summary>
    private static void Abandon(Task<Socket> attempt) =>
        _ = attempt.ContinueWith(
            static task =>
            {
                if (task.IsCompletedSuccessfully)
                {
                    task.Result.Dispose();
                }
                else
                {
                    _ = task.Exception;
                }
            },
            CancellationToken.None,
            TaskContinuationOptions.ExecuteSynchronously,
            TaskScheduler.Default
        );

    private static async Task<Socket> DialAsync(IPAddress address, int port, CancellationToken cancellationToken)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(address, port, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private Task<Socket> DialThroughProxyAsync(IPAddress address, int port, CancellationToken cancellationToken) =>
        ThroughAsync(proxy!, address.ToString(), port, cancellationToken);

    private async Task<Socket> ThroughAsync(PushProxy way, string host, int port, CancellationToken cancellationToken)
    {
        var addresses = await ResolveAsync(way.Host, cancellationToken);
        var socket = await FirstAsync(addresses, way.Port, DialAsync, cancellationToken);
        try
        {
            await using var stream = new NetworkStream(socket, ownsSocket: false);
            await way.OpenAsync(stream, host, port, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
