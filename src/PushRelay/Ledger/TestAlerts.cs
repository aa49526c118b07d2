using Microsoft.EntityFrameworkCore;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Alerts that only show whether alerts arrive: past presence and preferences, through the same outbox as all others.</summary>
internal sealed class TestAlerts(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    MasterKey masterKey,
    DatabaseClock clock,
    IdSequence sequence,
    AuditTrail audit
)
{
    private const string Text = "PushRelay: this is a test alert.";
    private static readonly TimeSpan TimeToLive = TimeSpan.FromHours(1);

    /// <param name="device">Whom to.</param>
    /// <param name="key">The same key again is the same delivery; null: a new one.</param>
    /// <param name="actor">Who sends it.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>Its row, <c>suppressed</c> where the device is invalid.</returns>
    public async Task<Delivery> SendAsync(Device device, string? key, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var row = Row(device, key is null ? sequence.Next(now).ToString("D") : $"test:{key}", now);
        if (await FindAsync(db, row, cancellationToken) is { } there)
        {
            return there;
        }

        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var record = audit.Note(db, row.CreatedAt, actor, "device.test", device.Account, device.Id);
        await db.SaveChangesAsync(cancellationToken);
        var appended = await outbox.AppendAsync(db, [row], claim: false, row.CreatedAt, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        await outbox.HandOverAsync(appended, cancellationToken);
        audit.Tell(record);
        outbox.Wake();
        // the same key at the same moment: the other's row is the one that is there
        return await FindAsync(db, row, cancellationToken) ?? row;
    }

    private static Task<Delivery?> FindAsync(RelayDb db, Delivery row, CancellationToken cancellationToken) =>
        db.Set<Delivery>()
            .AsNoTracking()
            .SingleOrDefaultAsync(
                d => d.Server == row.Server && d.Account == row.Account && d.DeviceKey == row.DeviceKey && d.EventKey == row.EventKey,
                cancellationToken
            );

    private Delivery Row(Device device, string eventKey, DateTimeOffset now)
    {
        var id = sequence.Next(now);
        var server = ServedAccounts.ServerOf(device.Account);
        var valid = device.Status == DeviceStatus.Active;
        return new Delivery
        {
            Id = id,
            Server = server,
            Account = device.Account,
            DeviceKey = device.Key,
            Device = device.Id,
            App = device.App,
            Platform = device.Platform,
            Lane = device.Lane,
            EventKey = eventKey,
            Source = EventSource.Test,
            Class = EventClass.Text,
            Sender = server,
            Conversation = server,
            EventAt = now,
            MessageType = "normal",
            // an ordering key of its own: it waits for nothing
            OrderingKey = id,
            Content = valid ? new AlertContent(Text, null).Seal(masterKey, id) : null,
            Badge = 1,
            State = valid ? DeliveryState.Pending : DeliveryState.Suppressed,
            Reason = valid ? Reasons.Test : Reasons.DeviceInvalid,
            CreatedAt = now,
            DueAt = now,
            ExpiresAt = now + TimeToLive,
            SettledAt = valid ? null : now,
        };
    }
}
