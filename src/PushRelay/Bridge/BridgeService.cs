using System.Xml.Linq;
using PushRelay.Ingest;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Bridge;

/// <summary>Runs the bridge over every link of this node: a <see cref="BridgeWorker"/>, and the writer of the copy of its
/// sessions.</summary>
internal sealed class BridgeService(
    EventIngest ingest,
    PresenceTracker presence,
    PresenceCopy copy,
    Conditions conditions,
    DatabaseFailures failures,
    TimeProvider clock,
    ILogger<BridgeWorker> logger
) : ILinkWorker
{
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
        var worker = new BridgeWorker(link, inbox, ingest, presence, conditions, failures, clock, logger);
        var writer = copy.Begin(link.Servers, link.Term);
        try
        {
            await FirstToEnd.RunAsync([worker.RunAsync, writer.RunAsync], stoppingToken);
        }
        finally
        {
            copy.End(writer);
            worker.ForgetSessions();
        }
    }
}

internal static class BridgeServices
{
    public static IServiceCollection AddBridge(this IServiceCollection services)
    {
        services.AddSingleton<ILinkWorker, BridgeService>().AddDoctor<LinkDoctor>().AddWatch<ModuleWatch>();
        return services;
    }
}
