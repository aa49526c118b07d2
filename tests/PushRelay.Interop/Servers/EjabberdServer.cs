using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace PushRelay.Interop.Servers;

/// <summary>A real ejabberd of its own with the module: random ports on loopback, everything in a temporary folder; three accounts.</summary>
internal sealed class EjabberdServer : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-ejabberd-").FullName;
    private readonly StringBuilder output = new();
    private readonly int adminPort;
    private Process? process;

    private EjabberdServer()
    {
        using var first = new TcpListener(IPAddress.Loopback, 0);
        using var second = new TcpListener(IPAddress.Loopback, 0);
        using var third = new TcpListener(IPAddress.Loopback, 0);
        first.Start();
        second.Start();
        third.Start();
        (C2sPort, ComponentPort, adminPort) = (Port(first), Port(second), Port(third));
    }

    public int C2sPort { get; }

    public int ComponentPort { get; }

    /// <summary>Compiles the module of that folder and returns when the accounts are made.</summary>
    public static async Task<EjabberdServer> StartAsync(string moduleFolder, CancellationToken cancellationToken)
    {
        var server = new EjabberdServer();
        try
        {
            await server.LaunchAsync(moduleFolder, cancellationToken);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (process is { HasExited: false } running)
        {
            running.Kill(entireProcessTree: true);
            await running.WaitForExitAsync();
        }

        process?.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    private static int Port(TcpListener listener) => ((IPEndPoint)listener.LocalEndpoint).Port;

    private static async Task<string> RunAsync(string program, string[] arguments, CancellationToken cancellationToken)
    {
        using var run = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        var text = await run.StandardOutput.ReadToEndAsync(cancellationToken);
        await run.WaitForExitAsync(cancellationToken);
        return run.ExitCode == 0 ? text : throw new InvalidOperationException($"{program} failed: {text}");
    }

    private async Task LaunchAsync(string moduleFolder, CancellationToken cancellationToken)
    {
        var home = Directory.GetDirectories("/usr/lib").SelectMany(d => Directory.GetDirectories(d, "ejabberd-*"))
            .FirstOrDefault(d => Directory.Exists(Path.Combine(d, "ebin")))
            ?? throw new InvalidOperationException("ejabberd is not installed; ./test.sh installs what the tests need.");
        var erlang = await RunAsync("erl", ["-noshell", "-eval", "io:put_chars(code:lib_dir()), halt()."], cancellationToken);
        string[] includes = [.. new[] { Path.Combine(home, "include") }.Concat(Directory.GetDirectories(erlang, "p1_xm*").Select(d => Path.Combine(d, "include"))).SelectMany(i => new[] { "-I", i })];
        await RunAsync("erlc", [.. includes, "-pa", Path.Combine(home, "ebin"), "-o", folder, Path.Combine(moduleFolder, "mod_push_relay.erl")], cancellationToken);
        await File.WriteAllTextAsync(Path.Combine(folder, "ejabberd.yml"), Configuration(), cancellationToken);
        process = new Process
        {
            StartInfo = new ProcessStartInfo("erl", ["+S", "2:2", "-noinput", "-mnesia", "dir", $"\"{folder}/db\"", "-pa", folder, "-s", "ejabberd"])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                Environment =
                {
                    ["ERL_LIBS"] = Path.GetDirectoryName(home)!,
                    ["EJABBERD_CONFIG_PATH"] = Path.Combine(folder, "ejabberd.yml"),
                    ["EJABBERD_LOG_PATH"] = Path.Combine(folder, "ejabberd.log"),
                },
            },
        };
        process.OutputDataReceived += (_, line) => output.AppendLine(line.Data);
        process.ErrorDataReceived += (_, line) => output.AppendLine(line.Data);
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{adminPort.ToString(CultureInfo.InvariantCulture)}/") };
        foreach (var user in (string[])["alice", "bob", "carol"])
        {
            await RegisterAsync(client, user, cancellationToken);
        }
    }

    private async Task RegisterAsync(HttpClient client, string user, CancellationToken cancellationToken)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (true)
        {
            try
            {
                // as text: ejabberd does not take a body in chunks
                using var body = new StringContent($$"""{"user":"{{user}}","host":"{{ProsodyServer.Host}}","password":"pw"}""", Encoding.UTF8, "application/json");
                using var answer = await client.PostAsync("/api/register", body, cancellationToken);
                answer.EnsureSuccessStatusCode();
                return;
            }
            catch (HttpRequestException exception)
            {
                if (process!.HasExited || TimeProvider.System.GetElapsedTime(started) > Patience)
                {
                    throw new InvalidOperationException($"ejabberd did not start: {output}", exception);
                }

                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellationToken);
            }
        }
    }

    private string Configuration() => string.Create(CultureInfo.InvariantCulture, $$$"""
        hosts: [{{{ProsodyServer.Host}}}]
        loglevel: info
        auth_password_format: plain
        listen:
          - {port: {{{C2sPort}}}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, access: all}
          - {port: {{{ComponentPort}}}, ip: "127.0.0.1", module: ejabberd_service, access: all, hosts: {"{{{ProsodyServer.Component}}}": {password: secret} } }
          - {port: {{{adminPort}}}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {/api: mod_http_api}}
        api_permissions: {all: {who: all, what: "*"}}
        modules:
          mod_roster: {}
          mod_disco: {}
          mod_ping: {}
          mod_client_state: {}
          mod_offline: {}
          mod_caps: {}
          mod_http_api: {}
          mod_admin_extra: {}
          mod_mam: {default: always}
          mod_stream_mgmt: {resend_on_timeout: if_offline}
          mod_push_relay: {component: {{{ProsodyServer.Component}}} }
        """);
}
