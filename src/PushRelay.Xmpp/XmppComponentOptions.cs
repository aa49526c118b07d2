using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>What becomes of an IQ request because of who sent it.</summary>
public enum XmppAdmission
{
    /// <summary>It is handled.</summary>
    Answer,

    /// <summary>It is answered <c>resource-constraint</c>, of type <c>wait</c> (RFC 6120 section 8.3.3.18), and goes no further.</summary>
    Refuse,

    /// <summary>It is passed over: RFC 6120 section 8.2.3 wants an answer to every request, and in a flood that would be a second
    /// flood.</summary>
    Ignore,
}

/// <summary>Where a component connects, as whom, and every bound of the link. The defaults suit a server on the same network.</summary>
public sealed record XmppComponentOptions
{
    /// <summary>Name or address of the server's component port; tried in the order the resolver gives.</summary>
    public required string Host { get; init; }

    /// <summary>1-65535; servers' documents use 5347.</summary>
    public required int Port { get; init; }

    /// <summary>The component's own domain, as the server's configuration names it.</summary>
    public required string Domain { get; init; }

    /// <summary>The shared secret of XEP-0114. Only its digest with the stream id is sent.</summary>
    public required string Secret { get; init; }

    /// <summary>
    /// A virtual host behind this link: it is pinged when the link is silent. Null: the component's own domain, so that the
    /// ping travels through the server and back.
    /// </summary>
    public string? ServerDomain { get; init; }

    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>From the TCP connection to the server's empty handshake element.</summary>
    public TimeSpan HandshakeTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>After this long without a byte from the server it is pinged (XEP-0199).</summary>
    public TimeSpan PingInterval { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>After this long without a byte since the ping the link is given up.</summary>
    public TimeSpan PingTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>A server that takes no byte for this long has its link given up.</summary>
    public TimeSpan WriteTimeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>The wait before the first new attempt is random up to this; it doubles with each failure in a row.</summary>
    public TimeSpan ReconnectDelayMin { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>No random wait is longer. After a link that held this long the doubling starts again.</summary>
    public TimeSpan ReconnectDelayMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>The wait after a refusal that only a change of settings cures: wrong secret, unknown domain.</summary>
    public TimeSpan RefusedDelay { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>The wait after <c>conflict</c>: another link of this domain is open.</summary>
    public TimeSpan ConflictDelay { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long a clean close waits for the server to close its side.</summary>
    public TimeSpan CloseTimeout { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Bytes on the wire before the handshake is over.</summary>
    public int HandshakeBytesMax { get; init; } = 8 * 1024;

    /// <summary>Bytes of one stanza on the wire, in either direction.</summary>
    public int StanzaBytesMax { get; init; } = 256 * 1024;

    /// <summary>Elements inside each other, the stanza itself included.</summary>
    public int DepthMax { get; init; } = 32;

    /// <summary>Attributes of one element, namespace declarations included.</summary>
    public int AttributesMax { get; init; } = 64;

    /// <summary>UTF-16 characters of one element or attribute name, prefix included.</summary>
    public int NameCharsMax { get; init; } = 256;

    /// <summary>UTF-16 characters of one namespace name.</summary>
    public int NamespaceCharsMax { get; init; } = 1024;

    /// <summary>Bytes of one text or attribute value on the wire; CDATA sections count with the text around them.</summary>
    public int TextBytesMax { get; init; } = 128 * 1024;

    /// <summary>Elements, attributes and texts of one stanza together.</summary>
    public int NodesMax { get; init; } = 4096;

    /// <summary>Bytes given to <see cref="XmppComponent.SendAsync"/> that the server has not taken yet; more makes it wait.</summary>
    public int SendBufferBytesMax { get; init; } = 1024 * 1024;

    /// <summary>
    /// Asked once for each IQ get or set that could be answered, whatever it asks, pings too: what its sender is to get for it. In the
    /// order of the stream; must not wait and must not throw. The default lets everybody ask as much as the stream carries.
    /// </summary>
    public Func<Jid, XmppAdmission> Admit { get; init; } = _ => XmppAdmission.Answer;

    /// <summary>
    /// Names that the handler understands. .NET keeps every <see cref="XName"/> for ever, so a peer that invents names would
    /// fill the memory: beyond <see cref="NamesMax"/> other names a stanza with a new one is refused, except for these.
    /// </summary>
    public IReadOnlyCollection<XName> KnownNames { get; init; } = [];

    /// <summary>Distinct element and attribute names taken from the wire besides <see cref="KnownNames"/> in the life of a
    /// component.</summary>
    public int NamesMax { get; init; } = 4096;

    /// <exception cref="ArgumentException">A value is missing or out of its range; the message names it.</exception>
    internal void Validate()
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(Host);
        ArgumentOutOfRangeException.ThrowIfLessThan(Port, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(Port, ushort.MaxValue);
        ArgumentException.ThrowIfNullOrEmpty(Secret);
        foreach (var (name, domain) in new[] { (nameof(Domain), Domain), (nameof(ServerDomain), ServerDomain ?? Domain) })
        {
            if (!Jid.TryParse(domain, out var jid) || jid.Local is not null || jid.Resource is not null)
            {
                throw new ArgumentException($"{name} is '{domain}'; it must be a domain such as push.example.com.", name);
            }
        }

        foreach (
            var (name, value) in new[]
            {
                (nameof(ConnectTimeout), ConnectTimeout),
                (nameof(HandshakeTimeout), HandshakeTimeout),
                (nameof(PingInterval), PingInterval),
                (nameof(PingTimeout), PingTimeout),
                (nameof(WriteTimeout), WriteTimeout),
                (nameof(ReconnectDelayMin), ReconnectDelayMin),
                (nameof(ReconnectDelayMax), ReconnectDelayMax),
                (nameof(RefusedDelay), RefusedDelay),
                (nameof(ConflictDelay), ConflictDelay),
                (nameof(CloseTimeout), CloseTimeout),
            }
        )
        {
            if (value <= TimeSpan.Zero || value > TimeSpan.FromDays(1))
            {
                throw new ArgumentOutOfRangeException(name, value, $"{name} must be more than zero and at most a day.");
            }
        }

        foreach (
            var (name, value) in new[]
            {
                (nameof(HandshakeBytesMax), HandshakeBytesMax),
                (nameof(StanzaBytesMax), StanzaBytesMax),
                (nameof(DepthMax), DepthMax),
                (nameof(AttributesMax), AttributesMax),
                (nameof(NameCharsMax), NameCharsMax),
                (nameof(NamespaceCharsMax), NamespaceCharsMax),
                (nameof(TextBytesMax), TextBytesMax),
                (nameof(NodesMax), NodesMax),
                (nameof(SendBufferBytesMax), SendBufferBytesMax),
                (nameof(NamesMax), NamesMax),
            }
        )
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, name);
        }
    }
}
