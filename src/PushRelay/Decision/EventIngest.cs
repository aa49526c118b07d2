using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Decision;

/// <summary>
/// Turns events into ledger rows: decides per device, and commits rows, badge counts, cancellations and the stream's position in one
/// transaction. Only what this returned from may be acknowledged to the server.
/// </summary>
internal sealed partial class EventIngest(
    IDbContextFactory<RelayDb> databases, OutboxQueue outbox, DeviceRegistry registry, MasterKey masterKey, DatabaseClock clock, LeaseTable leases,
    Sequence sequence, IOptions<AlertsOptions> alerts, ILogger<EventIngest> logger)
{
    private const int TriesMax = 5;

    /// <summary>How far a stream is committed; null where nothing of it is.</summary>
    public async Task<StreamPoint?> PositionAsync(StreamName stream, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var position = await db.Set<StreamPosition>().AsNoTracking()
            .SingleOrDefaultAsync(p => p.Server == stream.Server && p.Node == stream.Node, cancellationToken);
        return position is null ? null : new StreamPoint(position.Epoch, position.Seq);
    }

    /// <summary>What came over no link, and so needs none.</summary>
    public Task CommitAsync(IReadOnlyList<EventBatch> batches, CancellationToken cancellationToken) => CommitAsync(batches, null, cancellationToken);

    /// <summary>
    /// All of it or nothing; a batch at or below its stream's committed position is passed over. An event that can never be committed is
    /// logged and passed over too, so that it does not hold up what follows.
    /// </summary>
    /// <param name="batches">In the order they came.</param>
    /// <param name="fence">The lease of the link they came over; null where they came over none.</param>
    /// <param name="cancellationToken">What is not committed by then is not.</param>
    /// <exception cref="Exception">The database is away (<see cref="DatabaseOutage"/>): nothing was committed, try again.</exception>
    /// <exception cref="LeaseLostException">Another node has the link: nothing was committed.</exception>
    public async Task CommitAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, CancellationToken cancellationToken)
    {
        try
        {
            await CommitTogetherAsync(batches, fence, cancellationToken);
        }
        catch (Exception exception) when (IsOfTheEvents(exception))
        {
            await CommitOneByOneAsync(batches, fence, cancellationToken);
        }

        outbox.Wake();
    }

    private async Task CommitTogetherAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, CancellationToken cancellationToken)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                await TryCommitAsync(batches, fence, careful: tries > 1, cancellationToken);
                return;
            }
            catch (DbUpdateException exception) when (tries < TriesMax && !DatabaseOutage.Is(exception))
            {
                // another node committed the same stanza, or a count, at the same moment: look again, and more closely
            }
        }
    }

    /// <summary>Finds the event that cannot be committed by committing each alone; the position moves behind the last.</summary>
    private async Task CommitOneByOneAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, CancellationToken cancellationToken)
    {
        foreach (var batch in batches)
        {
            foreach (var @event in batch.Events)
            {
                try
                {
                    await TryCommitAsync([new EventBatch(batch.Stream, [@event], null)], fence, careful: true, cancellationToken);
                }
                catch (Exception exception) when (IsOfTheEvents(exception))
                {
                    PassedOver(exception, @event.GetType().Name, batch.Stream.Server);
                }
            }

            await CommitTogetherAsync([batch with { Events = [] }], fence, cancellationToken);
        }
    }

    private static bool IsOfTheEvents(Exception exception) =>
        exception is not (OperationCanceledException or LeaseLostException) && !DatabaseOutage.Is(exception);

    private async Task TryCommitAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, bool careful, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = fence is { } held ? await leases.FenceAsync(db, held, cancellationToken) : await clock.NowAsync(db, cancellationToken);
        var accounts = batches.SelectMany(b => b.Events).Select(e => e.Account).Distinct(StringComparer.Ordinal).ToList();
        var entry = new LedgerEntry(db, now, outbox, registry, masterKey, sequence, alerts.Value)
        {
            Devices = await DeviceRegistry.OfAccountsAsync(db, accounts, cancellationToken),
            Unread = await UnreadOfAsync(db, accounts, cancellationToken),
            Careful = careful,
        };
        foreach (var batch in batches)
        {
            if (await MoveAsync(db, batch, cancellationToken))
            {
                foreach (var @event in batch.Events)
                {
                    await entry.WriteAsync(@event, cancellationToken);
                }
            }
        }

        await entry.FinishAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
    }

    private static async Task<Dictionary<string, Dictionary<string, UnreadCount>>> UnreadOfAsync(
        RelayDb db, IReadOnlyCollection<string> accounts, CancellationToken cancellationToken)
    {
        var counts = new List<UnreadCount>();
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            counts.AddRange(await db.Set<UnreadCount>().Where(u => some.Contains(u.Account)).ToListAsync(cancellationToken));
        }

        return counts.GroupBy(u => u.Account, StringComparer.Ordinal)
            .ToDictionary(g => g.Key, g => g.ToDictionary(u => u.Conversation, StringComparer.Ordinal), StringComparer.Ordinal);
    }

    /// <summary>False: somebody committed this stanza already.</summary>
    private static async Task<bool> MoveAsync(RelayDb db, EventBatch batch, CancellationToken cancellationToken)
    {
        if (batch.Point is not { } point)
        {
            return true;
        }

        var position = await db.Set<StreamPosition>().FindAsync([batch.Stream.Server, batch.Stream.Node], cancellationToken);
        if (position is null)
        {
            db.Add(new StreamPosition { Server = batch.Stream.Server, Node = batch.Stream.Node, Epoch = point.Epoch, Seq = point.Seq });
            return true;
        }

        if (position.Epoch == point.Epoch && position.Seq >= point.Seq)
        {
            return false;
        }

        (position.Epoch, position.Seq) = point;
        return true;
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "An event ({Kind}) of server {Server} cannot be stored and is passed over")]
    private partial void PassedOver(Exception exception, string kind, string server);
}
