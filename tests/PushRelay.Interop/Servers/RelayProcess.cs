using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;

namespace PushRelay.Interop.Servers;

/// <summary>The relay as an operator runs it: a process of its own, on SQLite, that can be killed and started again on the same
/// data.</summary>
internal sealed class RelayProcess : IAsyncDisposable
{
    public const string App = "com.example.chat";
    public const string Key = "an operator's key for tests";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-e2e-").FullName;
    private readonly StringBuilder log = new();
    private readonly string[] settings;
    private Process process = null!;

    private RelayProcess(string[] settings) => this.settings = settings;

    public HttpClient Client { get; private set; } = null!;

    /// <summary>Settings, keys and database are in here.</summary>
    public string Folder => folder;

    public string Log
    {
        get
        {
            lock (log)
            {
                return log.ToString();
            }
        }
    }

    /// <summary>Starts it and waits until every server's sessions are known.</summary>
    /// <param name="apns">Where it pushes to.</param>
    /// <param name="componentPort">The XMPP server's.</param>
    /// <param name="server">The virtual host.</param>
    /// <param name="component">The component's domain.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    /// <param name="settings">More settings, <c>--A:B=c</c>.</param>
    public static async Task<RelayProcess> StartAsync(
        ApnsSimulator apns,
        int componentPort,
        string server,
        string component,
        CancellationToken cancellationToken,
        params string[] settings
    )
    {
        var relay = new RelayProcess(settings);
        await File.WriteAllTextAsync(Path.Combine(relay.folder, "key.p8"), ApnsSimulator.CreateSigningKeyPem(), cancellationToken);
        await File.WriteAllTextAsync(Path.Combine(relay.folder, "ca.pem"), apns.CaPem, cancellationToken);
        await File.WriteAllTextAsync(
            Path.Combine(relay.folder, "settings.json"),
            new JsonObject
            {
                ["Urls"] = "http://127.0.0.1:0",
                ["Xmpp"] = new JsonObject
                {
                    ["Components"] = new JsonArray(
                        new JsonObject
                        {
                            ["Host"] = "127.0.0.1",
                            ["Port"] = componentPort,
                            ["Domain"] = component,
                            ["Secret"] = "secret",
                            ["Servers"] = new JsonArray(server),
                        }
                    ),
                },
                ["Apps"] = new JsonArray(
                    new JsonObject
                    {
                        ["Id"] = App,
                        ["Apns"] = new JsonObject
                        {
                            ["TeamId"] = "ABCDE12345",
                            ["KeyId"] = "FGHIJ67890",
                            ["KeyFile"] = "key.p8",
                            ["BundleId"] = App,
                            ["Endpoint"] = apns.Endpoint.GetLeftPart(UriPartial.Authority),
                            ["TrustedCertificateFile"] = "ca.pem",
                        },
                    }
                ),
                // short, so that a test need not wait: a killed relay's leases, and the way back after an outage
                ["Dispatch"] = new JsonObject { ["MaxDelay"] = "00:00:01", ["LeaseDuration"] = "00:00:15" },
                ["Api"] = new JsonObject { ["OperatorKeys"] = new JsonArray(new JsonObject { ["Name"] = "tests", ["Key"] = Key }) },
            }.ToJsonString(),
            cancellationToken
        );
        await relay.StartAsync(cancellationToken);
        return relay;
    }

    /// <summary>Starts it again on the same data.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var address = new TaskCompletionSource<Uri>(TaskCreationOptions.RunContinuationsAsynchronously);
        process = new Process
        {
            StartInfo = new ProcessStartInfo(
                Path.Combine(AppContext.BaseDirectory, "pushrelay"),
                ["--config", Path.Combine(folder, "settings.json"), .. settings]
            )
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        process.OutputDataReceived += (_, line) => Note(line.Data, address);
        process.ErrorDataReceived += (_, line) => Note(line.Data, address);
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        Client = new HttpClient { BaseAddress = await address.Task.WaitAsync(Patience, cancellationToken) };
        Client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Key);
        await UntilAsync(IsReadyAsync, "the relay is ready", cancellationToken);

        async Task<bool> IsReadyAsync()
        {
            // 503 while its database is not open yet
            using var answer = await Client.GetAsync(new Uri("/health/ready", UriKind.Relative), cancellationToken);
            return (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(cancellationToken))!["status"] == "ready";
        }
    }

    /// <summary>As a crash does: nothing is finished, nothing is handed back.</summary>
    public async Task KillAsync()
    {
        Client.Dispose();
        process.Kill();
        await process.WaitForExitAsync();
        process.Dispose();
    }

    /// <summary>Sends it a signal, such as STOP, that it does not end by.</summary>
    public async Task SignalAsync(string signal, CancellationToken cancellationToken)
    {
        using var kill = Process.Start("kill", [$"-{signal}", process.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync(cancellationToken);
    }

    public Task LoggedAsync(string text, CancellationToken cancellationToken) =>
        UntilAsync(() => Task.FromResult(Log.Contains(text, StringComparison.Ordinal)), $"'{text}' is logged", cancellationToken);

    /// <summary>What this node takes the account's state for.</summary>
    public async Task<string> StateOfAsync(string account) =>
        (string)(await GetAsync($"/v1/accounts/{Uri.EscapeDataString(account)}"))["state"]!;

    /// <summary>It stands still and holds its connections (SIGSTOP), until <see cref="ContinueAsync"/>.</summary>
    public Task PauseAsync(CancellationToken cancellationToken) => SignalAsync("STOP", cancellationToken);

    public Task ContinueAsync(CancellationToken cancellationToken) => SignalAsync("CONT", cancellationToken);

    /// <returns>The exit code.</returns>
    public async Task<int> TerminateAsync(CancellationToken cancellationToken)
    {
        await SignalAsync("TERM", cancellationToken);
        await process.WaitForExitAsync(cancellationToken).WaitAsync(Patience, cancellationToken);
        return process.ExitCode;
    }

    public async Task<JsonNode> RegisterAsync(string account, string token, string? resource = null)
    {
        using var answer = await Client.PostAsJsonAsync(
            "/v1/devices",
            new
            {
                account,
                app = App,
                platform = "apns",
                token,
                resource,
            },
            TestContext.Current.CancellationToken
        );
        return JsonNode.Parse(await answer.EnsureSuccessStatusCode().Content.ReadAsStringAsync(TestContext.Current.CancellationToken))!;
    }

    /// <summary>The ledger of an account, oldest first.</summary>
    public async Task<JsonNode[]> DeliveriesAsync(string account) =>
        [
            .. (await GetAsync($"/v1/deliveries?limit=200&account={Uri.EscapeDataString(account)}"))["items"]!
                .AsArray()
                .Select(i => i!)
                .Reverse(),
        ];

    /// <summary>The message ids of an account's whole ledger, one for each row.</summary>
    public async Task<List<string>> MessageIdsAsync(string account)
    {
        var ids = new List<string>();
        string? cursor = null;
        do
        {
            var next = cursor is null ? "" : $"&cursor={Uri.EscapeDataString(cursor)}";
            var page = await GetAsync($"/v1/deliveries?limit=200&account={Uri.EscapeDataString(account)}{next}");
            ids.AddRange(page["items"]!.AsArray().Select(row => (string)row!["event"]!["id"]!));
            cursor = (string?)page["next"];
        } while (cursor is not null);
        return ids;
    }

    /// <summary>The row of the message with that id, once it has the state.</summary>
    public async Task<JsonNode> WaitForAsync(string account, string messageId, string state)
    {
        JsonNode? row = null;
        await UntilAsync(
            async () =>
                (
                    row = (await DeliveriesAsync(account)).FirstOrDefault(r =>
                        (string?)r["event"]!["id"] == messageId && (string?)r["state"] == state
                    )
                )
                    is not null,
            $"the row of {messageId} is {state}",
            TestContext.Current.CancellationToken
        );
        return row!;
    }

    public async Task UntilAsync(Func<Task<bool>> holds, string what, CancellationToken cancellationToken)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (!await holds())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(started) < Patience, $"It never came true that {what}. {Log}");
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, cancellationToken);
        }
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            if (!process.HasExited)
            {
                await KillAsync();
            }
        }
        catch (InvalidOperationException)
        {
            // killed by the test itself
        }

        Directory.Delete(folder, recursive: true);
    }

    public async Task<JsonNode> GetAsync(string path) =>
        JsonNode.Parse(await Client.GetStringAsync(path, TestContext.Current.CancellationToken))!;

    private void Note(string? line, TaskCompletionSource<Uri> address)
    {
        if (line is null)
        {
            address.TrySetException(new InvalidOperationException($"The relay ended. {Log}"));
            return;
        }

        lock (log)
        {
            log.AppendLine(line);
        }

        const string Listening = "Now listening on: ";
        var at = line.IndexOf(Listening, StringComparison.Ordinal);
        if (at >= 0)
        {
            // a line of text, or a member of a line of JSON
            address.TrySetResult(
                new Uri(line[(at + Listening.Length)..].Split(['"', '\\', ' '], StringSplitOptions.RemoveEmptyEntries)[0])
            );
        }
    }
}
