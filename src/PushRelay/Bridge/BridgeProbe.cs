using System.Collections.Concurrent;
using System.Xml.Linq;
using Microsoft.Extensions.Logging.Abstractions;
using PushRelay.Apps;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Xmpp;

namespace PushRelay.Bridge;

/// <summary>What a server said when it was asked for a snapshot; its error's condition, or null where it said nothing in time.</summary>
internal sealed record ServerAnswer(BridgeSnapshot? Snapshot, int Sessions, string? Condition);

/// <summary>
/// A link for a moment, of a component whose link no node holds: do its virtual hosts have the module? It acknowledges nothing, so it takes
/// nothing away from the link that follows.
/// </summary>
internal sealed class BridgeProbe(ComponentOptions options, TimeProvider clock) : IXmppComponentHandler
{
    private readonly ConcurrentDictionary<string, ServerAnswer> answers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int> sessions = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource connected = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource answered = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Asks every server behind the link; a server that does not answer within five seconds has no entry.</summary>
    public async Task<IReadOnlyDictionary<string, ServerAnswer>> AskAsync(CancellationToken cancellationToken)
    {
        await using var component = new XmppComponent(
            options.ToXmppProbe(BridgeProtocol.Names),
            this,
            clock,
            NullLogger<XmppComponent>.Instance
        );
        using var end = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var running = component.RunAsync(end.Token);
        try
        {
            await connected.Task.WaitAsync(LinkProbe.Timeout, clock, cancellationToken);
            foreach (var server in options.Servers)
            {
                await component.SendAsync(
                    options.Addressed(BridgeProtocol.SnapshotRequest($"probe-{server}", options.Domain, new StreamName(server, ""), null)),
                    cancellationToken
                );
            }

            await answered.Task.WaitAsync(LinkProbe.Timeout, clock, cancellationToken);
        }
        catch (Exception exception) when (exception is TimeoutException or XmppNotConnectedException)
        {
            // a server that has not answered is missing in what is returned
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

    public ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken) => ValueTask.FromResult(TryProcess(stanza));

    private bool TryProcess(XElement stanza)
    {
        if (
            !Jid.TryParse((string?)stanza.Attribute("from"), out var jid)
            || jid is not { Local: null, Resource: null, Domain: var from }
            || !options.Servers.Contains(from)
        )
        {
            return false;
        }

        if (BridgeProtocol.TryReadEvents(stanza, out var events))
        {
            var page = events.Snapshot ? events.Children.Count : 0;
            sessions.AddOrUpdate(from, page, (_, count) => count + page);
            return true;
        }

        if (stanza.Name.LocalName != "iq" || (string?)stanza.Attribute("id") != $"probe-{from}")
        {
            return false;
        }

        var snapshot = BridgeProtocol.TryReadSnapshot(stanza, out var read) ? read : null;
        answers.TryAdd(from, new ServerAnswer(snapshot, sessions.GetValueOrDefault(from), XmppStanza.ConditionOf(stanza)));
        if (answers.Count == options.Servers.Count)
        {
            answered.TrySetResult();
        }

        return true;
    }
}
