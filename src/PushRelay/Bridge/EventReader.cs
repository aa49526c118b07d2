using PushRelay.Ingest;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>Reads the children of one stream's live stanzas: applies what they say of sessions, and makes events of all that matters to
/// alerts. A child that cannot be understood is logged and passed over.</summary>
internal sealed partial class EventReader(StreamName name, PresenceTracker presence, TimeProvider clock, ILogger logger)
{
    private static readonly TimeSpan HeartbeatDefault = TimeSpan.FromSeconds(30);

    /// <summary>The interval that the module last named.</summary>
    public TimeSpan Heartbeat { get; private set; } = HeartbeatDefault;

    /// <param name="events">The stanza.</param>
    /// <param name="numbering">Under which it is committed.</param>
    /// <param name="seq">Its number.</param>
    public List<RelayEvent> Read(BridgeEvents events, string numbering, long seq)
    {
        var read = new List<RelayEvent>(events.Children.Count);
        var position = 0;
        var now = clock.GetUtcNow();
        foreach (var child in events.Children)
        {
            if (BridgeProtocol.IsHeld(child))
            {
                position++;
                if (BridgeProtocol.TryReadHeld(child, name.Server, $"{numbering}:{seq}:{position}", out var @event))
                {
                    read.Add(
                        @event switch
                        {
                            RelayEvent.Message message => message with { Presence = presence.Get(name.Server, message.Account) },
                            RelayEvent.Displayed displayed => displayed with { Presence = presence.Get(name.Server, displayed.Account) },
                            _ => @event,
                        }
                    );
                }
                else
                {
                    PassedOver(child.Name.LocalName, name.Server, seq);
                }
            }
            else if (child.Name == BridgeProtocol.Namespace + "session" && !events.Replay)
            {
                if (!BridgeProtocol.TryReadSession(child, name.Server, now, out var session))
                {
                    PassedOver(child.Name.LocalName, name.Server, seq);
                }
                else if (presence.Apply(name, session.Account, session.Sid, session.Session) is { } change)
                {
                    read.Add(new RelayEvent.PresenceChanged(change, now));
                }
            }
            else
            {
                // a child that is not known is a newer module's
                Heartbeat = BridgeProtocol.HeartbeatInterval(child) ?? Heartbeat;
            }
        }

        return read;
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "An event <{Kind}/> of server {Server} in stanza {Seq} cannot be understood and is passed over"
    )]
    private partial void PassedOver(string kind, string server, long seq);
}
