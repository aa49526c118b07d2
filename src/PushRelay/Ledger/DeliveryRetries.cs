using Microsoft.EntityFrameworkCore;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>The result of a request to send a delivery again.</summary>
internal abstract record RetryResult
{
    private RetryResult() { }

    /// <summary>It is pending again.</summary>
    public sealed record Pending(DeliverySummary Delivery) : RetryResult;

    /// <summary>There is no such delivery.</summary>
    public sealed record Missing : RetryResult;

    /// <param name="Why">A sentence for the caller.</param>
    public sealed record Refused(string Why) : RetryResult;
}

/// <summary>Sends a delivery that has ended again, for an operator.</summary>
internal sealed class DeliveryRetries(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    WorkSignal signal,
    DeliveryFactory factory,
    DatabaseClock clock,
    AuditTrail audit
)
{
    /// <summary>As <see cref="OutboxQueue.RetryAsync"/> says, where its device can be reached; for as long as a new alert of its class
    /// lives.</summary>
    public async Task<RetryResult> RetryAsync(Guid id, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var deliveries = db.Set<Delivery>().AsNoTracking().Where(d => d.Id == id);
        if (await deliveries.SingleOrDefaultAsync(cancellationToken) is not { } ended)
        {
            return new RetryResult.Missing();
        }

        var device = await db.Set<Device>()
            .Where(d => d.Key == ended.DeviceKey)
            .Select(d => (DeviceStatus?)d.Status)
            .SingleOrDefaultAsync(cancellationToken);
        if (device != DeviceStatus.Active)
        {
            return new RetryResult.Refused(
                device is null ? "Its device is removed." : "Its device is invalid: its token was refused, and it has not registered since."
            );
        }

        if (!await outbox.RetryAsync(db, ended, factory.TimeToLive(ended.Class), cancellationToken))
        {
            return new RetryResult.Refused($"It is {Names.Of(ended.State)}; only what is dead, rejected or expired can.");
        }

        var pending = await deliveries.SingleAsync(cancellationToken);
        var record = audit.Record(
            db,
            await clock.NowAsync(db, cancellationToken),
            actor,
            AuditActions.DeliveryRetried,
            ended.Account,
            ended.Id.ToString("D")
        );
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        audit.Log(record);
        signal.Wake();
        return new RetryResult.Pending(DeliverySummary.Of(pending));
    }
}
