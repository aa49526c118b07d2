using System.Collections.Concurrent;
using System.Xml.Linq;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Ingest;
using PushRelay.Links;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>Runs the bridge over every link of this node: a <see cref="BridgeWorker"/>, and beside it the copy of its sessions.</summary>
internal sealed class BridgeService(
    EventIngest ingest,
    PresenceTracker presence,
    PresenceCopy copy,
    TimeProvider clock,
    ILogger<BridgeWorker> logger
) : ILinkWorker, IHealthCheck
{
    private readonly ConcurrentDictionary<ServerLink, bool> links = [];

    public IReadOnlyCollection<XName> Names => BridgeProtocol.Names;

    public bool Takes(XElement stanza) =>
        BridgeProtocol.PayloadOf(stanza) is not null
        || (
            stanza.Name.LocalName == "iq"
            && (string?)stanza.Attribute("id") is { } id
            && id.StartsWith(BridgeWorker.RequestIdPrefix, StringComparison.Ordinal)
        );

    public async Task RunAsync(ServerLink link, LinkInbox inbox, CancellationToken stoppingToken)
    {
        links.TryAdd(link, true);
        var worker = new BridgeWorker(link, inbox, ingest, presence, clock, logger);
        var writer = copy.Begin(link.Servers, link.Term);
        try
        {
            await FirstToEnd.RunAsync([worker.RunAsync, writer.RunAsync], stoppingToken);
        }
        finally
        {
            copy.End(writer);
            worker.ForgetSessions();
            links.TryRemove(link, out _);
        }
    }

    /// <summary>Degraded while the sessions of a server are unknown: alerts go out all the same, more than needed.</summary>
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var unknown = links
            .Keys.Where(link => link.IsConnected)
            .SelectMany(link => link.Servers)
            .Where(server => !presence.Knows(server))
            .Select(server => $"the sessions of {server} are unknown")
            .ToList();
        return Task.FromResult(unknown.Count > 0 ? HealthCheckResult.Degraded(string.Join("; ", unknown)) : HealthCheckResult.Healthy());
    }
}

internal static class BridgeServices
{
    public static IServiceCollection AddBridge(this IServiceCollection services)
    {
        services.AddSingleton<BridgeService>();
        services.AddSingleton<ILinkWorker>(provider => provider.GetRequiredService<BridgeService>());
        services.AddHealthChecks().AddCheck<BridgeService>("bridge");
        return services;
    }
}
