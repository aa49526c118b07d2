using System.Security.Cryptography;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
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
    private readonly WebApplication _app;
    private readonly SimulatorCertificates _certificates;
    private readonly TokenCheck _tokens;
    private readonly Script _script;
    private readonly ReceivedLog _log;

    private ApnsSimulator(WebApplication app, SimulatorCertificates certificates, TokenCheck tokens, Script script, ReceivedLog log)
    {
        _app = app;
        _certificates = certificates;
        _tokens = tokens;
        _script = script;
        _log = log;
        var addresses = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses;
        Endpoint = new Uri(addresses.First(address => address.StartsWith("https:", StringComparison.Ordinal)));
        ControlEndpoint = new Uri(addresses.First(address => address.StartsWith("http:", StringComparison.Ordinal)));
    }

    /// <summary>Where to push to: <c>https://127.0.0.1:port</c>.</summary>
    public Uri Endpoint { get; }

    /// <summary>Where scripts and inspection are: <c>http://127.0.0.1:port</c>.</summary>
    public Uri ControlEndpoint { get; }

    /// <summary>The authority that signed the endpoint's certificate, for the sender to trust. New with each start.</summary>
    public string CaPem => _certificates.CaPem;

    /// <summary>What came in, oldest first; a copy.</summary>
    public IReadOnlyList<ReceivedNotification> Received => _log.Snapshot();

    /// <summary>How many came in since the start or the last <see cref="Clear"/>, also those no longer kept.</summary>
    public long ReceivedCount => _log.Count;

    /// <summary>How many different provider tokens were shown since the start.</summary>
    public int ProviderTokensSeen => _tokens.Seen;

    /// <summary>The rules in force, with what is left of each; a copy.</summary>
    public IReadOnlyList<ScriptRule> Rules => _script.Snapshot();

    /// <exception cref="IOException">A port is taken.</exception>
    /// <exception cref="FormatException">A key cannot be read.</exception>
    public static async Task<ApnsSimulator> StartAsync(ApnsSimulatorOptions options, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfNegative(options.KeepMax);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.KeepMax, 1_000_000);
        var tokens = new TokenCheck(options.Keys);
        var script = new Script();
        var log = new ReceivedLog(options.KeepMax);
        var certificates = SimulatorCertificates.Create(options.HostNames);
        var desk = new AnswerDesk(options, tokens, script, log);
        var app = Build(options, certificates, desk, script, log);
        try
        {
            await app.StartAsync(cancellationToken);
            return new ApnsSimulator(app, certificates, tokens, script, log);
        }
        catch
        {
            await app.DisposeAsync();
            certificates.Dispose();
            tokens.Dispose();
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
    public void AnswerNext(ScriptRule rule) => _script.Add(rule);

    /// <summary>The next <paramref name="times"/> requests that Apple would take get this instead.</summary>
    public void AnswerNext(int status, string? reason = null, int times = 1) =>
        _script.Add(new ScriptRule { Status = status, Reason = reason, Times = times });

    public void ClearScript() => _script.Clear();

    /// <summary>Forgets what came in and counts from 1 again.</summary>
    public void Clear() => _log.Clear();

    /// <summary>The notification with that number, once it has come in; its answer may still be on its way.</summary>
    public Task<ReceivedNotification> WaitForAsync(long number, CancellationToken cancellationToken) => _log.WaitAsync(number, cancellationToken);

    public async ValueTask DisposeAsync()
    {
        // What still waits (a scripted delay) is cut off, not waited for.
        using var now = new CancellationTokenSource();
        await now.CancelAsync();
        await _app.StopAsync(now.Token);
        await _app.DisposeAsync();
        _certificates.Dispose();
        _tokens.Dispose();
    }

    private static WebApplication Build(
        ApnsSimulatorOptions options, SimulatorCertificates certificates, AnswerDesk desk, Script script, ReceivedLog log)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ApplicationName = typeof(ApnsSimulator).Assembly.GetName().Name });
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.Http2.MaxStreamsPerConnection = 1000;
            kestrel.Listen(options.Address, options.Port, listen =>
            {
                listen.Protocols = HttpProtocols.Http2;
                listen.UseHttps(certificates.Server);
            });
            kestrel.Listen(options.ControlAddress, options.ControlPort, listen => listen.Protocols = HttpProtocols.Http1);
        });
        var app = builder.Build();
        var connections = new ConnectionNumbers();
        app.MapWhen(
            context => context.Request.IsHttps,
            apns => apns.Run(context => AnswerAsync(context, desk, connections, options.Clock)));
        ControlRoutes.Map(app, certificates.CaPem, script, log);
        return app;
    }

    private static async Task AnswerAsync(HttpContext context, AnswerDesk desk, ConnectionNumbers connections, TimeProvider clock)
    {
        const int BodyBytesMax = 16 * 1024;
        var cut = context.RequestAborted;
        using var body = new MemoryStream();
        var buffer = new byte[4096];
        var bytes = 0L;
        while (await context.Request.Body.ReadAsync(buffer, cut) is > 0 and var read)
        {
            bytes += read;
            if (bytes <= BodyBytesMax)
            {
                body.Write(buffer, 0, read);
            }
        }

        var request = new ApnsRequest(
            context.Request.Method,
            context.Request.Path.Value ?? "",
            context.Request.Headers.ToDictionary(header => header.Key.ToLowerInvariant(), header => header.Value.Select(value => value ?? "").ToArray()),
            body.ToArray(),
            bytes,
            connections.Of(context.Connection.Id));
        var answer = desk.Decide(request);
        if (answer.Delay > TimeSpan.Zero)
        {
            await Task.Delay(answer.Delay, clock, cut);
        }

        context.Response.StatusCode = answer.Status;
        foreach (var (name, value) in answer.Headers)
        {
            context.Response.Headers[name] = value;
        }

        if (answer.Body.Length > 0)
        {
            context.Response.ContentType = "application/json";
            await context.Response.Body.WriteAsync(answer.Body, cut);
        }
    }

    private sealed class ConnectionNumbers
    {
        private readonly Dictionary<string, int> _numbers = [];

        public int Of(string id)
        {
            lock (_numbers)
            {
                if (!_numbers.TryGetValue(id, out var number))
                {
                    _numbers.Add(id, number = _numbers.Count + 1);
                }

                return number;
            }
        }
    }
}
