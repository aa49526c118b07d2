using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json.Nodes;

namespace PushRelay.Rig;

/// <summary>One relay as an operator runs it: a process with a settings file and a log file, which can be killed, stopped and started
/// again.</summary>
/// <param name="folder">Settings, master key, SQLite database and log are in here; nodes of one PostgreSQL share it.</param>
/// <param name="name">Tells the files of nodes apart.</param>
internal sealed class RelayNode(string folder, string name) : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    private Process? process;
    private double cpuBefore;
    private long peakBefore;

    public string LogFile { get; } = Path.Combine(folder, $"{name}.log");

    public int ProcessId => process!.Id;

    public bool IsRunning => process is { HasExited: false };

    public int ExitCode => process!.ExitCode;

    public HttpClient Client { get; private set; } = null!;

    /// <summary>Of all its lives.</summary>
    public double CpuSeconds => cpuBefore + (IsRunning ? ProcessFigures.CpuSeconds(ProcessId) : 0);

    public long PeakBytes => Math.Max(peakBefore, IsRunning ? ProcessFigures.PeakBytes(ProcessId) : 0);

    /// <summary>The settings of a rehearsal.</summary>
    /// <param name="componentPort">The peer's.</param>
    /// <param name="apns">Where it pushes to; its authority must stand in <c>ca.pem</c>, the signing key in <c>key.p8</c>.</param>
    /// <param name="postgreSql">A connection string; null: SQLite in the folder.</param>
    public static JsonObject Settings(int componentPort, Uri apns, string? postgreSql) =>
        new()
        {
            ["Urls"] = "http://127.0.0.1:0",
            ["Storage"] = new JsonObject
            {
                ["Provider"] = postgreSql is null ? "Sqlite" : "PostgreSql",
                ["ConnectionString"] = postgreSql ?? "Data Source=pushrelay.db",
                ["MasterKeyFile"] = "master.key",
            },
            ["Xmpp"] = new JsonObject
            {
                ["Components"] = new JsonArray(
                    new JsonObject
                    {
                        ["Host"] = "127.0.0.1",
                        ["Port"] = componentPort,
                        ["Domain"] = Rehearsal.Component,
                        ["Secret"] = Rehearsal.Secret,
                        ["Servers"] = new JsonArray(Rehearsal.Server),
                    }
                ),
            },
            ["Apps"] = new JsonArray(App(Rehearsal.App, apns)),
            ["Dispatch"] = new JsonObject(),
            ["Api"] = new JsonObject
            {
                ["OperatorKeys"] = new JsonArray(new JsonObject { ["Name"] = "rehearsal", ["Key"] = Rehearsal.OperatorKey }),
            },
        };

    public static JsonObject App(string id, Uri apns) =>
        new()
        {
            ["Id"] = id,
            ["Apns"] = new JsonObject
            {
                ["TeamId"] = Rehearsal.TeamId,
                ["KeyId"] = Rehearsal.KeyId,
                ["KeyFile"] = "key.p8",
                ["BundleId"] = id,
                ["Endpoint"] = apns.GetLeftPart(UriPartial.Authority),
                ["TrustedCertificateFile"] = "ca.pem",
            },
        };

    /// <summary>Starts it and waits until it answers requests; that a link is up is not waited for.</summary>
    /// <param name="settings">As <see cref="Settings"/> made them; null: those of before.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <param name="environment">Further variables, such as a failpoint.</param>
    public async Task StartAsync(
        JsonObject? settings,
        CancellationToken cancellationToken,
        params (string Name, string Value)[] environment
    )
    {
        var file = Path.Combine(folder, $"{name}.json");
        if (settings is not null)
        {
            await File.WriteAllTextAsync(file, settings.ToJsonString(), cancellationToken);
        }

        var logged = File.Exists(LogFile) ? new FileInfo(LogFile).Length : 0;
        // the shell becomes the relay: the process id is the relay's, and nobody need read what it logs
        var program = Path.Combine(AppContext.BaseDirectory, "pushrelay");
        var start = new ProcessStartInfo("/bin/sh", ["-c", "exec \"$0\" --config \"$1\" >>\"$2\" 2>&1", program, file, LogFile]);
        foreach (var (key, value) in environment)
        {
            start.Environment[key] = value;
        }

        process?.Dispose();
        process = Process.Start(start)!;
        Uri? address = null;
        await Until.TrueAsync(
            async () => (address = await AddressAsync(logged, cancellationToken)) is not null || !IsRunning,
            "the relay listens",
            Patience,
            cancellationToken
        );
        if (address is null)
        {
            throw new InvalidOperationException(
                $"The relay ended with exit code {ExitCode.ToString(CultureInfo.InvariantCulture)}: {Tail()}"
            );
        }

        Client?.Dispose();
        Client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = 256 }) { BaseAddress = address };
        Client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Rehearsal.OperatorKey);
    }

    /// <summary><c>kill -9</c>.</summary>
    public async Task KillAsync()
    {
        cpuBefore = CpuSeconds;
        peakBefore = PeakBytes;
        process!.Kill();
        await process.WaitForExitAsync();
    }

    /// <summary>SIGTERM, and the exit code.</summary>
    public async Task<int> TerminateAsync(CancellationToken cancellationToken)
    {
        (cpuBefore, peakBefore) = (CpuSeconds, PeakBytes);
        Signal("TERM");
        await ExitAsync(cancellationToken);
        return ExitCode;
    }

    /// <summary>Waits until it ended by itself or by a failpoint.</summary>
    public Task ExitAsync(CancellationToken cancellationToken) =>
        process!.WaitForExitAsync(cancellationToken).WaitAsync(Patience, cancellationToken);

    public void Signal(string signal) => ProcessFigures.Signal(ProcessId, signal);

    /// <summary>Waits until it is ready: database there, link up, sessions known.</summary>
    public Task ReadyAsync(CancellationToken cancellationToken) =>
        Until.TrueAsync(async () => await StatusAsync(cancellationToken) == "ready", "the relay is ready", Patience, cancellationToken);

    /// <returns>What <c>/health/ready</c> says, such as <c>ready</c>; empty where there is no answer.</returns>
    public async Task<string> StatusAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var answer = await Client.GetAsync(new Uri("/health/ready", UriKind.Relative), cancellationToken);
            return (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(cancellationToken))?["status"] ?? "";
        }
        catch (HttpRequestException)
        {
            return "";
        }
    }

    /// <summary>Registers the devices <paramref name="first"/> and following over REST, many at a time.</summary>
    public async Task RegisterAsync(int first, int count, CancellationToken cancellationToken, string app = Rehearsal.App)
    {
        await Parallel.ForEachAsync(
            Enumerable.Range(first, count),
            new ParallelOptions { MaxDegreeOfParallelism = 64, CancellationToken = cancellationToken },
            async (device, token) =>
            {
                using var answer = await Client.PostAsJsonAsync(
                    new Uri("/v1/devices", UriKind.Relative),
                    new
                    {
                        account = Rehearsal.Account(device),
                        app,
                        platform = "apns",
                        token = Rehearsal.Token(device),
                    },
                    token
                );
                answer.EnsureSuccessStatusCode();
            }
        );
    }

    public string Log() => File.Exists(LogFile) ? ReadLog(0) : "";

    public async ValueTask DisposeAsync()
    {
        if (IsRunning)
        {
            await KillAsync();
        }

        process?.Dispose();
        Client?.Dispose();
    }

    private string Tail()
    {
        var log = Log();
        return log[Math.Max(0, log.Length - 2000)..];
    }

    private string ReadLog(long from)
    {
        using var stream = new FileStream(LogFile, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        stream.Position = from;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }

    private Task<Uri?> AddressAsync(long from, CancellationToken cancellationToken)
    {
        const string Listening = "Now listening on: ";
        cancellationToken.ThrowIfCancellationRequested();
        var text = File.Exists(LogFile) ? ReadLog(from) : "";
        var at = text.IndexOf(Listening, StringComparison.Ordinal);
        var end = at < 0 ? -1 : text.IndexOf('\n', at);
        // a member of a line of JSON
        return Task.FromResult(
            end < 0 ? null : new Uri(text[(at + Listening.Length)..end].Split(['"', '\\', ' '], StringSplitOptions.RemoveEmptyEntries)[0])
        );
    }
}

/// <summary>Waits for what another process does and cannot signal.</summary>
internal static class Until
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(20);

    /// <exception cref="TimeoutException">It did not come true in that time.</exception>
    public static async Task TrueAsync(
        Func<Task<bool>> holds,
        string what,
        TimeSpan patience,
        CancellationToken cancellationToken,
        TimeSpan? pause = null
    )
    {
        var started = TimeProvider.System.GetTimestamp();
        while (!await holds())
        {
            if (TimeProvider.System.GetElapsedTime(started) > patience)
            {
                throw new TimeoutException(
                    $"It did not come true within {patience.TotalSeconds.ToString(CultureInfo.InvariantCulture)} s that {what}."
                );
            }

            await Task.Delay(pause ?? Pause, TimeProvider.System, cancellationToken);
        }
    }
}
