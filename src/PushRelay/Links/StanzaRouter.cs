using System.Xml.Linq;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>
/// Finds who handles a stanza that came over one link: an IQ request goes to the <see cref="IIqHandler"/> that takes it and is answered
/// once, everything else to the <see cref="ILinkWorker"/> that takes it, if it comes from a server behind the link.
/// <see cref="RequestLimits"/> limits before it how often a sender may ask. This class limits how many requests run at once, and how long.
/// </summary>
/// <param name="servers">The virtual hosts behind the link.</param>
/// <param name="domain">The component's domain, for the log.</param>
/// <param name="handlers">Those of all modules; the first that takes a request answers it.</param>
/// <param name="workers">Each with its inbox; the first that takes a stanza gets it.</param>
/// <param name="send">Sends an answer.</param>
/// <param name="clock">The time that the deadline goes by.</param>
/// <param name="logger">Gets what fails.</param>
internal sealed partial class StanzaRouter(
    IReadOnlyList<string> servers,
    string domain,
    IReadOnlyList<IIqHandler> handlers,
    IReadOnlyList<(ILinkWorker Worker, LinkInbox Inbox)> workers,
    Func<XElement, CancellationToken, Task> send,
    TimeProvider clock,
    ILogger<StanzaRouter> logger
)
{
    /// <summary>From the request to the end of its handler's work.</summary>
    internal static readonly TimeSpan RequestDeadline = TimeSpan.FromSeconds(10);

    private const int UnknownDomainsLoggedMax = 100;

    private readonly HashSet<string> unknownDomainsLogged = new(StringComparer.Ordinal);

    /// <summary>In the order of the stream; waits while the worker that takes the stanza is behind.</summary>
    /// <returns>False: no handler takes it. The XMPP library answers a request <c>service-unavailable</c> then, and nothing else.</returns>
    public async ValueTask<bool> RouteAsync(XElement stanza, CancellationToken cancellationToken)
    {
        if (!XmppStanza.IsIqRequest(stanza))
        {
            return await HandOverAsync(stanza, cancellationToken);
        }

        var type = (string?)stanza.Attribute("type") == "get" ? IqType.Get : IqType.Set;
        if (
            stanza.Elements().FirstOrDefault() is not { } payload
            || handlers.FirstOrDefault(h => h.Takes(type, payload)) is not { } handler
            || !Jid.TryParse((string?)stanza.Attribute("from"), out var from)
            || !Jid.TryParse((string?)stanza.Attribute("to"), out var to)
        )
        {
            return false;
        }

        var isServed = servers.Contains(from.Domain);
        var isStamped = isServed && Jid.TryParseStamped((string?)stanza.Attribute("from"), out _);
        var account = isStamped && from.Local is not null ? from.Bare.ToString() : null;
        var request = new IqRequest(type, from, to, account, payload);
        if (handler.Permits is not { } permits)
        {
            await AnswerAsync(handler, request, stanza, cancellationToken);
            return true;
        }

        // senders of other domains can invent addresses: together they count as one sender
        if (permits.TryTake(isStamped ? from.Bare.ToString() : "") is not { } permit)
        {
            await send(handler.Busy.ToStanza(stanza), cancellationToken);
            return true;
        }

        _ = AnswerBesideAsync(handler, request, stanza, permit, cancellationToken);
        return true;
    }

    private async ValueTask<bool> HandOverAsync(XElement stanza, CancellationToken cancellationToken)
    {
        foreach (var (worker, inbox) in workers)
        {
            if (worker.Takes(stanza))
            {
                var from = (string?)stanza.Attribute("from") ?? "";
                if (!Jid.TryParse(from, out var jid) || jid is not { Local: null, Resource: null } || !servers.Contains(jid.Domain))
                {
                    LogUnknownDomain(from);
                    return false;
                }

                // the server may write its name in A-labels (xn--...): from here on there is one spelling of it
                stanza.SetAttributeValue("from", jid.Domain);
                await inbox.ReceivedAsync(stanza, cancellationToken);
                return true;
            }
        }

        return false;
    }

    private async Task AnswerBesideAsync(
        IIqHandler handler,
        IqRequest request,
        XElement stanza,
        IDisposable permit,
        CancellationToken stoppingToken
    )
    {
        using var _ = permit;
        if (handler.BlocksBeforeFirstAwait)
        {
            // not on the link's reading
            await Task.Yield();
        }

        await AnswerAsync(handler, request, stanza, stoppingToken);
    }

    /// <summary>Sends exactly one answer, unless the link is being stopped.</summary>
    private async Task AnswerAsync(IIqHandler handler, IqRequest request, XElement stanza, CancellationToken stoppingToken)
    {
        IqAnswer answer;
        try
        {
            using var deadline = new CancellationTokenSource(RequestDeadline, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, stoppingToken);
            answer = await handler.AnswerAsync(request, either.Token);
        }
        catch (Exception exception)
        {
            if (stoppingToken.IsCancellationRequested)
            {
                return;
            }

            RequestFailed(exception, request.Payload.Name.LocalName, request.Payload.Name.NamespaceName);
            answer = new IqAnswer.Error("wait", "internal-server-error");
        }

        try
        {
            await send(answer.ToStanza(stanza), stoppingToken);
        }
        catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
        {
            // what cannot be written, such as an answer over the bound of a stanza
            RequestFailed(exception, request.Payload.Name.LocalName, request.Payload.Name.NamespaceName);
        }
        catch (OperationCanceledException)
        {
            // the link is being stopped
        }
    }

    // the domain only, and a bounded number of them: names stay out of the log
    private void LogUnknownDomain(string from)
    {
        var sender = Jid.TryParse(from, out var jid) ? jid.Domain : "?";
        if (unknownDomainsLogged.Count < UnknownDomainsLoggedMax && unknownDomainsLogged.Add(sender))
        {
            NotConfigured(sender, domain);
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Stanzas from '{From}' are ignored: it is none of the Servers of component {Domain} in setting Xmpp"
    )]
    private partial void NotConfigured(string from, string domain);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "A request <{Name} xmlns='{Namespace}'/> failed and was answered with an error that allows a repetition"
    )]
    private partial void RequestFailed(Exception exception, string name, string @namespace);
}
