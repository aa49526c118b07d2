using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace PushRelay.Interop.Servers;

/// <summary>A real server with the module, whichever it is: random ports on loopback, everything in a temporary folder.</summary>
internal abstract class XmppServer : IAsyncDisposable
{
    public const string Host = "example.test";
    public const string Component = "push.example.test";

    /// <summary>A second virtual host, on which a session can be resumed for a second only.</summary>
    public const string BriefHost = "brief.test";

    /// <summary>Rooms of its own (XEP-0045).</summary>
    public const string Rooms = "rooms.example.test";

    /// <summary>Local parts of the accounts, each with the password "pw".</summary>
    public static readonly IReadOnlyList<string> Users = ["alice", "bob", "carol", .. Enumerable.Range(0, 120).Select(n => $"u{n}")];

    /// <summary>The same on the brief host.</summary>
    public static readonly IReadOnlyList<string> BriefUsers = ["alice", "bob"];

    public int C2sPort { get; protected set; }

    public int ComponentPort { get; protected set; }

    /// <summary>Everything it has logged since the first start.</summary>
    public abstract string Log { get; }

    /// <summary>Starts one with the module, ready for the relay.</summary>
    /// <param name="kind">Prosody or ejabberd.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <param name="hasModule">False: it has only its own push module (XEP-0357).</param>
    public static async Task<XmppServer> OfKindAsync(string kind, CancellationToken cancellationToken, bool hasModule = true) =>
        kind == "Prosody"
            ? await ProsodyServer.StartAsync(Path.Combine(AppContext.BaseDirectory, "modules", "prosody"), cancellationToken, hasModule)
            : await EjabberdServer.StartAsync(Path.Combine(AppContext.BaseDirectory, "modules", "ejabberd"), cancellationToken, hasModule);

    /// <summary>As a crash does (SIGKILL).</summary>
    public abstract Task KillAsync();

    /// <summary>As an operator does (SIGTERM).</summary>
    public abstract Task StopAsync();

    /// <summary>Ends a session, by its full address, as an operator does.</summary>
    public abstract Task KickAsync(string jid, CancellationToken cancellationToken);

    /// <summary>Starts it again, on the same ports and data; if it still runs it is stopped first.</summary>
    public abstract Task RestartAsync(CancellationToken cancellationToken);

    /// <summary>Has the running server load the module's options or code anew.</summary>
    public abstract Task ReloadModuleAsync(CancellationToken cancellationToken);

    public abstract ValueTask DisposeAsync();

    protected static async Task<bool> AcceptsAsync(int port, CancellationToken cancellationToken)
    {
        using var probe = new TcpClient();
        try
        {
            await probe.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>Sends the signal TERM and waits for the end.</summary>
    protected static async Task TerminateAsync(Process running)
    {
        using var kill = Process.Start("kill", ["-TERM", running.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync();
        await running.WaitForExitAsync();
    }

    protected static (int First, int Second) FreePorts()
    {
        using var first = new TcpListener(IPAddress.Loopback, 0);
        using var second = new TcpListener(IPAddress.Loopback, 0);
        first.Start();
        second.Start();
        return (((IPEndPoint)first.LocalEndpoint).Port, ((IPEndPoint)second.LocalEndpoint).Port);
    }
}
