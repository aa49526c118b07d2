using System.Collections.Concurrent;
using System.Xml.Linq;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Telemetry;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>One component's socket while this node holds the link's lease: connects, routes what comes in, and runs the workers.</summary>
internal sealed class ServerLink : IXmppComponentHandler, IAsyncDisposable
{
    private readonly ComponentOptions options;
    private readonly Conditions conditions;
    private readonly XmppComponent component;
    private readonly StanzaRouter router;
    private readonly IReadOnlyList<(ILinkWorker Worker, LinkInbox Inbox)> workers;

    public ServerLink(
        ComponentOptions options,
        LeaseTerm term,
        IReadOnlyList<IIqHandler> handlers,
        IReadOnlyList<ILinkWorker> workers,
        RateLimitOptions rates,
        Conditions conditions,
        TimeProvider clock,
        ILoggerFactory loggers
    )
    {
        (this.options, this.conditions) = (options, conditions);
        Term = term;
        this.workers = [.. workers.Select(worker => (worker, new LinkInbox(clock)))];
        router = new StanzaRouter(
            options.Servers,
            options.Domain,
            handlers,
            this.workers,
            SendAsync,
            clock,
            loggers.CreateLogger<StanzaRouter>()
        );
        component = new XmppComponent(
            options.ToXmpp(handlers.SelectMany(h => h.Names).Concat(workers.SelectMany(w => w.Names))) with
            {
                Admit = new RequestLimits(options.Servers, rates, clock).Admit,
            },
            this,
            clock,
            loggers.CreateLogger<XmppComponent>()
        );
    }

    public string Domain => options.Domain;

    public IReadOnlyList<string> Servers => options.Servers;

    /// <summary>What every transaction that follows from this link shows to be let through (<see cref="LeaseTable.FenceAsync"/>).</summary>
    public LeaseTerm Term { get; }

    public bool IsConnected => component.IsConnected;

    /// <summary>Servers that have no module, as their answer says: they publish (XEP-0357), or say nothing. For health.</summary>
    public ConcurrentDictionary<string, bool> Publishing { get; } = new(StringComparer.Ordinal);

    /// <summary>Until stopped, or until a worker ends.</summary>
    public Task RunAsync(CancellationToken stoppingToken) =>
        FirstToEnd.RunAsync(
            [component.RunAsync, .. workers.Select(w => (Func<CancellationToken, Task>)(token => w.Worker.RunAsync(this, w.Inbox, token)))],
            stoppingToken
        );

    /// <summary>Sends a stanza; without a link it is dropped.</summary>
    public async Task SendAsync(XElement stanza, CancellationToken cancellationToken)
    {
        try
        {
            await component.SendAsync(options.Addressed(stanza), cancellationToken);
        }
        catch (XmppNotConnectedException)
        {
            // a worker starts again with the next link; the sender of a request repeats it
        }
    }

    public ValueTask DisposeAsync() => component.DisposeAsync();

    async ValueTask IXmppComponentHandler.ConnectedAsync(CancellationToken cancellationToken)
    {
        conditions.Clear(ConditionKind.LinkDown, Domain);
        foreach (var (_, inbox) in workers)
        {
            await inbox.ConnectedAsync(cancellationToken);
        }
    }

    ValueTask IXmppComponentHandler.DisconnectedAsync(Exception? reason, CancellationToken cancellationToken)
    {
        conditions.Raise(ConditionKind.LinkDown, Domain);
        foreach (var (_, inbox) in workers)
        {
            inbox.Disconnected();
        }

        return ValueTask.CompletedTask;
    }

    ValueTask<bool> IXmppComponentHandler.StanzaAsync(XElement stanza, CancellationToken cancellationToken) =>
        router.RouteAsync(stanza, cancellationToken);
}
