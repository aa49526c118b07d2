using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Which deliveries are asked for; what is null does not count.</summary>
internal sealed record DeliveryFilter
{
    public string? Account { get; init; }

    public string? Device { get; init; }

    public DeliveryState? State { get; init; }

    /// <summary>Created at or after.</summary>
    public DateTimeOffset? From { get; init; }

    /// <summary>Created before.</summary>
    public DateTimeOffset? To { get; init; }

    public Guid? Before { get; init; }
}

/// <summary>Reads the ledger.</summary>
internal sealed class DeliveryLog(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    WorkSignal signal,
    DatabaseClock clock,
    AuditTrail audit,
    IOptions<AlertsOptions> alerts
)
{
    /// <summary>Newest first.</summary>
    public async Task<IReadOnlyList<Delivery>> ListAsync(DeliveryFilter filter, int limit, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var rows = db.Set<Delivery>().AsNoTracking();
        rows = filter.Account is { } account ? rows.Where(d => d.Account == account) : rows;
        rows = filter.Device is { } device ? rows.Where(d => d.Device == device) : rows;
        rows = filter.State is { } state ? rows.Where(d => d.State == state) : rows;
        rows = filter.From is { } from ? rows.Where(d => d.CreatedAt >= from) : rows;
        rows = filter.To is { } to ? rows.Where(d => d.CreatedAt < to) : rows;
        rows = filter.Before is { } before ? rows.Where(d => d.Id.CompareTo(before) < 0) : rows;
        return await rows.OrderByDescending(d => d.Id).Take(limit).ToListAsync(cancellationToken);
    }

    /// <summary>With its attempts; null where there is none, or none of <paramref name="account"/> (null: of any).</summary>
    public async Task<(Delivery Delivery, IReadOnlyList<Attempt> Attempts)?> FindAsync(
        string? account,
        Guid id,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var delivery = await db.Set<Delivery>()
            .AsNoTracking()
            .SingleOrDefaultAsync(d => d.Id == id && (account == null || d.Account == account), cancellationToken);
        if (delivery is null)
        {
            return null;
        }

        var attempts = await db.Set<Attempt>()
            .AsNoTracking()
            .Where(a => a.DeliveryId == id)
            .OrderBy(a => a.Number)
            .ToListAsync(cancellationToken);
        if (delivery.AnswerMs is { } duration && attempts.Count == 0)
        {
            // a first attempt that was accepted has no row of its own
            attempts.Add(
                new Attempt
                {
                    DeliveryId = delivery.Id,
                    Number = 1,
                    At = delivery.SettledAt!.Value - TimeSpan.FromMilliseconds(duration),
                    DurationMs = duration,
                    Status = StatusCodes.Status200OK,
                    Outcome = "accepted",
                    ProviderId = delivery.Id.ToString("D"),
                }
            );
        }

        return (delivery, attempts);
    }

    /// <summary>Sends it again, as <see cref="OutboxQueue.RetryAsync"/> says, where its device can be reached.</summary>
    /// <returns>Null, or why it is not sent.</returns>
    public async Task<string?> RetryAsync(Delivery ended, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (
            await db.Set<Device>()
                .Where(d => d.Key == ended.DeviceKey)
                .Select(d => (DeviceStatus?)d.Status)
                .SingleOrDefaultAsync(cancellationToken)
                is var device
            && device != DeviceStatus.Active
        )
        {
            return device is null
                ? "Its device is removed."
                : "Its device is invalid: its token was refused, and it has not registered since.";
        }

        var life = ended.Class == EventClass.Call ? alerts.Value.CallTimeToLive : alerts.Value.TimeToLive;
        if (!await outbox.RetryAsync(db, ended, life, cancellationToken))
        {
            return $"It is {Names.Of(ended.State)}; only what is dead, rejected or expired can.";
        }

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
        return null;
    }
}
