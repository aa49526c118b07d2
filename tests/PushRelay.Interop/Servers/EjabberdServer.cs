using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace PushRelay.Interop.Servers;

/// <summary>A real ejabberd of its own, with the module compiled against it; started without distribution, so many fit on a
/// machine.</summary>
internal sealed class EjabberdServer : XmppServer
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-ejabberd-").FullName;
    private readonly StringBuilder output = new();
    private readonly HttpClient admin = new() { Timeout = Patience };
    private readonly string installed = Directory.GetDirectories(
        "/usr/lib",
        "ejabberd-*-*",
        new EnumerationOptions { RecurseSubdirectories = true, MaxRecursionDepth = 1 }
    )[0];
    private Process? process;
    private int adminPort;
    private int reloads;
    private bool hasModule = true;

    private EjabberdServer() { }

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

    private string LogFile => Path.Combine(folder, "ejabberd.log");

    private string ConfigurationFile => Path.Combine(folder, "ejabberd.yml");

    /// <summary>Compiles the module of that folder, and returns when the ports are open and the accounts exist.</summary>
    /// <exception cref="InvalidOperationException">It ended or did not open its ports; the message holds its log.</exception>
    public static async Task<EjabberdServer> StartAsync(string modulePath, CancellationToken cancellationToken, bool hasModule = true)
    {
        var server = new EjabberdServer { hasModule = hasModule };
        try
        {
            (server.C2sPort, server.ComponentPort) = FreePorts();
            (server.adminPort, _) = FreePorts();
            server.admin.BaseAddress = new Uri($"http://127.0.0.1:{server.adminPort}/api/");
            await server.CompileAsync(modulePath, cancellationToken);
            await server.ConfigureAsync(cancellationToken);
            await server.LaunchAsync(cancellationToken);
            foreach (var user in Users)
            {
                await server.OrderAsync(
                    "register",
                    new
                    {
                        user,
                        host = Host,
                        password = "pw",
                    },
                    cancellationToken
                );
            }

            foreach (var user in BriefUsers)
            {
                await server.OrderAsync(
                    "register",
                    new
                    {
                        user,
                        host = BriefHost,
                        password = "pw",
                    },
                    cancellationToken
                );
            }

            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public override Task KillAsync() =>
        EndAsync(running =>
        {
            running.Kill();
            return running.WaitForExitAsync();
        });

    public override Task StopAsync() => EndAsync(TerminateAsync);

    public override Task KickAsync(string jid, CancellationToken cancellationToken)
    {
        var parts = jid.Split('@', '/');
        var whose = new
        {
            user = parts[0],
            host = parts[1],
            resource = parts[2],
            reason = "by the operator",
        };
        return OrderAsync("kick_session", whose, cancellationToken);
    }

    public override async Task RestartAsync(CancellationToken cancellationToken)
    {
        await KillAsync();
        await LaunchAsync(cancellationToken);
    }

    /// <summary>ejabberd reloads a module whose options have changed.</summary>
    public override async Task ReloadModuleAsync(CancellationToken cancellationToken)
    {
        reloads++;
        await ConfigureAsync(cancellationToken);
        await OrderAsync("reload_config", new { }, cancellationToken);
    }

    public override async ValueTask DisposeAsync()
    {
        await KillAsync();
        admin.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    private async Task EndAsync(Func<Process, Task> end)
    {
        if (process is not { } running)
        {
            return;
        }

        process = null;
        await end(running).WaitAsync(Patience);
        running.Dispose();
    }

    private async Task CompileAsync(string modulePath, CancellationToken cancellationToken)
    {
        var erlang = await RunAsync("erl", ["-noshell", "-eval", "io:put_chars(code:lib_dir()), halt()."], cancellationToken);
        string[] includes =
        [
            Path.Combine(installed, "include"),
            .. Directory.GetDirectories(erlang, "p1_xm*").Select(library => Path.Combine(library, "include")),
        ];
        await RunAsync(
            "erlc",
            [
                .. includes.SelectMany(include => (string[])["-I", include]),
                "-pa",
                Path.Combine(installed, "ebin"),
                "-o",
                folder,
                Path.Combine(modulePath, "mod_push_relay.erl"),
            ],
            cancellationToken
        );
    }

    private Task ConfigureAsync(CancellationToken cancellationToken) =>
        File.WriteAllTextAsync(
            ConfigurationFile,
            $$$"""
            hosts: [{{{Host}}}, {{{BriefHost}}}]
            loglevel: info
            log_rotate_count: 0
            auth_password_format: plain
            listen:
              - {port: {{{C2sPort}}}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, access: all}
              - port: {{{ComponentPort}}}
                ip: "127.0.0.1"
                module: ejabberd_service
                access: all
                hosts: {"{{{Component}}}": {password: secret} }
              - {port: {{{adminPort}}}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {/api: mod_http_api}}
            api_permissions: {all: {who: all, what: "*"}}
            modules:
              mod_roster: {}
              mod_disco: {}
              mod_ping: {}
              mod_carboncopy: {}
              mod_client_state: {}
              mod_offline: {}
              mod_mam: {default: always}
              mod_push: {include_sender: true, include_body: true}
              mod_blocking: {}
              mod_privacy: {}
              mod_caps: {}
              mod_pubsub: {plugins: [flat, pep]}
              mod_muc: {host: "rooms.@HOST@", default_room_options: {mam: false, persistent: false, allow_subscription: true} }
              mod_stream_mgmt: {resend_on_timeout: if_offline, ack_timeout: 3}
              mod_http_api: {}
              mod_admin_extra: {}
              {{{(
                hasModule ? $"mod_push_relay: {{component: {Component}, queue_time: {600 + reloads}, ack_timeout: 1}}" : "mod_version: {}"
            )}}}

            """,
            cancellationToken
        );

    private async Task LaunchAsync(CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo(
            "erl",
            ["+S", "2:2", "+sbwt", "none", "-noinput", "-mnesia", "dir", $"\"{folder}/db\"", "-pa", folder, "-s", "ejabberd"]
        )
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
            WorkingDirectory = folder,
        };
        start.Environment["ERL_LIBS"] = Path.GetDirectoryName(installed);
        start.Environment["EJABBERD_CONFIG_PATH"] = ConfigurationFile;
        start.Environment["EJABBERD_LOG_PATH"] = LogFile;
        process = Process.Start(start)!;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();

        var since = TimeProvider.System.GetTimestamp();
        foreach (var port in (int[])[C2sPort, ComponentPort, adminPort])
        {
            while (!await AcceptsAsync(port, cancellationToken))
            {
                if (process.HasExited || TimeProvider.System.GetElapsedTime(since) > Patience)
                {
                    throw new InvalidOperationException($"ejabberd did not start:\n{Log}");
                }

                await Task.Delay(Poll, TimeProvider.System, cancellationToken);
            }
        }
    }

    private async Task OrderAsync(string command, object arguments, CancellationToken cancellationToken)
    {
        // with a length: ejabberd's HTTP server does not take a body in chunks
        using var body = new StringContent(JsonSerializer.Serialize(arguments), Encoding.UTF8, "application/json");
        using var answer = await admin.PostAsync(command, body, cancellationToken);
        Assert.True(answer.IsSuccessStatusCode, $"{command}: {await answer.Content.ReadAsStringAsync(cancellationToken)}");
    }

    private static async Task<string> RunAsync(string program, string[] arguments, CancellationToken cancellationToken)
    {
        using var run = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        var told = await run.StandardOutput.ReadToEndAsync(cancellationToken);
        await run.WaitForExitAsync(cancellationToken);
        return run.ExitCode == 0
            ? told
            : throw new InvalidOperationException(
                string.Create(CultureInfo.InvariantCulture, $"{program} ended with {run.ExitCode}: {told}")
            );
    }

    private void Keep(string? line)
    {
        lock (output)
        {
            output.AppendLine(line);
        }
    }
}
