using PushRelay.Cluster;
using PushRelay.Faults;
using PushRelay.Ingest;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Bridge;

/// <summary>
/// Commits the events of one link in groups, under the term of the link's lease, and acknowledges them once they are durable. While the
/// database is away it tries again; nothing is acknowledged meanwhile.
/// </summary>
internal sealed class EventCommitter(ServerLink link, EventIngest ingest, DatabaseFailures failures, TimeProvider clock)
{
    private static readonly TimeSpan RetryInterval = TimeSpan.FromSeconds(1);

    private readonly List<EventBatch> batches = [];

    /// <summary>The subject of a database that does not take the events.</summary>
    private readonly string databaseWork = $"events of {link.Domain}";

    /// <summary>To be committed with the next group.</summary>
    public void Add(EventBatch batch) => batches.Add(batch);

    /// <summary>Drops the events that are not committed: they are not acknowledged, so the module sends them again.</summary>
    public void DropBatches() => batches.Clear();

    public void ClearConditions() => failures.Remove(databaseWork);

    /// <summary>The last committed position of a stream; null if there is none.</summary>
    public Task<StreamPoint?> PositionAsync(StreamName stream, CancellationToken cancellationToken) =>
        RetryAsync(() => ingest.PositionAsync(stream, cancellationToken), cancellationToken);

    /// <exception cref="LeaseLostException">Another node has the link: nothing was committed.</exception>
    public async Task CommitAsync(BridgeStreams streams, CancellationToken cancellationToken)
    {
        if (batches.Count == 0)
        {
            return;
        }

        await RetryAsync(
            async () =>
            {
                await ingest.CommitAsync(batches, link.Term, cancellationToken);
                return true;
            },
            cancellationToken
        );
        Failpoint.Reach("before_ack");
        foreach (var group in batches.Where(b => b.Point is not null).GroupBy(b => b.Stream))
        {
            var point = group.Last().Point!.Value;
            streams.Find(group.Key)?.MarkCommitted(point);
            await link.SendAsync(BridgeProtocol.Ack(link.Domain, group.Key, point), cancellationToken);
        }

        batches.Clear();
    }

    private async Task<T> RetryAsync<T>(Func<Task<T>> action, CancellationToken cancellationToken)
    {
        var result = await DatabaseErrors.RetryAsync(_ => action(), (exception, _) => WaitAfter(exception), clock, cancellationToken);
        failures.Remove(databaseWork);
        return result;
    }

    private TimeSpan? WaitAfter(Exception exception)
    {
        if (exception is OperationCanceledException or LeaseLostException || DatabaseErrors.IsRefusal(exception))
        {
            return null;
        }

        failures.Add(databaseWork, exception);
        return RetryInterval;
    }
}
