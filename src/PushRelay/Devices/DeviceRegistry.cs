using System.Buffers.Text;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Audit;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>Knows which devices an account has, and the one place that reads or writes their tokens.</summary>
internal sealed class DeviceRegistry(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    MasterKey masterKey,
    DatabaseClock clock,
    TimeProvider timers,
    AuditTrail audit,
    WriteGate turns,
    RegistrationWriter writer,
    RecentDevices recent
)
{
    /// <summary>More are not registered, but take the place of invalid ones.</summary>
    public const int DevicesPerAccountMax = 20;

    // "last accepted" is right to the minute

    /// <summary>The same account, app and token again is the same device.</summary>
    /// <exception cref="OperationCanceledException">Stopped while it waited; once it is being written it is written.</exception>
    public Task<RegistrationResult> RegisterAsync(Registration registration, CancellationToken cancellationToken) =>
        writer.RegisterAsync(registration, cancellationToken);

    /// <summary>The XEP-0357 publish option <c>secret</c> of a node; known to whoever holds the master key, stored nowhere.</summary>
    public string NodeSecret(string node) => Base64Url.EncodeToString(masterKey.Mac("node secret", node).AsSpan(0, 18));

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
    public async Task<IReadOnlyList<Device>> ListAsync(string? account, Guid? before, int limit, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var devices = db.Set<Device>().AsNoTracking();
        devices = account is null ? devices : devices.Where(d => d.Account == account);
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

    /// <summary>As they are, or were at most two seconds ago in another process's eyes; what is not there is gone.</summary>
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
    /// <returns>False: there is none (any more).</returns>
    public async Task<bool> RemoveAsync(Guid key, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        using var turn = await turns.TakeAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var records = await RemoveAsync(db, db.Set<Device>().Where(d => d.Key == key), Reasons.DeviceRemoved, actor, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        recent.Forget([key]);
        Tell(records);
        return records.Count > 0;
    }

    /// <summary>
    /// The account is gone: its devices go with it, in the caller's transaction, and its tokens, which would be another's who takes the
    /// name.
    /// </summary>
    public async Task RemoveAccountAsync(RelayDb db, string account, CancellationToken cancellationToken)
    {
        Tell(
            await RemoveAsync(db, db.Set<Device>().Where(d => d.Account == account), Reasons.AccountRemoved, Actor.Relay, cancellationToken)
        );
        var tokens = await db.Set<AccountToken>().Where(t => t.Account == account).Select(t => t.Id).ToListAsync(cancellationToken);
        if (tokens.Count > 0)
        {
            await db.Set<AccountToken>().Where(t => tokens.Contains(t.Id)).ExecuteDeleteAsync(cancellationToken);
            var now = await clock.NowAsync(db, cancellationToken);
            var records = tokens.ConvertAll(id => audit.Note(db, now, Actor.Relay, "token.revoke", account, id.ToString("D")));
            await db.SaveChangesAsync(cancellationToken);
            Tell(records);
        }
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
        using var turn = await turns.TakeAsync(cancellationToken);
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
            record = audit.Note(db, await clock.NowAsync(db, cancellationToken), Actor.Relay, "device.invalid", sent.Account, sent.Id);
            await db.SaveChangesAsync(cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        recent.Forget([sent.Key]);
        if (record is not null)
        {
            audit.Tell(record);
        }

        return marked > 0;
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

    /// <summary>
    /// Fills in when each was last reached, as the ledger has it; what the ledger forgets was noted before (<see
    /// cref="NoteReachedAsync"/>).
    /// No delivery pays for it.
    /// </summary>
    public async Task RecallReachedAsync(IReadOnlyCollection<Device> devices, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        foreach (var some in devices.Chunk(RelayDb.ParametersMax))
        {
            var keys = some.Select(d => d.Key).ToList();
            var newest = await db.Set<Device>()
                .Where(d => keys.Contains(d.Key))
                .Select(d => new
                {
                    d.Key,
                    At = db.Set<Delivery>()
                        .Where(r =>
                            r.Account == d.Account
                            && r.DeviceKey == d.Key
                            && r.State >= DeliveryState.Accepted
                            && r.State <= DeliveryState.Opened
                        )
                        .OrderByDescending(r => r.Id)
                        .Select(r => r.SettledAt)
                        .FirstOrDefault(),
                })
                .ToDictionaryAsync(d => d.Key, d => d.At, cancellationToken);
            foreach (var device in some)
            {
                device.LastAcceptedAt = newest.GetValueOrDefault(device.Key) ?? device.LastAcceptedAt;
            }
        }
    }

    /// <summary>
    /// Keeps on the devices when they were last reached, of the oldest <paramref name="max"/> deliveries that were settled before; those
    /// are
    /// about to be deleted in the same transaction.
    /// </summary>
    public static Task NoteReachedAsync(RelayDb db, DateTimeOffset before, int max, CancellationToken cancellationToken) =>
        db.Database.ExecuteSqlRawAsync(
            """
            UPDATE devices SET last_accepted_at = o.at FROM (
                SELECT device_key, max(settled_at) AS at FROM (
                    SELECT device_key, settled_at, state FROM deliveries WHERE settled_at IS NOT NULL AND settled_at < {0} ORDER BY id LIMIT {1}) AS s
                WHERE state BETWEEN 2 AND 4 GROUP BY device_key) AS o
            WHERE devices.key = o.device_key AND (devices.last_accepted_at IS NULL OR devices.last_accepted_at < o.at)
            """,
            [DatabaseClock.Parameter(db, before), max],
            cancellationToken
        );

    /// <summary>Stores what <paramref name="change"/> makes of a device's preferences; null changes nothing.</summary>
    /// <param name="account">Whose.</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="actor">Who changes them.</param>
    /// <param name="change">Asked again where another change came between.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>The device as it is now; null where there is none (any more), or where nothing was to be changed.</returns>
    public async Task<Device?> ChangePreferencesAsync(
        string account,
        string id,
        Actor actor,
        Func<Device, DevicePreferences?> change,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        while (await db.Set<Device>().SingleOrDefaultAsync(d => d.Account == account && d.Id == id, cancellationToken) is { } device)
        {
            if (change(device) is not { } preferences)
            {
                return null;
            }

            device.Preferences = preferences.IsEmpty ? null : preferences;
            device.UpdatedAt = await clock.NowAsync(db, cancellationToken);
            device.Revision++;
            var record = audit.Note(db, device.UpdatedAt, actor, "device.preferences", device.Account, device.Id);
            try
            {
                await db.SaveChangesAsync(cancellationToken);
                recent.Forget([device.Key]);
                audit.Tell(record);
                return device;
            }
            catch (DbUpdateConcurrencyException)
            {
                db.ChangeTracker.Clear();
            }
        }

        return null;
    }

    private void Tell(IEnumerable<AuditRecord> records)
    {
        foreach (var record in records)
        {
            audit.Tell(record);
        }
    }

    /// <summary>Seals and indexes a page of devices with the first master key, beside running relays.</summary>
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

        var index = DeviceTokens.IndexesOf(device.App, device.Address(masterKey).Tokens[Channels.Alert], masterKey)[0];
        // only what it was read as: a registration in between has written its own
        return await db.Set<Device>()
                .Where(d => d.Key == device.Key && d.Tokens == device.Tokens)
                .ExecuteUpdateAsync(set => set.SetProperty(d => d.Tokens, tokens).SetProperty(d => d.TokenIndex, index), cancellationToken)
            > 0;
    }

    /// <summary>As the audit calls a removal for that reason.</summary>
    public static string ActionOf(string reason) => reason.Replace('_', '.');

    private async Task<IReadOnlyList<AuditRecord>> RemoveAsync(
        RelayDb db,
        IQueryable<Device> which,
        string reason,
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

        await outbox.CancelAsync(db, row => keys.Contains(row.DeviceKey), reason, cancellationToken);
        if (await db.Set<Device>().Where(d => keys.Contains(d.Key)).ExecuteDeleteAsync(cancellationToken) == 0)
        {
            return [];
        }

        var now = await clock.NowAsync(db, cancellationToken);
        var records = gone.ConvertAll(d => audit.Note(db, now, actor, ActionOf(reason), d.Account, d.Id));
        await db.SaveChangesAsync(cancellationToken);
        return records;
    }
}
