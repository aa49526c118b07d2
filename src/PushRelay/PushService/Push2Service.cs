using System.Xml.Linq;
using PushRelay.Links;
using PushRelay.Storage;
using PushRelay.Xmpp;

namespace PushRelay.PushService;

/// <summary>
/// The push service of push2 (<c>urn:xmpp:push2:0</c>): the server sends a message from its bare domain. What is taken is not answered; an
/// error of type <c>wait</c> asks for a repetition.
/// </summary>
internal sealed partial class Push2Service(PublishWriter writer, TimeProvider clock, ILogger<Push2Service> logger) : ILinkWorker
{
    private const int TogetherMax = LinkInbox.EventsMax;
    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan WriteMax = TimeSpan.FromSeconds(10);

    public IReadOnlyCollection<XName> Names => Publish.Names;

    public bool Takes(XElement stanza) => stanza.Name.LocalName == "message" && NotificationOf(stanza) is not null;

    public async Task RunAsync(ServerLink link, LinkInbox inbox, CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await inbox.WaitAsync(Tick, stoppingToken);
                var running = new List<Task>();
                while (running.Count < TogetherMax && inbox.TryRead(out var item))
                {
                    if (item is LinkEvent.Received { Stanza: var stanza })
                    {
                        running.Add(TakeAsync(link, stanza, stoppingToken));
                    }
                }

                await Task.WhenAll(running);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                // what is not stored is not answered
            }
        }
    }

    private async Task TakeAsync(ServerLink link, XElement stanza, CancellationToken stoppingToken)
    {
        XElement? error = null;
        if (Publish.ReadPush2(NotificationOf(stanza)!) is not { } publish || !Jid.TryParse((string?)stanza.Attribute("from"), out var from))
        {
            error = XmppStanza.ErrorReply(stanza, "modify", "bad-request");
        }
        else
        {
            try
            {
                using var deadline = new CancellationTokenSource(WriteMax, clock);
                using var either = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, stoppingToken);
                if (await writer.WriteAsync(publish, from, either.Token) == PublishResult.Refused)
                {
                    error = XmppStanza.ErrorReply(stanza, "cancel", "item-not-found");
                }
            }
            catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
            {
                if (exception is not OperationCanceledException && !DatabaseErrors.IsOutage(exception))
                {
                    NotStored(exception);
                }

                error = XmppStanza.ErrorReply(stanza, "wait", "internal-server-error");
            }
        }

        if (error is not null)
        {
            await link.SendAsync(error, stoppingToken);
        }
    }

    private static XElement? NotificationOf(XElement message) => message.Element(Publish.Push2 + "notification");

    [LoggerMessage(Level = LogLevel.Warning, Message = "A push2 notification could not be stored; its server is asked to repeat it")]
    private partial void NotStored(Exception exception);
}
