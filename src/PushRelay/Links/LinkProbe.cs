using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Xml.Linq;
using Microsoft.Extensions.Logging.Abstractions;
using PushRelay.Apps;
using PushRelay.Bridge;
using PushRelay.Presence;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>What a server said when it was asked for a snapshot; its error's condition, or null where it said nothing in time.</summary>
internal sealed record ServerAnswer(BridgeSnapshot? Snapshot, int Sessions, string? Condition);

/// <summary>
/// A link of a moment, for a domain whose link no node has: does the server take the component, and do its virtual hosts have the module?
/// It acknowledges nothing, so takes nothing away from the link that follows.
/// </summary>
internal sealed class LinkProbe(ComponentOptions options, TimeProvider clock) : IXmppComponentHandler
{
    private static readonly TimeSpan AnswerTimeout = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<string, ServerAnswer> answers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int> sessions = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource connected = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource answered = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <returns>Null: the server takes the component; else why not, and the cure.</returns>
    public async Task<string?> ConnectAsync(CancellationToken cancellationToken)
    {
        var at = $"{options.Host}:{options.Port.ToString(System.Globalization.CultureInfo.InvariantCulture)}";
        try
        {
            await XmppComponent.ProbeAsync(Options(), clock, cancellationToken);
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

    /// <summary>Asks every server behind the link; who does not answer within five seconds has no entry.</summary>
    public async Task<IReadOnlyDictionary<string, ServerAnswer>> AskAsync(CancellationToken cancellationToken)
    {
        await using var component = new XmppComponent(Options(), this, clock, NullLogger<XmppComponent>.Instance);
        using var end = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var running = component.RunAsync(end.Token);
        try
        {
            await connected.Task.WaitAsync(AnswerTimeout, clock, cancellationToken);
            foreach (var server in options.Servers)
            {
                await component.SendAsync(
                    BridgeProtocol.SnapshotRequest($"probe-{server}", options.Domain, new StreamName(server, ""), null),
                    cancellationToken
                );
            }

            await answered.Task.WaitAsync(AnswerTimeout, clock, cancellationToken);
        }
        catch (Exception exception) when (exception is TimeoutException or XmppNotConnectedException)
        {
            // who has not answered is missing in what is returned
        }

        await end.CancelAsync();
        await running;
        return answers;
    }

    public ValueTask ConnectedAsync(CancellationToken cancellationToken)
    {
        connected.TrySetResult();
        return ValueTask.CompletedTask;
    }

    public ValueTask DisconnectedAsync(Exception? reason, CancellationToken cancellationToken) => ValueTask.CompletedTask;

    public ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken)
    {
        var from = (string?)stanza.Attribute("from") ?? "";
        if (!options.Servers.Contains(from))
        {
            return ValueTask.FromResult(false);
        }

        if (BridgeProtocol.TryReadEvents(stanza, out var events))
        {
            sessions.AddOrUpdate(
                from,
                events.Snapshot ? events.Children.Count : 0,
                (_, count) => count + (events.Snapshot ? events.Children.Count : 0)
            );
            return ValueTask.FromResult(true);
        }

        if (stanza.Name.LocalName != "iq" || (string?)stanza.Attribute("id") != $"probe-{from}")
        {
            return ValueTask.FromResult(false);
        }

        var condition = stanza.Element(XmppStanza.Component + "error")?.Elements().FirstOrDefault()?.Name.LocalName;
        answers.TryAdd(
            from,
            new ServerAnswer(
                BridgeProtocol.TryReadSnapshot(stanza, out var snapshot) ? snapshot : null,
                sessions.GetValueOrDefault(from),
                condition
            )
        );
        if (answers.Count == options.Servers.Count)
        {
            answered.TrySetResult();
        }

        return ValueTask.FromResult(true);
    }

    private XmppComponentOptions Options() =>
        new()
        {
            Host = options.Host,
            Port = options.Port,
            Domain = options.Domain,
            Secret = options.Secret,
            ServerDomain = options.Servers[0],
            KnownNames = BridgeProtocol.Names,
            ConnectTimeout = AnswerTimeout,
            HandshakeTimeout = AnswerTimeout,
        };
}
