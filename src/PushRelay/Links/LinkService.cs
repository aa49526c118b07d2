using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Cluster;
using PushRelay.Commands;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Secrets;
using PushRelay.Telemetry;

namespace PushRelay.Links;

/// <summary>Runs the links to the XMPP servers for as long as the relay serves, those that this node has.</summary>
internal sealed partial class LinkService(
    IOptions<XmppOptions> options,
    EventIngest ingest,
    PresenceTracker presence,
    PresenceStore store,
    LeaseTable leases,
    AdHocCommands commands,
    IOptions<ApiOptions> api,
    TimeProvider clock,
    ILoggerFactory loggers,
    ILogger<LinkService> logger
) : BackgroundService, IHealthCheck
{
    private readonly List<LinkHolder> links =
    [
        .. options.Value.Components.Select(c => new LinkHolder(
            c,
            leases,
            term => new ServerLink(c, term, ingest, presence, store, commands, api.Value.RateLimits, clock, loggers),
            clock,
            loggers.CreateLogger<LinkHolder>()
        )),
    ];

    /// <summary>
    /// Degraded while a link is down or a server's sessions are unknown: alerts go out all the same, more than needed. A node that stands
    /// by is as well as the other is.
    /// </summary>
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var down = links.Where(l => !l.IsConnected && !l.StandsBy).Select(l => $"component {l.Domain} is not connected");
        var unknown = links
            .Where(l => l.IsConnected)
            .SelectMany(l => l.Servers)
            .Where(s => !presence.Knows(s))
            .Select(s => $"the sessions of {s} are unknown");
        var problems = down.Concat(unknown).ToList();
        return Task.FromResult(
            problems.Count > 0 ? HealthCheckResult.Degraded(string.Join("; ", problems))
            : links.Exists(l => l.StandsBy)
                ? HealthCheckResult.Healthy(
                    "another node has the link of " + string.Join(", ", links.Where(l => l.StandsBy).Select(l => l.Domain))
                )
            : HealthCheckResult.Healthy()
        );
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (links.Count == 0)
        {
            NoComponent();
        }

        // a link that fails for good ends the process, loudly, and not only once the others have ended too
        await foreach (var ended in Task.WhenEach(links.Select(l => l.RunAsync(stoppingToken))))
        {
            await ended;
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Setting Xmpp:Components is empty: no XMPP server is connected, so no alert will ever be due"
    )]
    private partial void NoComponent();
}

internal static class ComponentServices
{
    public static IServiceCollection AddLinks(this IServiceCollection services)
    {
        services.AddSingleton<TokenCommands>();
        services.AddSingleton(provider => new AdHocCommands(
            provider.GetRequiredService<MasterKey>(),
            provider.GetRequiredService<ServedAccounts>(),
            provider.GetRequiredService<TokenCommands>().All,
            provider.GetRequiredService<DeniedAudit>(),
            provider.GetRequiredService<TimeProvider>(),
            provider.GetRequiredService<ILogger<AdHocCommands>>()
        ));
        services.AddSingleton<LinkService>();
        services.AddHostedService(provider => provider.GetRequiredService<LinkService>());
        services.AddDoctor<LinkDoctor>();
        services.AddHealthChecks().AddCheck<LinkService>("xmpp");
        return services;
    }
}
