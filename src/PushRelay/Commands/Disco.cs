using System.Xml.Linq;
using PushRelay.Apps;
using PushRelay.Links;

namespace PushRelay.Commands;

/// <summary>Service discovery (XEP-0030): what the component is, the features that modules registered, and the commands.</summary>
internal sealed class Disco(IEnumerable<DiscoFeature> features, CommandList commands, AppCatalog apps) : IIqHandler
{
    private static readonly XNamespace Info = "http://jabber.org/protocol/disco#info";
    private static readonly XNamespace Items = "http://jabber.org/protocol/disco#items";
    private static readonly string Commands = AdHocProtocol.Namespace.NamespaceName;

    private readonly IReadOnlyList<string> featureVars =
    [
        Info.NamespaceName,
        Items.NamespaceName,
        "urn:xmpp:ping",
        .. features.Select(f => f.Var),
        // by it apps of the Tigase family find the service that is theirs
        .. apps.Apps.Select(app => app.Push.Provider).OfType<string>(),
    ];

    public IReadOnlyCollection<XName> Names { get; } = [Info + "query", Items + "query", "node"];

    public RequestPermits? Permits => null;

    public bool Takes(IqType type, XElement payload) =>
        type == IqType.Get && (payload.Name == Info + "query" || payload.Name == Items + "query");

    public Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken)
    {
        var found = request.Payload.Name == Items + "query" ? FindItems(request) : FindInfo(request.Payload);
        return Task.FromResult<IqAnswer>(found is null ? new IqAnswer.Error("cancel", "item-not-found") : new IqAnswer.Result(found));
    }

    private XElement? FindItems(IqRequest request)
    {
        var node = request.Payload.Attribute("node");
        var items =
            node?.Value == Commands
                ? commands.All.Select(c => new XElement(
                    Items + "item",
                    new XAttribute("jid", request.To.ToString()),
                    new XAttribute("node", c.Node),
                    new XAttribute("name", c.Name)
                ))
                : [];
        return node is null || node.Value == Commands || commands.Find(node.Value) is not null
            ? new XElement(Items + "query", node, items)
            : null;
    }

    private XElement? FindInfo(XElement query)
    {
        var node = query.Attribute("node");
        return node is null ? Describe(node, ("pubsub", "push", "PushRelay"), featureVars)
            : node.Value == Commands ? Describe(node, ("automation", "command-list", "Commands"), [])
            : commands.Find(node.Value) is { } command
                ? Describe(node, ("automation", "command-node", command.Name), [Commands, DataForm.Namespace.NamespaceName])
            : null;
    }

    private static XElement Describe(
        XAttribute? node,
        (string Category, string Type, string Name) identity,
        IEnumerable<string> features
    ) =>
        new(
            Info + "query",
            node,
            new XElement(
                Info + "identity",
                new XAttribute("category", identity.Category),
                new XAttribute("type", identity.Type),
                new XAttribute("name", identity.Name)
            ),
            features.Select(feature => new XElement(Info + "feature", new XAttribute("var", feature)))
        );
}
