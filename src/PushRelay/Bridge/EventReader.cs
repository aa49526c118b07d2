using System.Xml.Linq;
using PushRelay.Ingest;
using PushRelay.Limits;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>Reads the children of one stream's live stanzas: applies what they say of sessions, and makes events of all that matters to
/// alerts. A child that cannot be read is logged and ignored.</summary>
internal sealed partial class EventReader(StreamName name, PresenceTracker presence, TimeProvider clock, ILogger logger)
{
    private static readonly TimeSpan HeartbeatDefault = TimeSpan.FromSeconds(30);

    // an account whose name the relay does not take sends as many as it likes
    private readonly RateLimit passedOverLogged = new(1, TimeSpan.FromSeconds(10), 10, clock);

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
                    LogPassedOver(child, seq);
                }
            }
            else if (child.Name == BridgeProtocol.Namespace + "session" && !events.Replay)
            {
                if (!BridgeProtocol.TryReadSession(child, name.Server, now, out var session))
                {
                    LogPassedOver(child, seq);
                }
                else if (presence.Apply(name, session.Account, session.Sid, session.Session) is { } change)
                {
                    read.Add(new RelayEvent.PresenceChanged(change, now));
                }
            }
            else
            {
                // an unknown child comes from a newer module
                Heartbeat = BridgeProtocol.HeartbeatInterval(child) ?? Heartbeat;
            }
        }

        return read;
    }

    private void LogPassedOver(XElement child, long seq)
    {
        if (passedOverLogged.TryTake("", out _))
        {
            PassedOver(child.Name.LocalName, name.Server, seq);
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "An event <{Kind}/> of server {Server} in stanza {Seq} cannot be read and is ignored"
    )]
    private partial void PassedOver(string kind, string server, long seq);
}
