using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace PushRelay.Apns.Simulator;

/// <summary>
/// An APNs on this machine: HTTP/2 over TLS, checks what Apple checks, answers what Apple answers, and what a script orders. Also scripted
/// and inspected from outside, over plain HTTP: the README beside the project has the routes.
/// </summary>
public sealed class ApnsSimulator : IAsyncDisposable
{
    private readonly WebApplication control;
    private readonly ApnsServer server;
    private readonly Parts parts;

    private ApnsSimulator(WebApplication control, ApnsServer server, Parts parts)
    {
        this.control = control;
        this.server = server;
        this.parts = parts;
        Endpoint = Reachable("https", server.EndPoint.Address, server.EndPoint.Port);
        var controlPort = new Uri(
            control.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()
        ).Port;
        ControlEndpoint = Reachable("http", parts.Options.ControlAddress, controlPort);
    }

    /// <summary>Where to push to: <c>https://127.0.0.1:port</c>.</summary>
    public Uri Endpoint { get; }

    /// <summary>Where scripts and inspection are: <c>http://127.0.0.1:port</c>.</summary>
    public Uri ControlEndpoint { get; }

    /// <summary>The authority that signed the endpoint's certificate, for the sender to trust. New with each start.</summary>
    public string CaPem => this.parts.Certificates.CaPem;

    /// <summary>What came in, oldest first; a copy. What a fault kept from being processed is not in it.</summary>
    public IReadOnlyList<ReceivedNotification> Received => this.parts.Log.Snapshot();

    /// <summary>How many came in since the start or the last <see cref="Clear"/>, also those no longer kept.</summary>
    public long ReceivedCount => this.parts.Log.Count;

    /// <summary>How many different provider tokens were shown since the start.</summary>
    public int ProviderTokensSeen => this.parts.Tokens.Seen;

    /// <summary>How many TCP connections came since the start.</summary>
    public int ConnectionsSeen => this.server.Accepted;

    /// <summary>How many are open now, HTTP/2 spoken.</summary>
    public int ConnectionsOpen => this.server.Connections.Count;

    /// <summary>How many streams came above the limit and were refused, since the start.</summary>
    public int StreamsRefused => this.server.StreamsRefused;

    /// <summary>The rules in force, with what is left of each; a copy.</summary>
    public IReadOnlyList<ScriptRule> Rules => this.parts.Script.Snapshot();

    /// <exception cref="SocketException">The APNs port is taken.</exception>
    /// <exception cref="IOException">The control port is taken.</exception>
    /// <exception cref="FormatException">A key cannot be read.</exception>
    public static async Task<ApnsSimulator> StartAsync(ApnsSimulatorOptions options, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfNegative(options.KeepMax);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.KeepMax, 1_000_000);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.StreamsBeforeFirstAnswer, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.StreamsMax, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Latency, TimeSpan.Zero);
        var parts = new Parts(options);
        ApnsServer? server = null;
        WebApplication? control = null;
        try
        {
            server = new ApnsServer(options, parts.Certificates.Server, parts.Desk);
            control = BuildControl(options, server, parts);
            await control.StartAsync(cancellationToken);
            return new ApnsSimulator(control, server, parts);
        }
        catch
        {
            if (control is not null)
            {
                await control.DisposeAsync();
            }

            if (server is not null)
            {
                await server.DisposeAsync();
            }

            parts.Dispose();
            throw;
        }
    }

    /// <summary>A fresh signing key in the form of Apple's <c>.p8</c> files, for tests and demos.</summary>
    public static string CreateSigningKeyPem()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return key.ExportPkcs8PrivateKeyPem() + "\n";
    }

    /// <summary>Adds a rule behind those in force.</summary>
    /// <exception cref="ArgumentException">A value is out of its bounds.</exception>
    public void AnswerNext(ScriptRule rule) => this.parts.Script.Add(rule);

    /// <summary>The next <paramref name="times"/> requests that Apple would take get this instead.</summary>
    public void AnswerNext(int status, string? reason = null, int times = 1) =>
        this.parts.Script.Add(
            new ScriptRule
            {
                Status = status,
                Reason = reason,
                Times = times,
            }
        );

    public void ClearScript() => this.parts.Script.Clear();

    /// <summary>Forgets what came in and counts from 1 again.</summary>
    public void Clear() => this.parts.Log.Clear();

    /// <summary>The notification with that number, once it has come in; its answer may still be on its way.</summary>
    public Task<ReceivedNotification> WaitForAsync(long number, CancellationToken cancellationToken) =>
        this.parts.Log.WaitAsync(number, cancellationToken);

    /// <summary>Makes a device known, or changes it: takes it out of reach, back into it, removes the app.</summary>
    public void SetDevice(SimulatedDevice device)
    {
        ArgumentNullException.ThrowIfNull(device);
        this.parts.Devices.Set(device, this.parts.Options.Clock.GetUtcNow());
    }

    /// <summary>What a known device shows: a push with the collapse id of an earlier one has replaced it.</summary>
    public IReadOnlyList<ReceivedNotification> Screen(string token) => this.parts.Devices.Screen(token);

    /// <summary>What is stored for a known device that is out of reach: one for each app.</summary>
    public IReadOnlyList<ReceivedNotification> Stored(string token) => this.parts.Devices.Stored(token);

    /// <summary>Changes SETTINGS_MAX_CONCURRENT_STREAMS, on open connections too.</summary>
    public void SetStreamsMax(int streamsMax)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(streamsMax, 1);
        this.server.SetStreamsMax(streamsMax);
    }

    /// <summary>On every open connection: <see cref="ApnsFault.GoAway"/>, <see cref="ApnsFault.Close"/>, <see cref="ApnsFault.Abort"/>,
    /// <see cref="ApnsFault.HalfClose"/> or <see cref="ApnsFault.Freeze"/>.</summary>
    public void Strike(ApnsFault fault) => this.server.Strike(fault);

    public async ValueTask DisposeAsync()
    {
        // What still waits is cut off, not waited for.
        using var now = new CancellationTokenSource();
        await now.CancelAsync();
        await this.control.StopAsync(now.Token);
        await this.control.DisposeAsync();
        await this.server.DisposeAsync();
        this.parts.Dispose();
    }

    /// <summary>Bound to every address it is reached on loopback.</summary>
    private static Uri Reachable(string scheme, IPAddress address, int port)
    {
        var host =
            address.Equals(IPAddress.Any) ? IPAddress.Loopback
            : address.Equals(IPAddress.IPv6Any) ? IPAddress.IPv6Loopback
            : address;
        return new UriBuilder(scheme, host.ToString(), port).Uri;
    }

    private static WebApplication BuildControl(ApnsSimulatorOptions options, ApnsServer server, Parts parts)
    {
        var builder = WebApplication.CreateSlimBuilder(
            new WebApplicationOptions { ApplicationName = typeof(ApnsSimulator).Assembly.GetName().Name }
        );
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Listen(options.ControlAddress, options.ControlPort, listen => listen.Protocols = HttpProtocols.Http1);
        });
        var app = builder.Build();
        ControlRoutes.Map(app, server, parts);
        return app;
    }
}

/// <summary>What stands behind both ports.</summary>
internal sealed class Parts : IDisposable
{
    public Parts(ApnsSimulatorOptions options)
    {
        Options = options;
        Tokens = new ProviderTokenCheck(options.Keys);
        Script = new Script(options.Seed);
        Log = new ReceivedLog(options.KeepMax);
        Devices = new DeviceRegister(options);
        Desk = new AnswerDesk(options, new CredentialCheck(options, Tokens), Devices, Script, Log);
        Certificates = SimulatorCertificates.Create(options.HostNames);
    }

    public ApnsSimulatorOptions Options { get; }

    public ProviderTokenCheck Tokens { get; }

    public Script Script { get; }

    public ReceivedLog Log { get; }

    public DeviceRegister Devices { get; }

    public AnswerDesk Desk { get; }

    public SimulatorCertificates Certificates { get; }

    public void Dispose()
    {
        Certificates.Dispose();
        Tokens.Dispose();
    }
}
