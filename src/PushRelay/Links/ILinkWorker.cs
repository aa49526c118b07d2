using System.Xml.Linq;

namespace PushRelay.Links;

/// <summary>
/// A module that uses the links for more than answering requests: it reads messages, presences and the answers to its own requests. A
/// module registers its worker; each link runs every worker for as long as this node holds the link's lease.
/// </summary>
internal interface ILinkWorker
{
    /// <summary>The XML names that it reads: a link understands them however many names strangers have invented.</summary>
    IReadOnlyCollection<XName> Names { get; }

    /// <summary>Whether a stanza that is no IQ request is for this worker; it comes from a server behind the link.</summary>
    bool Takes(XElement stanza);

    /// <summary>Works over one link until stopped. If it returns before, the link is closed and its lease is asked for again.</summary>
    Task RunAsync(ServerLink link, LinkInbox inbox, CancellationToken stoppingToken);
}
