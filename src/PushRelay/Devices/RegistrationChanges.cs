using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Audit;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>What the registrations of one transaction change: devices that are made, replaced and removed, and the audit of it.</summary>
/// <param name="db">The transaction's.</param>
/// <param name="devices">Of every account and every token that these registrations name.</param>
/// <param name="now">By the database's clock.</param>
/// <param name="masterKey">Seals the tokens.</param>
/// <param name="sequence">Makes the keys of new devices.</param>
/// <param name="audit">Keeps a record of each change.</param>
internal sealed class RegistrationChanges(
    RelayDb db,
    List<Device> devices,
    DateTimeOffset now,
    MasterKey masterKey,
    IdSequence sequence,
    AuditTrail audit
)
{
    private readonly List<(Guid Key, DeviceRemoval Removal)> removed = [];

    /// <summary>The keys of all devices that change.</summary>
    public List<Guid> Touched { get; } = [];

    /// <summary>To be logged after the commit.</summary>
    public List<AuditRecord> Records { get; } = [];

    /// <param name="registration">Sees the devices as the earlier ones of this transaction left them.</param>
    /// <param name="index">Of its alert token.</param>
    public DeviceResult Register(Registration registration, byte[] index)
    {
        var own = devices.Where(d => d.Account == registration.Account).ToList();
        var sameToken = own.Find(HasToken);
        var sameId = registration.Id is null ? sameToken : own.Find(d => d.Id == registration.Id);
        if (!registration.Expected.Holds(sameId?.RevisionName))
        {
            return new DeviceResult.Changed();
        }

        // a new id for a known token: that device gets the id and keeps what is pending for it
        var device = sameId ?? sameToken;
        var evicted =
            device is null && own.Count >= DeviceRegistry.DevicesPerAccountMax ? own.Find(d => d.Status == DeviceStatus.Invalid) : null;
        if (device is null && own.Count >= DeviceRegistry.DevicesPerAccountMax && evicted is null)
        {
            return new DeviceResult.LimitReached();
        }

        var warnings = new List<string>();
        if (sameToken is not null && sameToken != device)
        {
            // one phone, two installation ids: the one that the request names stays
            Remove(sameToken, DeviceRemoval.Moved, registration.Actor);
            warnings.Add($"Device {sameToken.Id} of this account had the same token: it is removed.");
        }

        if (registration.Exclusive)
        {
            var others = devices.Where(d => d.Account != registration.Account && HasToken(d)).ToList();
            others.ForEach(elsewhere => Remove(elsewhere, DeviceRemoval.Moved, registration.Actor));
            if (others.Count > 0)
            {
                // not whose: the token is known to this caller, the other account is not
                warnings.Add(
                    "This token was registered for another account, which is not alerted on it any more. An app with several accounts "
                        + "registers with \"exclusive\": false."
                );
            }
        }

        if (evicted is not null)
        {
            Remove(evicted, DeviceRemoval.Unregistered, registration.Actor);
        }

        if (device is null)
        {
            device = NewDevice(registration, index);
            db.Add(device);
        }

        Replace(device, registration, index);
        if (db.Entry(device) is { State: not EntityState.Added } entry)
        {
            // written even where they look unchanged: a refusal of the old token may be committed at this moment
            entry.Property(d => d.Status).IsModified = true;
            entry.Property(d => d.StatusReason).IsModified = true;
        }

        Touched.Add(device.Key);
        Records.Add(audit.Record(db, now, registration.Actor, AuditActions.DeviceRegistered, device.Account, device.Id));
        var sharing = device.Resource is null ? null : own.Find(d => d != device && d.Resource == device.Resource && devices.Contains(d));
        if (sharing is not null)
        {
            warnings.Add(
                $"Device {sharing.Id} of this account has the same resource: both are alerted, unless that session is in front. "
                    + "Remove the one that is gone."
            );
        }

        return new DeviceResult.Done(device, sameId is null) { Warnings = warnings };

        bool HasToken(Device device) => device.TokenIndex.AsSpan().SequenceEqual(index);
    }

    /// <summary>Writes everything; to be called once, before the commit.</summary>
    public async Task SaveAsync(OutboxQueue outbox, CancellationToken cancellationToken)
    {
        // removals first: another device may get the id or token of a removed one
        foreach (var removal in removed.GroupBy(r => r.Removal))
        {
            var keys = removal.Select(r => r.Key).ToList();
            await outbox.CancelAsync(db, row => keys.Contains(row.DeviceKey), removal.Key.Reason, cancellationToken);
            await db.Set<Device>().Where(d => keys.Contains(d.Key)).ExecuteDeleteAsync(cancellationToken);
        }

        await db.SaveChangesAsync(cancellationToken);
    }

    private void Remove(Device device, DeviceRemoval removal, Actor actor)
    {
        devices.Remove(device);
        db.Entry(device).State = EntityState.Detached;
        removed.Add((device.Key, removal));
        Touched.Add(device.Key);
        Records.Add(audit.Record(db, now, actor, removal.Action, device.Account, device.Id));
    }

    private Device NewDevice(Registration registration, byte[] index)
    {
        var key = sequence.Next(now);
        return new Device
        {
            Key = key,
            Id = key.ToString("D"),
            Account = registration.Account,
            App = registration.Address.App,
            Platform = registration.Platform,
            TokenIndex = index,
            Tokens = DeviceTokens.None,
            Lane = registration.Lane,
            Node = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16)),
            CreatedAt = now,
            RegisteredAt = now,
            UpdatedAt = now,
        };
    }

    /// <summary>A registration replaces all its members: what is left out goes back to its default.</summary>
    private void Replace(Device device, Registration registration, byte[] index)
    {
        device.Id = registration.Id ?? device.Id;
        device.App = registration.Address.App;
        device.Platform = registration.Platform;
        device.TokenIndex = index;
        device.Tokens = DeviceTokens.Seal(registration.Address.Tokens, device.Key, masterKey);
        device.Environment = registration.Address.Environment;
        device.Lane = registration.Lane;
        device.Resource = registration.Resource;
        device.Locale = registration.Locale;
        device.TimeZone = registration.TimeZone;
        device.Dialect = registration.Dialect;
        device.Status = DeviceStatus.Active;
        device.StatusReason = null;
        device.RegisteredAt = now;
        device.UpdatedAt = now;
        device.Revision++;
    }
}
