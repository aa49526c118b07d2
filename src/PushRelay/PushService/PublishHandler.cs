using System.Xml.Linq;
using PushRelay.Apps;
using PushRelay.Links;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.PushService;

/// <summary>
/// The push service of XEP-0357: takes publishes from servers that do not have our module. Each is answered once it is durable, before the
/// push network is asked, so the answer never says how that went. Each server ends a registration by another rule; the errors here end one
/// only where the registration is not ours, or is dead.
/// </summary>
internal sealed partial class PublishHandler(
    PublishWriter writer,
    ServedAccounts accounts,
    RelayMetrics metrics,
    ILogger<PublishHandler> logger
) : IIqHandler
{
    // a server that starts publishes for every device at once
    private const int AtOnceMax = 20_000;
    private const int AtOncePerServerMax = 15_000;
    private const int UnknownServersLoggedMax = 100;

    private readonly HashSet<string> unknownServersLogged = new(StringComparer.Ordinal);

    /// <summary>Of type <c>wait</c>: no server ends a registration for it.</summary>
    public static readonly IqAnswer Later = new IqAnswer.Error("wait", "internal-server-error", "Not stored; try again later.");

    public IReadOnlyCollection<XName> Names => Publish.Names;

    public RequestPermits? Permits { get; } = new(AtOnceMax, AtOncePerServerMax);

    /// <summary>Tigase ends a registration for <c>resource-constraint</c>.</summary>
    public IqAnswer Busy => Later;

    /// <summary>The order of publishes is kept.</summary>
    public bool BlocksBeforeFirstAwait => false;

    public bool Takes(IqType type, XElement payload) =>
        type == IqType.Set && payload.Name == Publish.PubSub + "pubsub" && payload.Element(Publish.PubSub + "publish") is not null;

    public async Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken)
    {
        if (!accounts.Serves(request.From.Domain))
        {
            LogUnknownServer(request.From.Domain);
        }

        if (Publish.Read(request.Payload) is not { } publish)
        {
            metrics.CountPublish(accounts.Serves(request.From.Domain) ? request.From.Domain : "", "malformed");
            // of type wait, as modify would end the registration on ejabberd
            return new IqAnswer.Error("wait", "bad-request", "No publish of a notification (XEP-0357 section 7).");
        }

        try
        {
            return await writer.WriteAsync(publish, request.From, cancellationToken) == PublishResult.Refused
                ? new IqAnswer.Error("cancel", "item-not-found")
                : new IqAnswer.Result(null);
        }
        catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.IsOutage(exception))
        {
            // said once, by the condition: a server may publish thousands of times a second
            return Later;
        }
    }

    // the domain only, and a bounded number of them
    private void LogUnknownServer(string domain)
    {
        lock (unknownServersLogged)
        {
            if (unknownServersLogged.Count >= UnknownServersLoggedMax || !unknownServersLogged.Add(domain))
            {
                return;
            }
        }

        NotConfigured(domain);
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Publishes from '{Domain}' are refused: it is none of the Servers of a component in setting Xmpp"
    )]
    private partial void NotConfigured(string domain);
}
