using Microsoft.EntityFrameworkCore;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Alerts that show whether alerts arrive: they ignore presence and preferences, and use the same outbox as all
/// others.</summary>
internal sealed class TestAlerts(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    ReadyQueue ready,
    DeliveryFactory factory,
    DatabaseClock clock,
    AuditTrail audit
)
{
    private const string Text = "PushRelay: this is a test alert.";
    private static readonly TimeSpan TimeToLive = TimeSpan.FromHours(1);

    /// <param name="device">Whom to.</param>
    /// <param name="key">The same key again is the same delivery; null: a new one.</param>
    /// <param name="actor">Who sends it.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>Its delivery, <c>suppressed</c> where the device is invalid.</returns>
    public async Task<DeliverySummary> SendAsync(Device device, string? key, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var row = Row(device, key is null ? Guid.NewGuid().ToString("D") : $"test:{key}", now);
        if (await FindAsync(db, row, cancellationToken) is { } there)
        {
            return DeliverySummary.Of(there);
        }

        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var record = audit.Record(db, row.CreatedAt, actor, AuditActions.DeviceTested, device.Account, device.Id);
        await db.SaveChangesAsync(cancellationToken);
        using var appended = await outbox.AppendAsync(db, [row], claim: false, row.CreatedAt, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        await ready.PublishAsync(appended, cancellationToken);
        audit.Log(record);
        // the same key at the same moment: the other's row is the one that is there
        return DeliverySummary.Of(await FindAsync(db, row, cancellationToken) ?? row);
    }

    private Delivery Row(Device device, string eventKey, DateTimeOffset now)
    {
        var server = ServedAccounts.ServerOf(device.Account);
        var message = new RelayEvent.Message(device.Account, now)
        {
            Key = eventKey,
            Source = EventSource.Test,
            Class = EventClass.Text,
            From = server,
            Type = "normal",
            Content = new AlertContent { Body = Text },
            OnlyDevice = device.Key,
            TimeToLive = TimeToLive,
            Presence = AccountPresence.Unknown,
        };
        PushDecision decision =
            device.Status == DeviceStatus.Active
                ? new PushDecision.Alert(Reasons.Test, TimeSpan.Zero)
                : new PushDecision.Suppress(Reasons.DeviceInvalid);
        return factory.Of(message, now).To(device, decision, situation: null, wait: TimeSpan.Zero, badge: 1);
    }

    private static Task<Delivery?> FindAsync(RelayDb db, Delivery row, CancellationToken cancellationToken) =>
        db.Set<Delivery>()
            .AsNoTracking()
            .SingleOrDefaultAsync(
                d => d.Server == row.Server && d.Account == row.Account && d.DeviceKey == row.DeviceKey && d.EventKey == row.EventKey,
                cancellationToken
            );
}
