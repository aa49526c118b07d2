using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>
/// What a component does with its link. The calls never overlap and come in the order of the stream: for each link one
/// <see cref="ConnectedAsync"/>, its stanzas, one <see cref="DisconnectedAsync"/>.
/// </summary>
public interface IXmppComponentHandler
{
    /// <summary>The handshake is over and sending works. No stanza is read before this returns; an exception ends the link.</summary>
    ValueTask ConnectedAsync(CancellationToken cancellationToken);

    /// <summary>
    /// One stanza: <c>message</c>, <c>iq</c> or <c>presence</c> in <see cref="XmppStanza.Component"/>, with a <c>from</c> of
    /// another domain than the component's. Nothing more is read until this returns, so that a slow handler slows the server.
    /// </summary>
    /// <returns>
    /// False if it is none of the handler's: an IQ get or set is then answered with <c>service-unavailable</c>. An exception is
    /// logged, an IQ get or set answered with <c>internal-server-error</c>, and the link goes on.
    /// </returns>
    ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken);

    /// <summary>The link is over; also when the component was stopped, then without a reason. The token ends after five seconds.</summary>
    ValueTask DisconnectedAsync(Exception? reason, CancellationToken cancellationToken);
}
