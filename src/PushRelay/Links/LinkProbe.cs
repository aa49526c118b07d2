using System.Globalization;
using System.Net.Sockets;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>A link for a moment, of a component whose link no node holds: does the server let the component in?</summary>
internal static class LinkProbe
{
    /// <summary>For the connection, for the handshake, and for each answer after it.</summary>
    public static readonly TimeSpan Timeout = TimeSpan.FromSeconds(5);

    /// <returns>Null: the server lets the component in; else why not, and the cure.</returns>
    public static async Task<string?> ConnectAsync(ComponentOptions options, TimeProvider clock, CancellationToken cancellationToken)
    {
        var at = $"{options.Host}:{options.Port.ToString(CultureInfo.InvariantCulture)}";
        try
        {
            await XmppComponent.ProbeAsync(options.ToXmppProbe([]), clock, cancellationToken);
            return null;
        }
        catch (XmppStreamException exception) when (exception.Condition == "not-authorized")
        {
            return $"The server at {at} refuses the secret of {options.Domain}. Cure: make Secret what the server has (Prosody: "
                + $"component_secret, ejabberd: password).";
        }
        catch (XmppStreamException exception) when (exception.Condition == "host-unknown")
        {
            return $"The server at {at} knows no component {options.Domain}. Cure: make Domain what the server has (Prosody: Component "
                + $"\"...\", ejabberd: hosts of ejabberd_service).";
        }
        catch (XmppStreamException exception) when (exception.Condition == "conflict")
        {
            return $"Another program is linked to {at} as {options.Domain}. Cure: stop it, or give each its own domain.";
        }
        catch (Exception exception)
            when (exception is SocketException or IOException or TimeoutException or XmppStreamException or XmppNotConnectedException)
        {
            return $"{at} does not answer as a component port: {exception.Message} Cure: check Host and Port, and that the server "
                + $"listens there for components.";
        }
    }
}
