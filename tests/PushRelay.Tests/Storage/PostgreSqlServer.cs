using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;

[assembly: AssemblyFixture(typeof(PushRelay.Tests.Storage.PostgreSqlServer))]

namespace PushRelay.Tests.Storage;

/// <summary>A real PostgreSQL of this test run's own, started when the first test asks: a temporary cluster on a free port of the
/// loopback.</summary>
public sealed class PostgreSqlServer : IAsyncLifetime
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-pg-").FullName;
    private readonly SemaphoreSlim starting = new(1);
    private Process? server;
    private int port;
    private int databases;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    /// <summary>The connection string of a fresh, empty database.</summary>
    public async Task<string> NewDatabaseAsync(CancellationToken cancellationToken)
    {
        await starting.WaitAsync(cancellationToken);
        try
        {
            server ??= await StartAsync(cancellationToken);
        }
        finally
        {
            starting.Release();
        }

        var name = $"t{Interlocked.Increment(ref databases).ToString(CultureInfo.InvariantCulture)}";
        await using var connection = new NpgsqlConnection(ConnectionString("postgres"));
        await connection.OpenAsync(cancellationToken);
        await using var command = new NpgsqlCommand($"CREATE DATABASE {name}", connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
        return ConnectionString(name);
    }

    public async ValueTask DisposeAsync()
    {
        if (server is { HasExited: false })
        {
            // SIGINT: PostgreSQL's fast shutdown
            using var kill = Process.Start("kill", ["-INT", server.Id.ToString(CultureInfo.InvariantCulture)]);
            await kill.WaitForExitAsync();
            await server.WaitForExitAsync();
        }

        server?.Dispose();
        starting.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    private string ConnectionString(string database) =>
        $"Host=127.0.0.1;Port={port.ToString(CultureInfo.InvariantCulture)};Username=postgres;Database={database};Maximum Pool "
        + $"Size=20;Connection Idle Lifetime=5;Connection Pruning Interval=2";

    private async Task<Process> StartAsync(CancellationToken cancellationToken)
    {
        var bin = FindBin();
        var data = Path.Combine(folder, "data");
        if (Environment.IsPrivilegedProcess)
        {
            // PostgreSQL refuses to run as root; Debian's package brings its user
            await RunAsync("chown", ["postgres", folder], cancellationToken);
        }

        await RunAsync(
            AsPostgres(Path.Combine(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"),
            cancellationToken
        );
        port = FreePort();
        var start = AsPostgres(
            Path.Combine(bin, "postgres"),
            "-D",
            data,
            "-p",
            port.ToString(CultureInfo.InvariantCulture),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            $"unix_socket_directories={folder}",
            "-c",
            "logging_collector=off",
            "-c",
            "max_connections=400"
        );
        start.RedirectStandardError = true;
        var process = Process.Start(start)!;
        var ready = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        process.ErrorDataReceived += (_, line) =>
        {
            if (line.Data?.Contains("ready to accept connections", StringComparison.Ordinal) == true)
            {
                ready.TrySetResult();
            }
        };
        process.BeginErrorReadLine();
        await ready.Task.WaitAsync(TimeSpan.FromSeconds(30), cancellationToken);
        return process;
    }

    private static string FindBin() =>
        (Directory.Exists("/usr/lib/postgresql") ? Directory.GetDirectories("/usr/lib/postgresql") : [])
            .Select(version => Path.Combine(version, "bin"))
            .Where(bin => File.Exists(Path.Combine(bin, "initdb")))
            .Order(StringComparer.Ordinal)
            .LastOrDefault()
        ?? throw new InvalidOperationException("PostgreSQL is not installed; ./test.sh installs what the tests need.");

    private static ProcessStartInfo AsPostgres(string program, params string[] arguments) =>
        Environment.IsPrivilegedProcess
            ? new ProcessStartInfo("setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", program, .. arguments])
            {
                WorkingDirectory = "/",
            }
            : new ProcessStartInfo(program, arguments);

    private static Task RunAsync(string program, string[] arguments, CancellationToken cancellationToken) =>
        RunAsync(new ProcessStartInfo(program, arguments), cancellationToken);

    private static async Task RunAsync(ProcessStartInfo start, CancellationToken cancellationToken)
    {
        start.RedirectStandardOutput = true;
        start.RedirectStandardError = true;
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(cancellationToken);
        var errors = await process.StandardError.ReadToEndAsync(cancellationToken);
        await process.WaitForExitAsync(cancellationToken);
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{start.FileName} failed: {await output} {errors}");
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
