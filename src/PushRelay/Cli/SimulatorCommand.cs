using System.CommandLine;
using System.Net;
using System.Runtime.InteropServices;
using PushRelay.Apns.Simulator;
using PushRelay.Settings;

namespace PushRelay.Cli;

/// <summary><c>apns-sim</c>: an APNs simulator, for rehearsals and demos.</summary>
internal static class SimulatorCommand
{
    private static readonly Option<int> Port = new("--port")
    {
        Description = "The APNs port (HTTP/2 over TLS); 0 takes a free one.",
        DefaultValueFactory = _ => 2197,
    };

    private static readonly Option<int> ControlPort = new("--control-port")
    {
        Description = "The port for scripts and inspection (plain HTTP); 0 takes a free one.",
        DefaultValueFactory = _ => 2198,
    };

    private static readonly Option<string?> CaOut = new("--ca-out")
    {
        Description = "Writes the authority's certificate to this file, for setting TrustedCertificateFile.",
        HelpName = "FILE",
    };

    private static readonly Option<string?> KeyFile = new("--key-file")
    {
        Description = "A signing key (.p8), made if it does not exist; with it the signatures of provider tokens are checked.",
        HelpName = "FILE",
    };

    private static readonly Option<string> TeamId = new("--team-id")
    {
        Description = "The team of that key.",
        DefaultValueFactory = _ => "ABCDE12345",
    };

    private static readonly Option<string> KeyId = new("--key-id")
    {
        Description = "The id of that key.",
        DefaultValueFactory = _ => "FGHIJ67890",
    };

    private static readonly Option<string> Listen = new("--listen")
    {
        Description = "The address to listen on. The control port has no authentication: keep both where only testers reach them.",
        DefaultValueFactory = _ => "127.0.0.1",
        HelpName = "ADDRESS",
    };

    private static readonly Option<string[]> Hosts = new("--host")
    {
        Description = "A further name that the certificate is valid for.",
        HelpName = "NAME",
    };

    public static Command Create()
    {
        var command = new Command("apns-sim", "Runs an APNs simulator that answers as Apple does, with faults on request.")
        {
            Port,
            ControlPort,
            CaOut,
            KeyFile,
            TeamId,
            KeyId,
            Listen,
            Hosts,
        };
        command.SetAction(RunAsync);
        return command;
    }

    private static async Task<int> RunAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        if (!IPAddress.TryParse(parsed.GetValue(Listen), out var address))
        {
            throw new SettingsException(null, $"--listen is '{parsed.GetValue(Listen)}'; it must be an IP address.");
        }

        await using var simulator = await ApnsSimulator.StartAsync(
            new ApnsSimulatorOptions
            {
                Port = parsed.GetValue(Port),
                ControlPort = parsed.GetValue(ControlPort),
                Address = address,
                ControlAddress = address,
                HostNames = parsed.GetValue(Hosts) ?? [],
                Keys = await ReadKeyAsync(parsed, cancellationToken),
            },
            cancellationToken
        );
        if (parsed.GetValue(CaOut) is { } caFile)
        {
            await WriteAsync(
                caFile,
                simulator.CaPem,
                UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead,
                cancellationToken
            );
        }

        // the simulator's own web host handles the signals, and the command would not end
        var stopped = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        void Stop(PosixSignalContext context)
        {
            context.Cancel = true;
            stopped.TrySetResult();
        }

        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        Console.WriteLine($"APNs simulator: push to {simulator.Endpoint}, look at {simulator.ControlEndpoint}");
        await stopped.Task;
        return 0;
    }

    private static async Task<IReadOnlyList<ApnsSimulatorKey>> ReadKeyAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        if (parsed.GetValue(KeyFile) is not { } file)
        {
            return [];
        }

        if (!File.Exists(file))
        {
            await WriteAsync(file, ApnsSimulator.CreateSigningKeyPem(), UnixFileMode.UserRead | UnixFileMode.UserWrite, cancellationToken);
        }

        return
        [
            new ApnsSimulatorKey(parsed.GetValue(TeamId)!, parsed.GetValue(KeyId)!, await File.ReadAllTextAsync(file, cancellationToken)),
        ];
    }

    /// <summary>Atomically: a process that waits for the file never reads half of it.</summary>
    private static async Task WriteAsync(string file, string text, UnixFileMode mode, CancellationToken cancellationToken)
    {
        var path = Path.GetFullPath(file);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        await File.WriteAllTextAsync(path + ".new", text, cancellationToken);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path + ".new", mode);
        }

        File.Move(path + ".new", path, overwrite: true);
    }
}
