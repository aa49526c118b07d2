using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace PushRelay.Interop.Servers;

/// <summary>What a test's Prosody is to be; the defaults are one virtual host, three accounts and one component.</summary>
internal sealed record ProsodyOptions
{
    public IReadOnlyList<string> Hosts { get; init; } = [ProsodyServer.Host];

    /// <summary>Host to lines of Lua below its line.</summary>
    public IReadOnlyDictionary<string, string> HostConfiguration { get; init; } = new Dictionary<string, string>();

    /// <summary>Bare address to password, on any of the hosts.</summary>
    public IReadOnlyDictionary<string, string> Accounts { get; init; } =
        XmppServer.Users.ToDictionary(user => $"{user}@{XmppServer.Host}", _ => "pw");

    /// <summary>Domain to secret.</summary>
    public IReadOnlyDictionary<string, string> Components { get; init; } =
        new Dictionary<string, string> { [ProsodyServer.Component] = "secret" };

    /// <summary>Beside roster, saslauth, disco and ping.</summary>
    public IReadOnlyList<string> Modules { get; init; } = [];

    /// <summary>Where modules are looked for before Prosody's own.</summary>
    public IReadOnlyList<string> PluginPaths { get; init; } = [];

    /// <summary>Lines of Lua for the global section, after all others.</summary>
    public string Configuration { get; init; } = "";

    /// <summary>Domains of rooms.</summary>
    public IReadOnlyList<string> Rooms { get; init; } = [];

    public string LogLevel { get; init; } = "info";
}

/// <summary>
/// A real Prosody of its own: random ports on loopback, everything in a temporary folder. Can be killed, stopped and started
/// again with the same ports and data.
/// </summary>
internal sealed class ProsodyServer : XmppServer
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(20);

    private readonly ProsodyOptions options;
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-prosody-").FullName;
    private readonly StringBuilder output = new();
    private Process? process;

    private ProsodyServer(ProsodyOptions options) => this.options = options;

    /// <summary>Everything it has logged since the first start, and what it wrote to its console.</summary>
    public override string Log
    {
        get
        {
            lock (output)
            {
                return (File.Exists(LogFile) ? File.ReadAllText(LogFile) : "") + output;
            }
        }
    }

    private string LogFile => Path.Combine(folder, "prosody.log");

    private string ConfigurationFile => Path.Combine(folder, "prosody.cfg.lua");

    /// <summary>Starts one with the module of that folder, ready for the relay.</summary>
    /// <param name="modulePath">The folder.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <param name="hasModule">False: the module is not loaded.</param>
    public static Task<ProsodyServer> StartAsync(string modulePath, CancellationToken cancellationToken, bool hasModule = true) =>
        StartAsync(
            new ProsodyOptions
            {
                Hosts = [Host, BriefHost],
                HostConfiguration = new Dictionary<string, string> { [BriefHost] = "smacks_hibernation_time = 1" },
                Accounts = Users
                    .Select(user => $"{user}@{Host}")
                    .Concat(BriefUsers.Select(user => $"{user}@{BriefHost}"))
                    .ToDictionary(account => account, _ => "pw"),
                Rooms = [Rooms],
                PluginPaths = [modulePath],
                Modules =
                [
                    "smacks",
                    "csi_simple",
                    "mam",
                    "carbons",
                    "offline",
                    "blocklist",
                    "pep",
                    "admin_shell",
                    "admin_socket",
                    "cloud_notify",
                    .. hasModule ? (string[])["push_relay"] : [],
                ],
                Configuration =
                    $"push_relay_component = \"{Component}\"\npush_relay_ack_timeout = 1\nsmacks_max_ack_delay = 3\n"
                    + "push_notification_with_body = true\npush_notification_with_sender = true",
            },
            cancellationToken
        );

    /// <summary>Returns when both ports are open.</summary>
    /// <exception cref="InvalidOperationException">It ended or did not open its ports; the message holds its log.</exception>
    public static async Task<ProsodyServer> StartAsync(ProsodyOptions options, CancellationToken cancellationToken)
    {
        var server = new ProsodyServer(options);
        try
        {
            await server.WriteAccountsAsync(cancellationToken);
            (server.C2sPort, server.ComponentPort) = FreePorts();
            await File.WriteAllTextAsync(server.ConfigurationFile, server.Configuration(), cancellationToken);
            await server.LaunchAsync(cancellationToken);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>As a crash does (SIGKILL).</summary>
    public override Task KillAsync() =>
        EndAsync(running =>
        {
            running.Kill();
            return Task.CompletedTask;
        });

    /// <summary>As an operator does (SIGTERM); Prosody says goodbye on every stream.</summary>
    public override Task StopAsync() => EndAsync(TerminateAsync);

    /// <summary>Starts it again, on the same ports and data; if it still runs it is stopped first.</summary>
    public override async Task RestartAsync(CancellationToken cancellationToken)
    {
        await StopAsync();
        await LaunchAsync(cancellationToken);
    }

    /// <summary>Waits until the log holds a text so many times.</summary>
    public async Task LoggedAsync(string text, int times, CancellationToken cancellationToken)
    {
        var since = TimeProvider.System.GetTimestamp();
        while (Log.Split(text).Length <= times)
        {
            if (TimeProvider.System.GetElapsedTime(since) > Patience)
            {
                throw new InvalidOperationException($"Prosody did not log '{text}' {times} times:\n{Log}");
            }

            await Task.Delay(Poll, TimeProvider.System, cancellationToken);
        }
    }

    public override Task ReloadModuleAsync(CancellationToken cancellationToken) =>
        ShellAsync($"module:reload(\"push_relay\", \"{Host}\")", cancellationToken);

    public override Task KickAsync(string jid, CancellationToken cancellationToken) =>
        ShellAsync($"c2s:close(\"{jid}\")", cancellationToken);

    public override async ValueTask DisposeAsync()
    {
        await KillAsync();
        Directory.Delete(folder, recursive: true);
    }

    private async Task ShellAsync(string line, CancellationToken cancellationToken)
    {
        using var shell = Process.Start(
            new ProcessStartInfo("prosodyctl", ["--config", ConfigurationFile, "shell", line])
            {
                RedirectStandardError = true,
                RedirectStandardOutput = true,
            }
        )!;
        var told = await shell.StandardOutput.ReadToEndAsync(cancellationToken);
        await shell.WaitForExitAsync(cancellationToken);
        Assert.True(shell.ExitCode == 0, told);
    }

    private async Task LaunchAsync(CancellationToken cancellationToken)
    {
        var opened = string.Create(CultureInfo.InvariantCulture, $"Activated service 'component' on [127.0.0.1]:{ComponentPort}");
        var before = Log.Split(opened).Length;
        process = Process.Start(
            new ProcessStartInfo("prosody", ["-F", "--config", ConfigurationFile])
            {
                RedirectStandardError = true,
                RedirectStandardOutput = true,
            }
        )!;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();

        // The log says when its own port is open; a connection alone could be to another program's.
        var since = TimeProvider.System.GetTimestamp();
        while (Log.Split(opened).Length == before || !await AcceptsAsync(C2sPort, cancellationToken))
        {
            if (process.HasExited || TimeProvider.System.GetElapsedTime(since) > Patience)
            {
                throw new InvalidOperationException($"Prosody did not start:\n{Log}");
            }

            await Task.Delay(Poll, TimeProvider.System, cancellationToken);
        }
    }

    private async Task EndAsync(Func<Process, Task> end)
    {
        if (process is not { } running)
        {
            return;
        }

        process = null;
        if (!running.HasExited)
        {
            await end(running);
            await running.WaitForExitAsync().WaitAsync(Patience);
        }

        running.Dispose();
    }

    private void Keep(string? line)
    {
        lock (output)
        {
            output.AppendLine(line);
        }
    }

    private async Task WriteAccountsAsync(CancellationToken cancellationToken)
    {
        foreach (var (address, password) in options.Accounts)
        {
            var at = address.IndexOf('@', StringComparison.Ordinal);
            var accounts = Path.Combine(folder, "data", Encode(address[(at + 1)..]), "accounts");
            Directory.CreateDirectory(accounts);
            await File.WriteAllTextAsync(
                Path.Combine(accounts, $"{Encode(address[..at])}.dat"),
                $"return {{ [\"password\"] = \"{password}\"; }};",
                cancellationToken
            );
        }
    }

    // As Prosody's util.datamanager names its files.
    private static string Encode(string name) =>
        string.Concat(
            Encoding.UTF8.GetBytes(name).Select(value => char.IsAsciiLetterOrDigit((char)value) ? ((char)value).ToString() : $"%{value:x2}")
        );

    private string Configuration()
    {
        string[] modules = ["roster", "saslauth", "disco", "ping", .. options.Modules];
        var text = new StringBuilder(
            string.Create(
                CultureInfo.InvariantCulture,
                $$"""
                run_as_root = true
                data_path = "{{folder}}/data"
                pidfile = "{{folder}}/prosody.pid"
                admin_socket = "{{folder}}/admin.sock"
                log = { {{options.LogLevel}} = "{{LogFile}}" }
                plugin_paths = { {{Quoted(options.PluginPaths)}} }
                modules_enabled = { {{Quoted(modules)}} }
                modules_disabled = { "s2s" }
                authentication = "internal_plain"
                c2s_require_encryption = false
                allow_unencrypted_plain_auth = true
                interfaces = { "127.0.0.1" }
                c2s_ports = { {{C2sPort}} }
                c2s_direct_tls_ports = {}
                http_ports = {}
                https_ports = {}
                component_ports = { {{ComponentPort}} }
                component_interfaces = { "127.0.0.1" }
                component_conflict_resolve = "kick_old"

                """
            )
        );
        text.AppendLine(options.Configuration);
        foreach (var host in options.Hosts)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"VirtualHost \"{host}\"");
            text.AppendLine(options.HostConfiguration.GetValueOrDefault(host));
        }

        foreach (var domain in options.Rooms)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"Component \"{domain}\" \"muc\"");
        }

        foreach (var (domain, secret) in options.Components)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"Component \"{domain}\"\n\tcomponent_secret = \"{secret}\"");
        }

        return text.ToString();
    }

    private static string Quoted(IEnumerable<string> values) => string.Join("; ", values.Select(value => $"\"{value}\""));
}
