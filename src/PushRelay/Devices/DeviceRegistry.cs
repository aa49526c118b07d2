using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>A valid registration: names normalised, token lower-case hex.</summary>
internal sealed record Registration
{
    public required string Account { get; init; }

    /// <summary>The app's own installation id; null: the relay makes one, or the token tells.</summary>
    public string? Id { get; init; }

    public required string App { get; init; }

    public required string Platform { get; init; }

    public required string Token { get; init; }

    public required DeviceEnvironment Environment { get; init; }

    public string? VoipToken { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    /// <summary>The token leaves every other account: a phone that changed hands.</summary>
    public bool Exclusive { get; init; } = true;

    public Actor Actor { get; init; } = Actor.Relay;

    /// <summary>Asked with the device as it is, or null, before anything is changed; false changes nothing.</summary>
    public Func<Device?, bool>? Precondition { get; init; }
}

/// <summary>What a registration came to.</summary>
internal abstract record RegistrationResult
{
    private RegistrationResult()
    {
    }

    /// <param name="Device">As it is now.</param>
    /// <param name="Created">It was not there before.</param>
    public sealed record Done(Device Device, bool Created) : RegistrationResult;

    /// <summary>The account has as many valid devices as it may have.</summary>
    public sealed record LimitReached : RegistrationResult;

    /// <summary><see cref="Registration.Precondition"/> said no.</summary>
    public sealed record PreconditionFailed : RegistrationResult;
}

/// <summary>Knows which devices an account has, and the one place that reads or writes their tokens.</summary>
internal sealed class DeviceRegistry(
    IDbContextFactory<RelayDb> databases, OutboxQueue outbox, MasterKey masterKey, DatabaseClock clock, Sequence sequence,
    TimeProvider timers, AuditTrail audit)
{
    /// <summary>More are not registered, but take the place of invalid ones.</summary>
    public const int DevicesPerAccountMax = 20;

    private const int TriesMax = 5;
    private const int RecentMax = 10_000;

    // "last accepted" is right to the minute

    // as long as other processes' changes may take to be seen
    private static readonly TimeSpan RecentAge = TimeSpan.FromSeconds(2);

    // what the ingest has just read, the dispatcher does not read again
    private ConcurrentDictionary<Guid, (Device Device, long ReadAt)> recent = [];

    // the generation before, so that a full one does not take with it what was read a moment ago
    private ConcurrentDictionary<Guid, (Device Device, long ReadAt)> older = [];
    private int counted;

    /// <summary>The same account, app and token again is the same device.</summary>
    public async Task<RegistrationResult> RegisterAsync(Registration registration, CancellationToken cancellationToken)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                return await TryRegisterAsync(registration, cancellationToken);
            }
            catch (DbUpdateException) when (tries < TriesMax)
            {
                // another registration of the same account or token came between: look again
            }
        }
    }

    /// <summary>The XEP-0357 publish option <c>secret</c> of a node; known to whoever holds the master key, stored nowhere.</summary>
    public string NodeSecret(string node) => Base64Url.EncodeToString(masterKey.Mac("node secret", node).AsSpan(0, 18));

    /// <param name="account">Null: of any account (operators).</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="cancellationToken">Stops the query.</param>
    /// <returns>At most two: an id is unique within its account only.</returns>
    public async Task<IReadOnlyList<Device>> FindAsync(string? account, string id, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await db.Set<Device>().AsNoTracking().Where(d => d.Id == id && (account == null || d.Account == account)).Take(2).ToListAsync(cancellationToken);
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
    public async Task<ILookup<string, Device>> OfAccountsAsync(RelayDb db, IReadOnlyCollection<string> accounts, CancellationToken cancellationToken)
    {
        var readAt = timers.GetTimestamp();
        var devices = new List<Device>();
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            devices.AddRange(await db.Set<Device>().AsNoTracking().Where(d => some.Contains(d.Account)).OrderBy(d => d.Key).ToListAsync(cancellationToken));
        }

        var generation = recent;
        foreach (var device in devices)
        {
            generation[device.Key] = (device, readAt);
        }

        if ((counted += devices.Count) > RecentMax)
        {
            counted = 0;
            (older, recent) = (generation, []);
        }

        return devices.ToLookup(d => d.Account, StringComparer.Ordinal);
    }

    /// <summary>As they are, or were at most two seconds ago in another process's eyes; what is not there is gone.</summary>
    public async Task<IReadOnlyDictionary<Guid, Device>> GetAsync(IReadOnlyCollection<Guid> keys, CancellationToken cancellationToken)
    {
        var found = new Dictionary<Guid, Device>(keys.Count);
        var missing = new List<Guid>();
        foreach (var key in keys)
        {
            if ((recent.TryGetValue(key, out var known) || older.TryGetValue(key, out known)) && timers.GetElapsedTime(known.ReadAt) < RecentAge)
            {
                found[key] = known.Device;
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
                await foreach (var device in db.Set<Device>().AsNoTracking().Where(d => some.Contains(d.Key)).AsAsyncEnumerable().WithCancellation(cancellationToken))
                {
                    found[device.Key] = device;
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
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var records = await RemoveAsync(db, db.Set<Device>().Where(d => d.Key == key), Reasons.DeviceRemoved, actor, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        ForgetAll();
        Tell(records);
        return records.Count > 0;
    }

    /// <summary>The account is gone: its devices go with it, in the caller's transaction.</summary>
    public async Task RemoveAccountAsync(RelayDb db, string account, CancellationToken cancellationToken) =>
        Tell(await RemoveAsync(db, db.Set<Device>().Where(d => d.Account == account), Reasons.AccountRemoved, Actor.Relay, cancellationToken));

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
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        AuditRecord? record = null;
        var marked = await db.Set<Device>()
            .Where(d => d.Key == sent.Key && d.TokenIndex == sent.TokenIndex && d.RegisteredAt == sent.RegisteredAt)
            .Where(d => since == null || d.RegisteredAt < since)
            .ExecuteUpdateAsync(
                set => set.SetProperty(d => d.Status, DeviceStatus.Invalid).SetProperty(d => d.StatusReason, reason).SetProperty(d => d.Revision, d => d.Revision + 1),
                cancellationToken);
        if (marked > 0)
        {
            await outbox.CancelAsync(db, row => row.DeviceKey == sent.Key, Reasons.DeviceInvalid, cancellationToken);
            record = audit.Note(db, await clock.NowAsync(db, cancellationToken), Actor.Relay, "device.invalid", sent.Account, sent.Id);
            await db.SaveChangesAsync(cancellationToken);
        }

        await transaction.CommitAsync(cancellationToken);
        Forget(sent.Key);
        if (record is not null)
        {
            audit.Tell(record);
        }

        return marked > 0;
    }

    /// <summary>The push network refused the device's VoIP token: calls come as alerts from now on. The alert token is another.</summary>
    public async Task ForgetVoipTokenAsync(Device sent, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await db.Set<Device>().Where(d => d.Key == sent.Key && d.RegisteredAt == sent.RegisteredAt)
            .ExecuteUpdateAsync(set => set.SetProperty(d => d.VoipToken, (byte[]?)null).SetProperty(d => d.Revision, d => d.Revision + 1), cancellationToken);
        Forget(sent.Key);
    }

    private void Forget(Guid key)
    {
        recent.TryRemove(key, out _);
        older.TryRemove(key, out _);
    }

    private void ForgetAll()
    {
        recent.Clear();
        older.Clear();
    }

    /// <summary>First and last four characters, all that is ever shown.</summary>
    public string? VoipTokenHint(Device device) => device.OpenVoipToken(masterKey) is { } token ? Hint(token) : null;

    /// <summary>
    /// Fills in when each was last reached, as the ledger has it; what the ledger forgets was noted before (<see cref="NoteReachedAsync"/>).
    /// No delivery pays for it.
    /// </summary>
    public async Task RecallReachedAsync(IReadOnlyCollection<Device> devices, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        foreach (var some in devices.Chunk(RelayDb.ParametersMax))
        {
            var keys = some.Select(d => d.Key).ToList();
            var newest = await db.Set<Device>().Where(d => keys.Contains(d.Key))
                .Select(d => new
                {
                    d.Key,
                    At = db.Set<Delivery>()
                        .Where(r => r.Account == d.Account && r.DeviceKey == d.Key && r.State >= DeliveryState.Accepted && r.State <= DeliveryState.Opened)
                        .OrderByDescending(r => r.Id).Select(r => r.SettledAt).FirstOrDefault(),
                })
                .ToDictionaryAsync(d => d.Key, d => d.At, cancellationToken);
            foreach (var device in some)
            {
                device.LastAcceptedAt = newest.GetValueOrDefault(device.Key) ?? device.LastAcceptedAt;
            }
        }
    }

    /// <summary>
    /// Keeps on the devices when they were last reached, of the oldest <paramref name="max"/> deliveries that were settled before; those are
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
            [DatabaseClock.Parameter(db, before), max], cancellationToken);

    /// <summary>Stores what <paramref name="change"/> makes of a device's preferences; null changes nothing.</summary>
    /// <param name="account">Whose.</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="actor">Who changes them.</param>
    /// <param name="change">Asked again where another change came between.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>The device as it is now; null where there is none (any more), or where nothing was to be changed.</returns>
    public async Task<Device?> ChangePreferencesAsync(
        string account, string id, Actor actor, Func<Device, DevicePreferences?> change, CancellationToken cancellationToken)
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
                Forget(device.Key);
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

    private async Task<RegistrationResult> TryRegisterAsync(Registration registration, CancellationToken cancellationToken)
    {
        var index = masterKey.Mac("token", registration.App, registration.Token);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (!db.IsSqlite)
        {
            // two accounts that claim one token at once take turns; SQLite has one writer anyway
            await db.Database.ExecuteSqlAsync($"SELECT pg_advisory_xact_lock({BitConverter.ToInt64(index)})", cancellationToken);
            // and so do the registrations of one account, which are counted
            var account = BitConverter.ToInt64(masterKey.Mac("account lock", registration.Account));
            await db.Database.ExecuteSqlAsync($"SELECT pg_advisory_xact_lock({account})", cancellationToken);
        }

        var now = await clock.NowAsync(db, cancellationToken);
        var devices = await db.Set<Device>().Where(d => d.Account == registration.Account).OrderBy(d => d.Key).ToListAsync(cancellationToken);
        var records = new List<AuditRecord>();
        var sameToken = devices.Find(d => d.TokenIndex.AsSpan().SequenceEqual(index));
        var sameId = registration.Id is null ? sameToken : devices.Find(d => d.Id == registration.Id);
        if (registration.Precondition?.Invoke(sameId) == false)
        {
            return new RegistrationResult.PreconditionFailed();
        }

        if (sameId is not null && sameToken is not null && sameId != sameToken)
        {
            // one phone, two installation ids: the id that was named stays
            records.AddRange(await RemoveAsync(db, db.Set<Device>().Where(d => d.Key == sameToken.Key), Reasons.DeviceMoved, registration.Actor, cancellationToken));
            db.Entry(sameToken).State = EntityState.Detached;
            sameToken = null;
        }

        if (registration.Exclusive)
        {
            records.AddRange(await RemoveAsync(
                db, db.Set<Device>().Where(d => d.TokenIndex == index && d.Account != registration.Account), Reasons.DeviceMoved, registration.Actor, cancellationToken));
        }

        // a new id for a known token takes that device over, with what is pending for it
        var device = sameId ?? sameToken;
        var created = sameId is null;
        if (device is null)
        {
            if (devices.Count >= DevicesPerAccountMax)
            {
                var oldestInvalid = devices.Find(d => d.Status == DeviceStatus.Invalid);
                if (oldestInvalid is null)
                {
                    return new RegistrationResult.LimitReached();
                }

                records.AddRange(await RemoveAsync(
                    db, db.Set<Device>().Where(d => d.Key == oldestInvalid.Key), Reasons.DeviceRemoved, registration.Actor, cancellationToken));
                db.Entry(oldestInvalid).State = EntityState.Detached;
            }

            device = NewDevice(registration, index, now);
            db.Add(device);
        }

        Replace(device, registration, index, now);
        if (db.Entry(device) is { State: not EntityState.Added } entry)
        {
            // written even where they look unchanged: a refusal of the old token may be committed in this very moment
            entry.Property(d => d.Status).IsModified = true;
            entry.Property(d => d.StatusReason).IsModified = true;
        }

        records.Add(audit.Note(db, now, registration.Actor, "device.registered", device.Account, device.Id));
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        // the token may have left another account's device
        ForgetAll();
        Tell(records);
        return new RegistrationResult.Done(device, created);
    }

    private Device NewDevice(Registration registration, byte[] index, DateTimeOffset now)
    {
        var key = sequence.Next();
        return new Device
        {
            Key = key,
            Id = key.ToString("D"),
            Account = registration.Account,
            App = registration.App,
            Platform = registration.Platform,
            TokenIndex = index,
            Token = [],
            TokenHint = "",
            Environment = registration.Environment,
            Node = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16)),
            CreatedAt = now,
            RegisteredAt = now,
            UpdatedAt = now,
        };
    }

    /// <summary>A registration replaces all its members: what is left out goes back to its default.</summary>
    private void Replace(Device device, Registration registration, byte[] index, DateTimeOffset now)
    {
        device.Id = registration.Id ?? device.Id;
        device.App = registration.App;
        device.Platform = registration.Platform;
        device.TokenIndex = index;
        device.Token = masterKey.Seal(registration.Token, Device.TableName, device.Key, nameof(Device.Token));
        device.TokenHint = Hint(registration.Token);
        device.VoipToken = registration.VoipToken is null ? null : masterKey.Seal(registration.VoipToken, Device.TableName, device.Key, nameof(Device.VoipToken));
        device.Environment = registration.Environment;
        device.Resource = registration.Resource;
        device.Locale = registration.Locale;
        device.TimeZone = registration.TimeZone;
        device.Status = DeviceStatus.Active;
        device.StatusReason = null;
        device.RegisteredAt = now;
        device.UpdatedAt = now;
        device.Revision++;
    }

    private void Tell(IEnumerable<AuditRecord> records)
    {
        foreach (var record in records)
        {
            audit.Tell(record);
        }
    }

    private static string Hint(string token) => $"{token[..4]}…{token[^4..]}";

    private async Task<IReadOnlyList<AuditRecord>> RemoveAsync(
        RelayDb db, IQueryable<Device> which, string reason, Actor actor, CancellationToken cancellationToken)
    {
        var gone = await which.AsNoTracking().Select(d => new { d.Key, d.Account, d.Id }).ToListAsync(cancellationToken);
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
        var records = gone.ConvertAll(d => audit.Note(db, now, actor, reason.Replace('_', '.'), d.Account, d.Id));
        await db.SaveChangesAsync(cancellationToken);
        return records;
    }
}
