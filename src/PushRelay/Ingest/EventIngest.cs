using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Ingest;

/// <summary>
/// Turns events into ledger rows: decides per device, and commits rows, badge counts, cancellations and the stream's position in one
/// transaction. Only what <see cref="CommitAsync"/> returned from may be acknowledged to the server.
/// </summary>
internal sealed partial class EventIngest(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    ReadyQueue ready,
    DeviceRegistry registry,
    AccountTokens tokens,
    DeliveryFactory factory,
    PushNetworks networks,
    ReadPushes readPushes,
    DatabaseClock clock,
    LeaseTable leases,
    WriteGate gate,
    AppCatalog apps,
    EndedCount ended,
    RelayMetrics metrics,
    IOptions<AlertsOptions> options,
    TimeProvider timers,
    ILogger<EventIngest> logger
)
{
    private const int TriesMax = 5;

    private readonly AlertPacer pacer = AlertPacer.OfAlerts(options.Value, timers);
    private readonly AlertPacer wakePacer = AlertPacer.OfWakeups(options.Value, timers);

    /// <summary>The last committed position of a stream; null if there is none.</summary>
    public async Task<StreamPoint?> PositionAsync(StreamName stream, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var position = await db.Set<StreamPosition>()
            .AsNoTracking()
            .SingleOrDefaultAsync(p => p.Server == stream.Server && p.Node == stream.Node, cancellationToken);
        return position is null ? null : new StreamPoint(position.Epoch, position.Seq);
    }

    /// <summary>
    /// Commits all of it or nothing; a batch at or below its stream's committed position is skipped. An event that can never be stored is
    /// logged and skipped, so that it does not hold up what follows.
    /// </summary>
    /// <param name="batches">In the order they came.</param>
    /// <param name="term">The lease of the link they came over; null where they came over none.</param>
    /// <param name="cancellationToken">Stops it; nothing is committed after that.</param>
    /// <exception cref="Exception">The database failed (<see cref="DatabaseErrors"/>): nothing was committed, try again.</exception>
    /// <exception cref="LeaseLostException">Another node has the link: nothing was committed.</exception>
    public async Task CommitAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? term, CancellationToken cancellationToken)
    {
        try
        {
            await CommitTogetherAsync(batches, term, cancellationToken);
        }
        catch (Exception exception) when (IsOfTheEvents(exception))
        {
            await CommitOneByOneAsync(batches, term, cancellationToken);
        }
    }

    /// <summary>Tries again where another node's transaction crossed this one: then without claiming, which is what they clash
    /// over.</summary>
    private async Task CommitTogetherAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? term, CancellationToken cancellationToken) =>
        await DatabaseErrors.RetryClashesAsync(
            async tries =>
            {
                await CommitOnceAsync(batches, term, claim: tries == 1, cancellationToken);
                return true;
            },
            TriesMax
        );

    /// <summary>Commits each event alone to find the one that cannot be stored; the position moves past the last one.</summary>
    private async Task CommitOneByOneAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? term, CancellationToken cancellationToken)
    {
        foreach (var batch in batches)
        {
            foreach (var @event in batch.Events)
            {
                try
                {
                    await CommitOnceAsync([new EventBatch(batch.Stream, [@event], null)], term, claim: false, cancellationToken);
                }
                catch (Exception exception) when (IsOfTheEvents(exception))
                {
                    Skipped(exception, @event.GetType().Name, batch.Stream.Server);
                }
            }

            await CommitTogetherAsync([batch with { Events = [] }], term, cancellationToken);
        }
    }

    /// <summary>
    /// One transaction:
    /// <code>
    ///   batches ──► 1 begin ──► 2 load ──► 3 apply ──────────► 4 write ──────► 5 commit ──► 6 publish ──► dispatcher
    ///               gate,       positions, each event in its   position,       or give     claimed rows
    ///               fence       devices,   order: decide,      counts, rows    back what    from memory,
    ///                           counts     count, cancel       (claims them)   was claimed  others by a wake
    /// </code>
    /// </summary>
    /// <param name="batches">In the order they came.</param>
    /// <param name="term">Of the link they came over, if any.</param>
    /// <param name="claim">Take what is due at once for the dispatcher of this process.</param>
    /// <param name="cancellationToken">Stops it before the commit.</param>
    private async Task CommitOnceAsync(IReadOnlyList<EventBatch> batches, LeaseTerm? term, bool claim, CancellationToken cancellationToken)
    {
        AppendedRows? appended = null;
        var messages = new List<RelayEvent.Message>();
        try
        {
            await using (var db = await databases.CreateDbContextAsync(cancellationToken))
            {
                // :: Step 1: begin. The gate lets one writer of this process in; a node that has lost the link's lease ends here
                using var entered = await gate.EnterAsync(cancellationToken);
                // what fails ends the whole transaction: a savepoint would only be two more round trips
                db.Database.AutoSavepointsEnabled = false;
                await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
                var now = term is { } held
                    ? await leases.FenceAsync(db, held, cancellationToken)
                    : await clock.NowAsync(db, cancellationToken);

                // :: Step 2: load what the events need, in few statements however many they are
                var positions = await StreamPositions.OfAsync(db, batches, cancellationToken);
                var (pace, wakes) = (pacer.Begin(), wakePacer.Begin());
                var ingest = new IngestTransaction(
                    db,
                    now,
                    outbox,
                    registry,
                    tokens,
                    factory,
                    networks,
                    readPushes,
                    apps,
                    pace,
                    wakes,
                    options.Value
                );
                await ingest.LoadAsync([.. batches.SelectMany(b => b.Events)], cancellationToken);

                // :: Step 3: apply each event in its order, but no stanza twice
                foreach (var batch in batches)
                {
                    if (positions.TryAdvance(batch))
                    {
                        foreach (var @event in batch.Events)
                        {
                            await ingest.ApplyAsync(@event, cancellationToken);
                            if (@event is RelayEvent.Message message)
                            {
                                messages.Add(message);
                            }
                        }
                    }
                }

                // :: Step 4: write
                appended = await ingest.WriteAsync(claim, cancellationToken);

                // :: Step 5: commit
                await transaction.CommitAsync(cancellationToken);
                pace.Commit();
                wakes.Commit();
                ended.Count(ingest.Ended);
            }

            foreach (var same in messages.GroupBy(m => (m.Source, m.Class)))
            {
                metrics.CountEvents(Names.Of(same.Key.Source), Names.Of(same.Key.Class), same.Count());
            }

            // :: Step 6: publish. Not cut short: what is committed is sent or handed back
            await ready.PublishAsync(appended, CancellationToken.None);
        }
        finally
        {
            // what was not published gives its permits back, committed or not: if it was, the leases bring the rows back
            appended?.Dispose();
        }
    }

    private static bool IsOfTheEvents(Exception exception) =>
        exception is not (OperationCanceledException or LeaseLostException) && DatabaseErrors.IsRefusal(exception);

    [LoggerMessage(Level = LogLevel.Error, Message = "An event ({Kind}) of server {Server} cannot be stored and is skipped")]
    private partial void Skipped(Exception exception, string kind, string server);
}
