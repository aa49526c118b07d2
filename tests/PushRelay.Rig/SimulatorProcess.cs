using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text;
using PushRelay.Apns.Simulator;

namespace PushRelay.Rig;

/// <summary>The simulator in a child of the program that measures, with a record of every request that the child keeps and hands over at
/// the end.</summary>
internal sealed class SimulatorProcess : IAsyncDisposable
{
    public const string Command = "simulator-child";

    private readonly Process process;
    private readonly string folder;
    private readonly HttpClient control = new();

    private SimulatorProcess(Process process, string folder, Uri endpoint, Uri controlEndpoint)
    {
        this.process = process;
        this.folder = folder;
        Endpoint = endpoint;
        control.BaseAddress = controlEndpoint;
    }

    public Uri Endpoint { get; }

    public int ProcessId => process.Id;

    /// <param name="folder">Gets <c>key.p8</c> and <c>ca.pem</c>, what a relay needs.</param>
    /// <param name="latency">Each answer comes this much later.</param>
    /// <param name="cancellationToken">Stops the start.</param>
    public static async Task<SimulatorProcess> StartAsync(string folder, TimeSpan latency, CancellationToken cancellationToken)
    {
        var process = Process.Start(
            new ProcessStartInfo(
                Environment.ProcessPath!,
                [Command, folder, latency.TotalMilliseconds.ToString(CultureInfo.InvariantCulture)]
            )
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            }
        )!;
        var said = (
            await process.StandardOutput.ReadLineAsync(cancellationToken)
            ?? throw new InvalidOperationException("The simulator did not start.")
        ).Split(' ');
        return new SimulatorProcess(process, folder, new Uri(said[0]), new Uri(said[1]));
    }

    /// <summary>The child: until its input ends.</summary>
    public static async Task<int> RunChildAsync(string[] args)
    {
        var (folder, latency) = (args[0], TimeSpan.FromMilliseconds(double.Parse(args[1], CultureInfo.InvariantCulture)));
        var pem = ApnsSimulator.CreateSigningKeyPem();
        var recorder = new AlertRecorder(latency);
        await using var simulator = await ApnsSimulator.StartAsync(
            new ApnsSimulatorOptions
            {
                Keys = [new ApnsSimulatorKey(Rehearsal.TeamId, Rehearsal.KeyId, pem)],
                KeepMax = 0,
                Latency = latency,
                OnReceived = recorder.Receive,
            },
            CancellationToken.None
        );
        await File.WriteAllTextAsync(Path.Combine(folder, "key.p8"), pem);
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), simulator.CaPem);
        Console.WriteLine($"{simulator.Endpoint} {simulator.ControlEndpoint}");
        while (await Console.In.ReadLineAsync() is { } file)
        {
            await AlertRecorder.WriteAsync(recorder.Snapshot(), file);
            Console.WriteLine("written");
        }

        return 0;
    }

    /// <summary>Adds a script as the control port takes it.</summary>
    public async Task ScriptAsync(string json, CancellationToken cancellationToken)
    {
        using var content = new StringContent(json, Encoding.UTF8, "application/json");
        using var answer = await control.PostAsync(new Uri("/script", UriKind.Relative), content, cancellationToken);
        if (!answer.IsSuccessStatusCode)
        {
            throw new InvalidOperationException(
                $"The simulator does not take the script: {await answer.Content.ReadAsStringAsync(cancellationToken)}"
            );
        }
    }

    public async Task ClearScriptAsync(CancellationToken cancellationToken)
    {
        using var answer = await control.DeleteAsync(new Uri("/script", UriKind.Relative), cancellationToken);
        answer.EnsureSuccessStatusCode();
    }

    /// <summary>Requests so far.</summary>
    public async Task<long> ReceivedAsync(CancellationToken cancellationToken) =>
        (await control.GetFromJsonAsync<Health>(new Uri("/health", UriKind.Relative), cancellationToken))!.Received;

    /// <summary>Every request so far.</summary>
    public async Task<AlertRecord[]> RecordsAsync(CancellationToken cancellationToken)
    {
        var file = Path.Combine(folder, "alerts.bin");
        await process.StandardInput.WriteLineAsync(file.AsMemory(), cancellationToken);
        await process.StandardInput.FlushAsync(cancellationToken);
        await process.StandardOutput.ReadLineAsync(cancellationToken);
        return await AlertRecorder.ReadAsync(file);
    }

    public async ValueTask DisposeAsync()
    {
        process.StandardInput.Close();
        await process.WaitForExitAsync();
        process.Dispose();
        control.Dispose();
    }

    private sealed record Health(long Received);
}
