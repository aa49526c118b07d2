using PushRelay.Ingest;
using PushRelay.Presence;

namespace PushRelay.Bridge;

/// <summary>The streams that run over one link, by server and node.</summary>
internal sealed partial class BridgeStreams(PresenceTracker presence, TimeProvider clock, ILogger logger)
{
    private const int StreamsMax = 64;

    private readonly Dictionary<StreamName, BridgeStream> streams = [];

    /// <summary>A copy: streams may be added and removed while the caller reads it.</summary>
    public IReadOnlyList<BridgeStream> All => [.. streams.Values];

    /// <summary>The stream is known, or there is room to add it.</summary>
    public bool Admits(StreamName name) => streams.ContainsKey(name) || streams.Count < StreamsMax;

    public BridgeStream? Find(StreamName name) => streams.GetValueOrDefault(name);

    public BridgeStream FindOrAdd(StreamName name)
    {
        if (!streams.TryGetValue(name, out var stream))
        {
            streams[name] = stream = new BridgeStream(name, presence, clock, logger);
        }

        return stream;
    }

    /// <summary>The stream of the server that waits for the answer to this request.</summary>
    public BridgeStream? FindRequest(string server, string? id) =>
        streams.Values.FirstOrDefault(s => s.Request is not null && s.Request == id && s.Name.Server == server);

    public void MarkAllLost()
    {
        foreach (var stream in streams.Values)
        {
            stream.MarkLost();
        }
    }

    public void DropAll() => All.ToList().ForEach(Drop);

    /// <summary>Forgets the stream: others report its sessions.</summary>
    public void Drop(BridgeStream stream)
    {
        streams.Remove(stream.Name);
        presence.Forget(stream.Name);
    }

    /// <summary>Ends the stream of a node that left its cluster, with its sessions.</summary>
    /// <returns>What that changed.</returns>
    public EventBatch End(BridgeStream stream)
    {
        NodeLeft(stream.Name.Node, stream.Name.Server);
        streams.Remove(stream.Name);
        var now = clock.GetUtcNow();
        return new EventBatch(stream.Name, [.. presence.End(stream.Name).Select(c => new RelayEvent.PresenceChanged(c, now))], null);
    }

    /// <summary>Another node of its server is live.</summary>
    public bool HasLivePeer(BridgeStream stream) => streams.Values.Any(s => s.IsLive && s.Name.Server == stream.Name.Server);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Node {Node} of server {Server} has left the cluster: its sessions are ended")]
    private partial void NodeLeft(string node, string server);
}
