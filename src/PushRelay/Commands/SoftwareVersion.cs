using System.Xml.Linq;
using PushRelay.Links;

namespace PushRelay.Commands;

/// <summary>Says which program the component is (XEP-0092).</summary>
internal sealed class SoftwareVersion : IIqHandler
{
    public static readonly XNamespace Namespace = "jabber:iq:version";

    public IReadOnlyCollection<XName> Names { get; } = [Namespace + "query"];

    public RequestPermits? Permits => null;

    public bool Takes(IqType type, XElement payload) => type == IqType.Get && payload.Name == Namespace + "query";

    public Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken) =>
        Task.FromResult<IqAnswer>(
            new IqAnswer.Result(
                new XElement(
                    Namespace + "query",
                    new XElement(Namespace + "name", "PushRelay"),
                    new XElement(Namespace + "version", typeof(SoftwareVersion).Assembly.GetName().Version?.ToString(3))
                )
            )
        );
}
