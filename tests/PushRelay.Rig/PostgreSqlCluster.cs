using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace PushRelay.Rig;

/// <summary>A private PostgreSQL that may be killed: a new cluster in a temporary folder, synchronous_commit and fsync on, a free port of
/// the loopback.</summary>
internal sealed class PostgreSqlCluster : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-rig-pg-").FullName;
    private readonly int port = FreePort();
    private readonly string[] settings;
    private Process server = null!;
    private int databases;

    private PostgreSqlCluster(string[] settings) => this.settings = settings;

    /// <summary>The postmaster's.</summary>
    public int ProcessId => server.Id;

    public int Port => port;

    /// <param name="settings">Of postgresql.conf, such as <c>max_connections=20</c>.</param>
    /// <param name="cancellationToken">Stops the start.</param>
    public static async Task<PostgreSqlCluster> StartAsync(string[] settings, CancellationToken cancellationToken)
    {
        var cluster = new PostgreSqlCluster(settings);
        if (Environment.IsPrivilegedProcess)
        {
            // PostgreSQL refuses to run as root; Debian's package brings its user
            await RunAsync(new ProcessStartInfo("chown", ["postgres", cluster.folder]), cancellationToken);
        }

        await RunAsync(
            cluster.Command("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"),
            cancellationToken
        );
        await cluster.StartAsync(cancellationToken);
        return cluster;
    }

    public string ConnectionString(string database, int? serverPort = null) =>
        string.Create(CultureInfo.InvariantCulture, $"Host=127.0.0.1;Port={serverPort ?? port};Username=postgres;Database={database}");

    /// <summary>The name of a fresh, empty database.</summary>
    public async Task<string> NewDatabaseAsync(CancellationToken cancellationToken)
    {
        var name = string.Create(CultureInfo.InvariantCulture, $"rehearsal{Interlocked.Increment(ref databases)}");
        await using var connection = new NpgsqlConnection(ConnectionString("postgres") + ";Pooling=false");
        await connection.OpenAsync(cancellationToken);
        await using var command = new NpgsqlCommand($"CREATE DATABASE {name}", connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
        return name;
    }

    /// <summary>Starts it on its data, which it recovers first where it did not end in order.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (!await TryStartAsync(cancellationToken))
        {
            // the children of a postmaster that was killed may still hold its shared memory for a moment
            if (TimeProvider.System.GetElapsedTime(started) > Patience)
            {
                throw new InvalidOperationException(
                    $"PostgreSQL does not start: {await File.ReadAllTextAsync(Path.Combine(folder, "log"), cancellationToken)}"
                );
            }

            await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken);
        }
    }

    /// <summary>As <c>pg_ctl stop -m immediate</c>: no checkpoint, every connection cut (SIGQUIT).</summary>
    public Task StopAtOnceAsync(CancellationToken cancellationToken) => EndAsync("QUIT", cancellationToken);

    /// <summary><c>kill -9</c> of the postmaster; its children notice.</summary>
    public Task KillAsync(CancellationToken cancellationToken) => EndAsync("KILL", cancellationToken);

    /// <summary><c>kill -9</c> of one backend: the postmaster then restarts all of them.</summary>
    public static void KillBackend(int pid) => ProcessFigures.Signal(pid, "KILL");

    public async ValueTask DisposeAsync()
    {
        if (server is { HasExited: false })
        {
            await EndAsync("INT", CancellationToken.None);
        }

        server.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    private async Task EndAsync(string signal, CancellationToken cancellationToken)
    {
        ProcessFigures.Signal(server.Id, signal);
        await server.WaitForExitAsync(cancellationToken).WaitAsync(Patience, cancellationToken);
    }

    private async Task<bool> TryStartAsync(CancellationToken cancellationToken)
    {
        var log = Path.Combine(folder, "log");
        server?.Dispose();
        string[] all = ["listen_addresses=127.0.0.1", "logging_collector=off", "max_connections=200", .. settings];
        var given = all.SelectMany(setting => (string[])["-c", setting]);
        var postgres = Command(
            "postgres",
            ["-p", port.ToString(CultureInfo.InvariantCulture), "-c", $"unix_socket_directories={folder}", .. given]
        );
        postgres.RedirectStandardError = true;
        postgres.RedirectStandardOutput = true;
        server = Process.Start(postgres)!;
        var ready = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        var writing = new Lock();
        server.ErrorDataReceived += (_, line) =>
        {
            lock (writing)
            {
                File.AppendAllText(log, line.Data + "\n");
            }

            if (line.Data is null || line.Data.Contains("ready to accept connections", StringComparison.Ordinal))
            {
                ready.TrySetResult(line.Data is not null);
            }
        };
        server.BeginErrorReadLine();
        server.BeginOutputReadLine();
        return await ready.Task.WaitAsync(Patience, cancellationToken);
    }

    private ProcessStartInfo Command(string program, params string[] arguments)
    {
        var path = Path.Combine(Bin(), program);
        string[] all = ["-D", Path.Combine(folder, "data"), .. arguments];
        return Environment.IsPrivilegedProcess
            ? new ProcessStartInfo("setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", path, .. all])
            {
                WorkingDirectory = "/",
            }
            : new ProcessStartInfo(path, all);
    }

    private static string Bin() =>
        (Directory.Exists("/usr/lib/postgresql") ? Directory.GetDirectories("/usr/lib/postgresql") : [])
            .Select(version => Path.Combine(version, "bin"))
            .Where(bin => File.Exists(Path.Combine(bin, "initdb")))
            .Order(StringComparer.Ordinal)
            .LastOrDefault()
        ?? throw new InvalidOperationException("PostgreSQL is not installed; ./test.sh installs what the tests need.");

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
        using var free = new TcpListener(IPAddress.Loopback, 0);
        free.Start();
        return ((IPEndPoint)free.LocalEndpoint).Port;
    }
}
