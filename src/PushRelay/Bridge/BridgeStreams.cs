using PushRelay.Ingest;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>The streams that run over one link, by server and node: who speaks for a server, and who has left.</summary>
internal sealed partial class BridgeStreams(PresenceTracker presence, TimeProvider clock, ILogger logger)
{
    private const int StreamsMax = 64;

    private readonly Dictionary<StreamName, BridgeStream> streams = [];

    /// <summary>As they are now: may be changed while it is gone through.</summary>
    public IReadOnlyList<BridgeStream> All => [.. streams.Values];

    /// <summary>It is known, or there is room for it.</summary>
    public bool Takes(StreamName name) => streams.ContainsKey(name) || streams.Count < StreamsMax;

    public BridgeStream? Find(StreamName name) => streams.GetValueOrDefault(name);

    public BridgeStream Of(StreamName name)
    {
        if (!streams.TryGetValue(name, out var stream))
        {
            streams[name] = stream = new BridgeStream(name, presence, clock, logger);
            // what it has is unknown until it says so
            presence.Lose(name);
        }

        return stream;
    }

    /// <summary>The stream whose request this answers.</summary>
    public BridgeStream? Asked(string server, string? id) =>
        streams.Values.FirstOrDefault(s => s.Request is not null && s.Request == id && s.Name.Server == server);

    public void LoseAll()
    {
        foreach (var stream in streams.Values)
        {
            stream.Lose();
        }
    }

    public void DropAll() => All.ToList().ForEach(Drop);

    /// <summary>Others speak for what it had.</summary>
    public void Drop(BridgeStream stream)
    {
        streams.Remove(stream.Name);
        presence.Forget(stream.Name);
    }

    /// <summary>A node that left its cluster: its sessions are no more.</summary>
    /// <returns>What that changed.</returns>
    public EventBatch End(BridgeStream stream)
    {
        NodeLeft(stream.Name.Node, stream.Name.Server);
        streams.Remove(stream.Name);
        var now = clock.GetUtcNow();
        return new EventBatch(stream.Name, [.. presence.End(stream.Name).Select(c => new RelayEvent.PresenceChanged(c, now))], null);
    }

    /// <summary>Of its server's nodes another one lives.</summary>
    public bool HasLivingPeer(BridgeStream stream) => streams.Values.Any(s => s.IsLive && s.Name.Server == stream.Name.Server);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Node {Node} of server {Server} has left the cluster: its sessions are ended")]
    private partial void NodeLeft(string node, string server);
}
