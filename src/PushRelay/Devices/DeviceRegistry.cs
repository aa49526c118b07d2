using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Audit;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>Knows which devices an account has, and what push networks and servers say of them. What people ask for comes through <see
/// cref="Registrations"/>.</summary>
internal sealed class DeviceRegistry(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    MasterKey masterKey,
    DatabaseClock clock,
    TimeProvider timers,
    AuditTrail audit,
    WriteGate gate,
    RecentDevices recent
)
{
    private const string NotRenewed = "not_renewed";

    /// <summary>Valid ones; one more takes the place of an invalid one, or is refused.</summary>
    public const int DevicesPerAccountMax = 20;

    /// <param name="account">Null: of any account (operators).</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="cancellationToken">Stops the query.</param>
    /// <returns>At most two: an id is unique within its account only.</returns>
    public async Task<IReadOnlyList<Device>> FindAsync(string? account, string id, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await db.Set<Device>()
            .AsNoTracking()
            .Where(d => d.Id == id && (account == null || d.Account == account))
            .Take(2)
            .ToListAsync(cancellationToken);
    }

    /// <summary>Newest first; from below <paramref name="before"/> on.</summary>
    public Task<IReadOnlyList<Device>> ListAsync(string? account, Guid? before, int limit, CancellationToken cancellationToken) =>
        ListAsync(new DeviceFilter { Account = account }, before, limit, cancellationToken);

    /// <summary>Newest first; from below <paramref name="before"/> on.</summary>
    public async Task<IReadOnlyList<Device>> ListAsync(DeviceFilter filter, Guid? before, int limit, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var devices = db.Set<Device>().AsNoTracking();
        devices = filter.Account is { } account ? devices.Where(d => d.Account == account) : devices;
        devices = filter.App is { } app ? devices.Where(d => d.App == app) : devices;
        devices = filter.Platform is { } platform ? devices.Where(d => d.Platform == platform) : devices;
        devices = filter.Status is { } status ? devices.Where(d => d.Status == status) : devices;
        devices = before is { } key ? devices.Where(d => d.Key.CompareTo(key) < 0) : devices;
        return await devices.OrderByDescending(d => d.Key).Take(limit).ToListAsync(cancellationToken);
    }

    /// <summary>The devices of several accounts, in the caller's transaction.</summary>
    public async Task<ILookup<string, Device>> OfAccountsAsync(
        RelayDb db,
        IReadOnlyCollection<string> accounts,
        CancellationToken cancellationToken
    )
    {
        var readAt = timers.GetTimestamp();
        var devices = new List<Device>();
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            devices.AddRange(
                await db.Set<Device>()
                    .AsNoTracking()
                    .Where(d => some.Contains(d.Account))
                    .OrderBy(d => d.Key)
                    .ToListAsync(cancellationToken)
            );
        }

        recent.Keep(devices, readAt);
        return devices.ToLookup(d => d.Account, StringComparer.Ordinal);
    }

    /// <summary>By alert token; null: there is none.</summary>
    public async Task<Device?> FindTokenAsync(string account, string app, string token, CancellationToken cancellationToken)
    {
        var index = DeviceTokens.IndexOf(app, token, masterKey);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await db.Set<Device>()
            .AsNoTracking()
            .SingleOrDefaultAsync(d => d.Account == account && d.TokenIndex == index, cancellationToken);
    }

    /// <summary>By XEP-0357 node; without those that are not there.</summary>
    public async Task<IReadOnlyDictionary<string, Device>> OfNodesAsync(
        IReadOnlyCollection<string> nodes,
        CancellationToken cancellationToken
    )
    {
        var found = new Dictionary<string, Device>(nodes.Count, StringComparer.Ordinal);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        foreach (var some in nodes.Chunk(RelayDb.ParametersMax))
        {
            var devices = db.Set<Device>().AsNoTracking().Where(d => some.Contains(d.Node));
            await foreach (var device in devices.AsAsyncEnumerable().WithCancellation(cancellationToken))
            {
                found[device.Node] = device;
            }
        }

        return found;
    }

    /// <summary>By key; without those that are gone. Changes of other processes may show two seconds late.</summary>
    public async Task<IReadOnlyDictionary<Guid, Device>> GetAsync(IReadOnlyCollection<Guid> keys, CancellationToken cancellationToken)
    {
        var found = new Dictionary<Guid, Device>(keys.Count);
        var missing = new List<Guid>();
        foreach (var key in keys)
        {
            if (recent.Find(key) is { } device)
            {
                found[key] = device;
            }
            else
            {
                missing.Add(key);
            }
        }

        if (missing.Count > 0)
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            foreach (var some in missing.Chunk(RelayDb.ParametersMax))
            {
                await foreach (
                    var read in db.Set<Device>()
                        .AsNoTracking()
                        .Where(d => some.Contains(d.Key))
                        .AsAsyncEnumerable()
                        .WithCancellation(cancellationToken)
                )
                {
                    found[read.Key] = read;
                }
            }
        }

        return found;
    }

    /// <summary>Removes a device and cancels what is pending for it.</summary>
    /// <param name="read">The device as it was read.</param>
    /// <param name="actor">Who removes it.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    /// <returns>False: it has changed since, or is gone.</returns>
    public async Task<bool> RemoveAsync(Device read, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var held = await gate.EnterAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var which = db.Set<Device>().Where(d => d.Key == read.Key && d.Revision == read.Revision);
        var records = await RemoveAsync(db, which, DeviceRemoval.Unregistered, actor, cancellationToken);
        if (records.Count == 0)
        {
            return false;
        }

        await transaction.CommitAsync(cancellationToken);
        recent.Forget([read.Key]);
        records.ForEach(audit.Log);
        return true;
    }

    /// <summary>Removes every device of an account that is gone, in the caller's transaction.</summary>
    public async Task RemoveAccountAsync(RelayDb db, string account, CancellationToken cancellationToken)
    {
        var which = db.Set<Device>().Where(d => d.Account == account);
        var records = await RemoveAsync(db, which, DeviceRemoval.WithItsAccount, Actor.Relay, cancellationToken);
        records.ForEach(audit.Log);
    }

    /// <summary>
    /// Marks a device whose token the push network refused, and cancels what is pending for it; unless the device was registered
    /// again after <paramref name="sent"/> was read or after the token died.
    /// </summary>
    /// <param name="sent">The device as it was when the token was used.</param>
    /// <param name="reason">The network's own word.</param>
    /// <param name="since">When the token died, where the network says so.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>False: the registration is newer than the refusal.</returns>
    public async Task<bool> InvalidateAsync(Device sent, string reason, DateTimeOffset? since, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var held = await gate.EnterAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        AuditRecord? record = null;
        var marked = await db.Set<Device>()
            .Where(d => d.Key == sent.Key && d.TokenIndex == sent.TokenIndex && d.RegisteredAt == sent.RegisteredAt)
            .Where(d => since == null || d.RegisteredAt < since)
            .ExecuteUpdateAsync(
                set =>
                    set.SetProperty(d => d.Status, DeviceStatus.Invalid)
                        .SetProperty(d => d.StatusReason, reason)
                        .SetProperty(d => d.Revision, d => d.Revision + 1),
                cancellationToken
            );
        if (marked > 0)
        {
            await outbox.CancelAsync(db, row => row.DeviceKey == sent.Key, Reasons.DeviceInvalid, cancellationToken);
            record = audit.Record(
                db,
                await clock.NowAsync(db, cancellationToken),
                Actor.Relay,
                AuditActions.DeviceInvalidated,
                sent.Account,
                sent.Id
            );
            await db.SaveChangesAsync(cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        recent.Forget([sent.Key]);
        if (record is not null)
        {
            audit.Log(record);
        }

        return marked > 0;
    }

    /// <summary>Devices that did not register for so long are invalid, at most so many at a time.</summary>
    /// <returns>How many.</returns>
    public async Task<int> InvalidateOldAsync(TimeSpan age, int most, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var before = await clock.NowAsync(db, cancellationToken) - age;
        var old = await db.Set<Device>()
            .AsNoTracking()
            .Where(d => d.Status == DeviceStatus.Active && d.RegisteredAt < before)
            .OrderBy(d => d.RegisteredAt)
            .Take(most)
            .ToListAsync(cancellationToken);
        foreach (var device in old)
        {
            await InvalidateAsync(device, NotRenewed, before, cancellationToken);
        }

        return old.Count;
    }

    /// <summary>The push network refused the token of one channel, which the device has no more; its other tokens stay.</summary>
    /// <param name="sent">The device as it was when the token was used; one that has changed since keeps what it has.</param>
    /// <param name="channel">Of <see cref="Channels"/>, but not <see cref="Channels.Alert"/>.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    public async Task ForgetTokenAsync(Device sent, string channel, CancellationToken cancellationToken)
    {
        if (sent.Tokens.Without(channel) is not { } others)
        {
            return;
        }

        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await db.Set<Device>()
            .Where(d => d.Key == sent.Key && d.RegisteredAt == sent.RegisteredAt)
            .ExecuteUpdateAsync(
                set => set.SetProperty(d => d.Tokens, others).SetProperty(d => d.Revision, d => d.Revision + 1),
                cancellationToken
            );
        recent.Forget([sent.Key]);
    }

    /// <summary>The account's devices get nothing while it is disabled; in the caller's transaction.</summary>
    public async Task DisableAccountAsync(RelayDb db, string account, bool isDisabled, CancellationToken cancellationToken)
    {
        await db.Set<Device>()
            .Where(d => d.Account == account && d.AccountDisabled != isDisabled)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.AccountDisabled, isDisabled), cancellationToken);
        recent.Forget(await db.Set<Device>().Where(d => d.Account == account).Select(d => d.Key).ToListAsync(cancellationToken));
    }

    /// <summary>The push network has accepted an alert for this device before, as far as its newest deliveries or its record say.</summary>
    public async Task<bool> WasReachedAsync(Device device, CancellationToken cancellationToken)
    {
        if (device.LastAcceptedAt is not null)
        {
            return true;
        }

        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await OutboxQueue.WasReachedAsync(db, device.Account, device.Key, cancellationToken);
    }

    /// <summary>Keeps when each of these was last accepted, where that is news: the deliveries that say so are about to be deleted in the
    /// same transaction.</summary>
    public static Task RecordLastAcceptedAsync(RelayDb db, IQueryable<LastAccepted> accepted, CancellationToken cancellationToken) =>
        db.Set<Device>()
            .Join(accepted, d => d.Key, a => a.DeviceKey, (device, last) => new { device, last.At })
            .Where(d => d.device.LastAcceptedAt == null || d.device.LastAcceptedAt < d.At)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.device.LastAcceptedAt, d => d.At), cancellationToken);

    /// <summary>Seals a page of devices with the first master key, while relays run.</summary>
    public async Task<ResealedPage> ResealAsync(Guid after, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var devices = await db.Set<Device>()
            .AsNoTracking()
            .Where(d => d.Key.CompareTo(after) > 0)
            .OrderBy(d => d.Key)
            .Take(ResealedPage.RowsMax)
            .ToListAsync(cancellationToken);
        var (resealed, unreadable) = (0, 0);
        foreach (var device in devices)
        {
            try
            {
                resealed += await ResealAsync(db, device, cancellationToken) ? 1 : 0;
            }
            catch (CryptographicException)
            {
                unreadable++;
            }
        }

        return new ResealedPage(devices.LastOrDefault()?.Key, resealed, unreadable);
    }

    private async Task<bool> ResealAsync(RelayDb db, Device device, CancellationToken cancellationToken)
    {
        if (device.Tokens.Reseal(device.Key, masterKey) is not { } tokens)
        {
            return false;
        }

        // only what it was read as: a registration in between has written its own
        return await db.Set<Device>()
                .Where(d => d.Key == device.Key && d.Tokens == device.Tokens)
                .ExecuteUpdateAsync(set => set.SetProperty(d => d.Tokens, tokens), cancellationToken) > 0;
    }

    private async Task<List<AuditRecord>> RemoveAsync(
        RelayDb db,
        IQueryable<Device> which,
        DeviceRemoval removal,
        Actor actor,
        CancellationToken cancellationToken
    )
    {
        var gone = await which
            .AsNoTracking()
            .Select(d => new
            {
                d.Key,
                d.Account,
                d.Id,
            })
            .ToListAsync(cancellationToken);
        var keys = gone.ConvertAll(d => d.Key);
        if (keys.Count == 0)
        {
            return [];
        }

        await outbox.CancelAsync(db, row => keys.Contains(row.DeviceKey), removal.Reason, cancellationToken);
        if (await which.ExecuteDeleteAsync(cancellationToken) == 0)
        {
            return [];
        }

        var now = await clock.NowAsync(db, cancellationToken);
        var records = gone.ConvertAll(d => audit.Record(db, now, actor, removal.Action, d.Account, d.Id));
        await db.SaveChangesAsync(cancellationToken);
        return records;
    }
}
