using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Cluster;
using PushRelay.Devices;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>
/// Turns events into ledger rows: decides per device, and commits rows, badge counts, cancellations and the stream's position in one
/// transaction. Only what this returned from may be acknowledged to the server.
/// </summary>
internal sealed partial class EventIngest(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    ReadyQueue ready,
    DeviceRegistry registry,
    AccountTokens tokens,
    MasterKey masterKey,
    DatabaseClock clock,
    LeaseTable leases,
    WriteGate turns,
    IdSequence sequence,
    AlertPacer pacer,
    IOptions<AlertsOptions> alerts,
    ILogger<EventIngest> logger
)
{
    private const int TriesMax = 5;

    /// <summary>How far a stream is committed; null where nothing of it is.</summary>
    public async Task<StreamPoint?> PositionAsync(StreamName stream, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var position = await db.Set<StreamPosition>()
            .AsNoTracking()
            .SingleOrDefaultAsync(p => p.Server == stream.Server && p.Node == stream.Node, cancellationToken);
        return position is null ? null : new StreamPoint(position.Epoch, position.Seq);
    }

    /// <summary>What came over no link, and so needs none.</summary>
    public Task CommitAsync(IReadOnlyList<EventBatch> batches, CancellationToken cancellationToken) =>
        CommitAsync(batches, null, cancellationToken);

    /// <summary>
    /// All of it or nothing; a batch at or below its stream's committed position is passed over. An event that can never be committed is
    /// logged and passed over too, so that it does not hold up what follows.
    /// </summary>
    /// <param name="batches">In the order they came.</param>
    /// <param name="fence">The lease of the link they came over; null where they came over none.</param>
    /// <param name="cancellationToken">What is not committed by then is not.</param>
    /// <exception cref="Exception">The database is away (<see cref="DatabaseErrors"/>): nothing was committed, try again.</exception>
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
    }

    private async Task CommitTogetherAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, CancellationToken cancellationToken)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                await TryCommitAsync(batches, fence, claim: tries == 1, cancellationToken);
                return;
            }
            catch (Exception exception) when (tries < TriesMax && IsClash(exception))
            {
                // another node claimed one of the slots at the same moment: it is for the claims to sort out
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
                    await TryCommitAsync([new EventBatch(batch.Stream, [@event], null)], fence, claim: false, cancellationToken);
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
        exception is not (OperationCanceledException or LeaseLostException) && DatabaseErrors.IsOfTheValues(exception);

    private static bool IsClash(Exception exception) =>
        exception is DbUpdateException or Npgsql.PostgresException { SqlState: "23505" or "40P01" or "40001" };

    private async Task TryCommitAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? fence, bool claim, CancellationToken cancellationToken)
    {
        using var appended = await WriteAsync(batches, fence, claim, cancellationToken);
        // not cut short: what is committed is sent or handed back
        await ready.PublishAsync(appended, CancellationToken.None);
    }

    private async Task<AppendedRows> WriteAsync(
        IReadOnlyList<EventBatch> batches,
        LeaseTerm? fence,
        bool claim,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.TakeAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = fence is { } held ? await leases.FenceAsync(db, held, cancellationToken) : await clock.NowAsync(db, cancellationToken);
        var events = batches.SelectMany(b => b.Events).ToList();
        var accounts = events.Select(e => e.Account).Distinct(StringComparer.Ordinal).ToList();
        var cancelling = events.Where(MayCancel).Select(e => e.Account).Distinct(StringComparer.Ordinal).ToList();
        var positions = await PositionsAsync(db, batches.Where(b => b.Point is not null).Select(b => b.Stream), cancellationToken);
        var pace = pacer.Begin();
        var entry = new IngestTransaction(db, now, outbox, registry, tokens, masterKey, sequence, alerts.Value)
        {
            Devices = await registry.OfAccountsAsync(db, accounts, cancellationToken),
            Unread = await UnreadCounts.OfAsync(db, accounts, cancellationToken),
            Pending = await OutboxQueue.PendingOfAsync(db, cancelling, cancellationToken),
            Pace = pace,
        };
        foreach (var batch in batches)
        {
            if (Move(db, positions, batch))
            {
                foreach (var @event in batch.Events)
                {
                    await entry.WriteAsync(@event, cancellationToken);
                }
            }
        }

        await db.SaveChangesAsync(cancellationToken);
        var appended = await entry.FinishAsync(claim, cancellationToken);
        try
        {
            await transaction.CommitAsync(cancellationToken);
        }
        catch
        {
            // whether it is committed or not: if it is, the leases bring the rows back
            appended.Dispose();
            throw;
        }

        pace.Commit();
        return appended;
    }

    private static bool MayCancel(RelayEvent @event) =>
        @event
            is RelayEvent.Displayed
                or RelayEvent.AccountRemoved
                or RelayEvent.PresenceChanged { Change.CameToFront.IsEmpty: false }
                or RelayEvent.Message { Class: EventClass.CallEnded };

    private static async Task<Dictionary<StreamName, StreamPosition>> PositionsAsync(
        RelayDb db,
        IEnumerable<StreamName> streams,
        CancellationToken cancellationToken
    )
    {
        var positions = new Dictionary<StreamName, StreamPosition>();
        foreach (var stream in streams.Distinct())
        {
            if (await db.Set<StreamPosition>().FindAsync([stream.Server, stream.Node], cancellationToken) is { } position)
            {
                positions[stream] = position;
            }
        }

        return positions;
    }

    /// <summary>False: somebody committed this stanza already.</summary>
    private static bool Move(RelayDb db, Dictionary<StreamName, StreamPosition> positions, EventBatch batch)
    {
        if (batch.Point is not { } point)
        {
            return true;
        }

        if (!positions.TryGetValue(batch.Stream, out var position))
        {
            positions[batch.Stream] = position = new StreamPosition
            {
                Server = batch.Stream.Server,
                Node = batch.Stream.Node,
                Epoch = point.Epoch,
                Seq = point.Seq,
            };
            db.Add(position);
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
