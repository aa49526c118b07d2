using System.Xml.Linq;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>The two kinds of IQ that want an answer.</summary>
internal enum IqType
{
    Get,
    Set,
}

/// <summary>One IQ get or set, as the router hands it to its handler.</summary>
/// <param name="Type">Get or set.</param>
/// <param name="From">The sender, as its server stamped it; with the resource where it has one.</param>
/// <param name="To">The component's address that was asked.</param>
/// <param name="Account">The sender's bare JID if it is an account of a server behind this link; else null.</param>
/// <param name="Payload">The one child of the IQ.</param>
internal sealed record IqRequest(IqType Type, Jid From, Jid To, string? Account, XElement Payload);

/// <summary>What an IQ request is answered with; the router adds the id and the addresses.</summary>
internal abstract record IqAnswer
{
    private IqAnswer() { }

    public sealed record Result(XElement? Payload) : IqAnswer;

    /// <param name="Type">RFC 6120 section 8.3.2: <c>auth</c>, <c>cancel</c>, <c>modify</c> or <c>wait</c>.</param>
    /// <param name="Condition">RFC 6120 section 8.3.3, such as <c>item-not-found</c>.</param>
    /// <param name="Text">For a person, in English.</param>
    /// <param name="Specific">A condition of the protocol in use, sent with the general one.</param>
    public sealed record Error(string Type, string Condition, string? Text = null, XName? Specific = null) : IqAnswer;

    public XElement ToStanza(XElement request)
    {
        if (this is Result result)
        {
            return XmppStanza.IqResult(request, result.Payload);
        }

        var refused = (Error)this;
        var stanza = XmppStanza.ErrorReply(request, refused.Type, refused.Condition, refused.Text);
        if (refused.Specific is { } specific)
        {
            stanza.Element(XmppStanza.Component + "error")!.Add(new XElement(specific));
        }

        return stanza;
    }
}

/// <summary>
/// Answers the IQ requests of one protocol, of every link. A module registers its handlers; <see cref="StanzaRouter"/> finds the one that
/// takes a request, and answers what none takes. Pings never come here: the XMPP library answers them.
/// </summary>
internal interface IIqHandler
{
    /// <summary>The XML names that it reads: a link understands them however many names strangers have invented.</summary>
    IReadOnlyCollection<XName> Names { get; }

    /// <summary>How many of its requests run at once, while the link reads on. Null: it needs no I/O, and the link reads on
    /// when the answer is sent.</summary>
    RequestPermits? Permits { get; }

    /// <summary>The answer where no permit is free.</summary>
    IqAnswer Busy => new IqAnswer.Error("wait", "resource-constraint", "Too many requests at once; try again.");

    /// <summary>It may work, as some databases do, before its first await. False: it runs on the link's reading until then, so its requests
    /// come in their order.</summary>
    bool BlocksBeforeFirstAwait => true;

    bool Takes(IqType type, XElement payload);

    /// <summary>An exception, or the end of <see cref="StanzaRouter.RequestDeadline"/>, is answered <c>internal-server-error</c>.</summary>
    Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken);
}

/// <summary>A feature that discovery (XEP-0030) lists for the component; registered by the module that has it.</summary>
internal sealed record DiscoFeature(string Var);
