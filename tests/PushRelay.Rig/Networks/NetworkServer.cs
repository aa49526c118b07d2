using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using PushRelay.Apns.Simulator;

namespace PushRelay.Rig.Networks;

/// <summary>
/// A push network on this machine, over TLS, HTTP/2 or 1.1 as the sender asks: the networks of this folder answer by it. What a request
/// that the network would take gets instead is ordered with <see cref="AnswerNext(AnswerRule)"/>.
/// </summary>
internal abstract class NetworkServer : IAsyncDisposable
{
    private const int BodyBytesMax = 64 * 1024;

    private readonly SimulatorCertificates certificates;
    private readonly WebApplication app;
    private readonly Lock sync = new();
    private readonly List<Rule> rules = [];
    private readonly CancellationTokenSource ended = new();
    private int requests;
    private int inFlight;

    /// <param name="hostNames">Names that the certificate is valid for, beside <c>localhost</c> and the loopback addresses.</param>
    protected NetworkServer(TimeProvider clock, params IEnumerable<string> hostNames)
    {
        Clock = clock;
        certificates = SimulatorCertificates.Create(hostNames);
        var builder = WebApplication.CreateSlimBuilder(
            new WebApplicationOptions { ApplicationName = typeof(NetworkServer).Assembly.GetName().Name }
        );
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = BodyBytesMax;
            kestrel.Limits.Http2.MaxStreamsPerConnection = 1000;
            kestrel.Listen(
                IPAddress.Loopback,
                0,
                listen =>
                {
                    listen.Protocols = HttpProtocols.Http1AndHttp2;
                    listen.UseHttps(certificates.Server);
                }
            );
        });
        app = builder.Build();
        app.Run(AnswerAsync);
    }

    public int Port { get; private set; }

    /// <summary><c>https://localhost:port</c>.</summary>
    public Uri Origin => new($"https://localhost:{Port}");

    /// <summary>The authority that signed the certificate. New with each server.</summary>
    public string CaPem => certificates.CaPem;

    public X509Certificate2Collection Ca
    {
        get
        {
            var trusted = new X509Certificate2Collection();
            trusted.ImportFromPem(CaPem);
            return trusted;
        }
    }

    /// <summary>How many came, whatever they got.</summary>
    public int Requests => Volatile.Read(ref requests);

    public int InFlight => Volatile.Read(ref inFlight);

    /// <summary>The most that were in flight together.</summary>
    public int InFlightMax { get; private set; }

    /// <summary>How many came over HTTP/2.</summary>
    public int Http2Requests { get; private set; }

    /// <summary>Judges ages and times to live.</summary>
    protected TimeProvider Clock { get; }

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await app.StartAsync(cancellationToken);
        Port = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()).Port;
    }

    public void AnswerNext(AnswerRule rule)
    {
        lock (sync)
        {
            rules.Add(new Rule(rule));
        }
    }

    public void AnswerNext(int status, string? body = null, string? retryAfter = null, int times = 1) =>
        AnswerNext(
            new AnswerRule
            {
                Status = status,
                Body = body,
                RetryAfter = retryAfter,
                Times = times,
            }
        );

    public void ClearScript()
    {
        lock (sync)
        {
            rules.Clear();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await ended.CancelAsync();
        await app.StopAsync(new CancellationToken(canceled: true));
        await app.DisposeAsync();
        certificates.Dispose();
        ended.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>Checks and answers one request.</summary>
    protected abstract Task HandleAsync(HttpContext context, byte[] body);

    /// <summary>What the script has for a request that would be taken; null: nothing.</summary>
    /// <param name="target">The device that it is for.</param>
    /// <param name="onlyNamed">Rules for all devices are not meant.</param>
    protected AnswerRule? NextRule(string target, bool onlyNamed = false)
    {
        lock (sync)
        {
            foreach (var rule in rules.Where(r => r.Order.Target == target || (r.Order.Target is null && !onlyNamed)))
            {
                if (rule.Skip > 0)
                {
                    rule.Skip--;
                    continue;
                }

                if (rule.Times != int.MaxValue && --rule.Times == 0)
                {
                    rules.Remove(rule);
                }

                return rule.Order;
            }

            return null;
        }
    }

    /// <summary>Answers as ordered.</summary>
    protected async Task AnswerByRuleAsync(HttpContext context, AnswerRule rule)
    {
        if (rule.Delay > TimeSpan.Zero)
        {
            await Task.Delay(rule.Delay, TimeProvider.System, ended.Token);
        }

        switch (rule.Fault)
        {
            case AnswerFault.Abort:
                context.Abort();
                return;
            case AnswerFault.Stall:
                await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, ended.Token);
                return;
        }

        var response = context.Response;
        response.StatusCode = rule.Status;
        response.ContentType = rule.ContentType;
        if (rule.RetryAfter is not null)
        {
            response.Headers["Retry-After"] = rule.RetryAfter;
        }

        foreach (var (name, value) in rule.Headers)
        {
            response.Headers[name] = value;
        }

        if (rule.Fault == AnswerFault.None)
        {
            await response.WriteAsync(rule.Body ?? "");
            return;
        }

        if (rule.Fault == AnswerFault.CutBody)
        {
            response.ContentLength = 1000;
        }

        await response.WriteAsync(rule.Body ?? "{\"error\":");
        await response.Body.FlushAsync();
        while (rule.Fault == AnswerFault.EndlessBody)
        {
            await response.Body.WriteAsync(new byte[4096], ended.Token);
            await response.Body.FlushAsync(ended.Token);
        }

        context.Abort();
    }

    protected static Task AnswerAsync(HttpContext context, int status, string body = "", string contentType = "application/json")
    {
        context.Response.StatusCode = status;
        if (body.Length == 0)
        {
            return Task.CompletedTask;
        }

        context.Response.ContentType = contentType;
        return context.Response.WriteAsync(body);
    }

    private async Task AnswerAsync(HttpContext context)
    {
        lock (sync)
        {
            requests++;
            Http2Requests += HttpProtocol.IsHttp2(context.Request.Protocol) ? 1 : 0;
            InFlightMax = Math.Max(InFlightMax, ++inFlight);
        }

        try
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body, ended.Token);
            await HandleAsync(context, body.ToArray());
        }
        catch (Exception exception) when (exception is OperationCanceledException or IOException)
        {
            // the sender went, or the test ended
        }
        finally
        {
            Interlocked.Decrement(ref inFlight);
        }
    }

    private sealed class Rule(AnswerRule order)
    {
        public AnswerRule Order { get; } = order;

        public int Skip { get; set; } = order.Skip;

        public int Times { get; set; } = order.Times;
    }
}

/// <summary>What some requests that the network would take get instead; the first rule that fits decides.</summary>
internal sealed record AnswerRule
{
    /// <summary>For this device only; null: for all.</summary>
    public string? Target { get; init; }

    /// <summary>So many fitting requests pass by first.</summary>
    public int Skip { get; init; }

    /// <summary>For so many, then the rule is gone; <see cref="int.MaxValue"/>: for ever.</summary>
    public int Times { get; init; } = 1;

    public int Status { get; init; } = 200;

    public string? Body { get; init; }

    public string ContentType { get; init; } = "application/json";

    /// <summary>As text: seconds, a date, or nonsense.</summary>
    public string? RetryAfter { get; init; }

    public IReadOnlyDictionary<string, string> Headers { get; init; } = new Dictionary<string, string>();

    /// <summary>The answer comes so much later, by the machine's clock.</summary>
    public TimeSpan Delay { get; init; }

    public AnswerFault Fault { get; init; }

    /// <summary>The message counts as sent to the device all the same.</summary>
    public bool Processed { get; init; }
}

public enum AnswerFault
{
    None,

    /// <summary>The connection, or over HTTP/2 the stream, is cut instead of an answer.</summary>
    Abort,

    /// <summary>No answer, ever.</summary>
    Stall,

    /// <summary>The answer's head, half of its body, then a cut.</summary>
    CutBody,

    /// <summary>The answer's body never ends.</summary>
    EndlessBody,
}
