using System.Diagnostics.Metrics;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Links;

/// <summary>Runs the links to the XMPP servers for as long as the relay serves: those whose lease this node holds.</summary>
internal sealed partial class LinkService(
    IOptions<XmppOptions> options,
    IEnumerable<IIqHandler> handlers,
    IEnumerable<ILinkWorker> workers,
    LeaseTable leases,
    IOptions<ApiOptions> api,
    Conditions conditions,
    DatabaseFailures failures,
    IMeterFactory meters,
    TimeProvider clock,
    ILoggerFactory loggers,
    ILogger<LinkService> logger
) : BackgroundService, IHealthCheck
{
    private readonly List<LinkHolder> links =
    [
        .. options.Value.Components.Select(component => new LinkHolder(
            component.Domain,
            leases,
            term => new ServerLink(component, term, [.. handlers], [.. workers], api.Value.RateLimits, conditions, clock, loggers),
            conditions,
            failures,
            clock,
            loggers.CreateLogger<LinkHolder>()
        )),
    ];

    /// <summary>Degraded while a link is down, or the sessions of a server are unknown: then more alerts go out than needed. A
    /// standby node is healthy.</summary>
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var standby = links.Where(l => l.StandsBy).Select(l => l.Domain).ToList();
        var publishing = links.SelectMany(l => l.Publishing).Order(StringComparer.Ordinal).ToList();
        string[] notes =
        [
            .. standby.Count == 0 ? (string[])[] : [$"another node has the link of {string.Join(", ", standby)}"],
            .. publishing.Count == 0 ? (string[])[] : [$"publishes, without the module: {string.Join(", ", publishing)}"],
        ];
        return Task.FromResult(
            conditions.Health(notes.Length == 0 ? null : string.Join("; ", notes), ConditionKind.LinkDown, ConditionKind.ServerUnknown)
        );
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        meters
            .Create(RelayMetrics.MeterName)
            .CreateObservableGauge(
                "pushrelay.component.connected",
                () => links.Select(l => new Measurement<int>(l.IsConnected ? 1 : 0, new KeyValuePair<string, object?>("domain", l.Domain))),
                null,
                "1 while this node has the link and it is up; 0 on a standby node."
            );
        if (links.Count == 0)
        {
            NoComponent();
        }

        // a link that cannot recover ends the process at once with an error, while other links still run
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
