using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace PushRelay.Interop.Servers;

internal sealed class ProsodyServer : IAsyncDisposable
{
    public const string Host = "example.test";
    public const string Component = "push.example.test";
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-prosody-").FullName;
    private Process process = null!;
    public int C2sPort { get; } = FreePort();
    public int ComponentPort { get; } = FreePort();

    public static async Task<ProsodyServer> StartAsync(string modulePath, CancellationToken cancellationToken)
    {
        var server = new ProsodyServer();
        var f = server.folder;
        var accounts = Path.Combine(f, "data", Host.Replace(".", "%2e", StringComparison.Ordinal), "accounts");
        Directory.CreateDirectory(accounts);
        foreach (var user in (string[])["alice", "bob", "carol"])
        {
            await File.WriteAllTextAsync(Path.Combine(accounts, user + ".dat"), "return { [\"password\"] = \"pw\"; };", cancellationToken);
        }

        await File.WriteAllTextAsync(Path.Combine(f, "prosody.cfg.lua"),
            $$"""
            run_as_root = true
            data_path = "{{f}}/data"
            pidfile = "{{f}}/prosody.pid"
            plugin_paths = { "{{modulePath}}" }
            modules_enabled = { "roster", "saslauth", "disco", "ping", "smacks", "csi_simple", "mam", "offline", "push_relay" }
            modules_disabled = { "s2s" }
            authentication = "internal_plain"
            c2s_require_encryption = false
            allow_unencrypted_plain_auth = true
            interfaces = { "127.0.0.1" }
            c2s_ports = { {{server.C2sPort.ToString(CultureInfo.InvariantCulture)}} }
            component_ports = { {{server.ComponentPort.ToString(CultureInfo.InvariantCulture)}} }
            component_interfaces = { "127.0.0.1" }
            component_conflict_resolve = "kick_old"
            c2s_direct_tls_ports = {}
            log = { info = "{{f}}/prosody.log" }
            push_relay_component = "{{Component}}"
            VirtualHost "{{Host}}"
            Component "{{Component}}"
                component_secret = "secret"
            """, cancellationToken);
        server.process = Process.Start(new ProcessStartInfo("prosody", ["-F", "--config", Path.Combine(f, "prosody.cfg.lua")]) { RedirectStandardError = true, RedirectStandardOutput = true })!;
        while (true)
        {
            try
            {
                using var probe = new TcpClient();
                await probe.ConnectAsync(IPAddress.Loopback, server.C2sPort, cancellationToken);
                return server;
            }
            catch (SocketException)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellationToken);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
        {
            process.Kill();
            await process.WaitForExitAsync();
        }
        process.Dispose();
        Directory.Delete(folder, true);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
