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
internal sealed class EventIngest(
    IDbContextFactory<RelayDb> databases, OutboxQueue outbox, DeviceRegistry registry, MasterKey masterKey, DatabaseClock clock,
    Sequence sequence, IOptions<AlertsOptions> alerts)
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

    /// <summary>All of it or nothing; a batch at or below its stream's committed position is passed over.</summary>
    public async Task CommitAsync(IReadOnlyList<EventBatch> batches, CancellationToken cancellationToken)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                await TryCommitAsync(batches, cancellationToken);
                outbox.Wake();
                return;
            }
            catch (DbUpdateException) when (tries < TriesMax)
            {
                // another node committed the same stanza, or a count, at the same moment: its position tells on the next try
            }
        }
    }

    private async Task TryCommitAsync(IReadOnlyList<EventBatch> batches, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var accounts = batches.SelectMany(b => b.Events).Select(e => e.Account).Distinct(StringComparer.Ordinal).ToList();
        var entry = new LedgerEntry(db, now, outbox, registry, masterKey, sequence, alerts.Value)
        {
            Devices = accounts.Count == 0 ? Enumerable.Empty<Device>().ToLookup(d => d.Account) : await DeviceRegistry.OfAccountsAsync(db, accounts, cancellationToken),
            Unread = (await db.Set<UnreadCount>().Where(u => accounts.Contains(u.Account)).ToListAsync(cancellationToken))
                .GroupBy(u => u.Account, StringComparer.Ordinal).ToDictionary(g => g.Key, g => g.ToDictionary(u => u.Conversation, StringComparer.Ordinal), StringComparer.Ordinal),
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

        await entry.FlushAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
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
}
