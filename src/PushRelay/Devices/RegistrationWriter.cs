using System.Security.Cryptography;
using System.Threading.Channels;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using PushRelay.Audit;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>
/// Writes registrations: all that came in while the last ones were written go into the next transaction together, and share its round trips
/// and its commit. None is answered before it is durable.
/// </summary>
internal sealed class RegistrationWriter(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    MasterKey masterKey,
    DatabaseClock clock,
    IdSequence sequence,
    AuditTrail audit,
    WriteGate turns,
    RecentDevices recent
)
{
    private const int TogetherMax = 100;
    private const int WaitingMax = 5000;
    private const int TriesMax = 5;

    // where several register at once: fewer and larger transactions, between which SQLite's one writer is the alerts'
    private static readonly TimeSpan Gather = TimeSpan.FromMilliseconds(25);

    private readonly Channel<Waiting> inbox = Channel.CreateBounded<Waiting>(WaitingMax);
    private readonly List<Waiting> putOff = [];
    private int writing;

    public async Task<RegistrationResult> RegisterAsync(Registration registration, CancellationToken cancellationToken)
    {
        var address = registration.Address;
        var indexes = DeviceTokens.IndexesOf(address.App, address.Tokens[Channels.Alert], masterKey);
        var waiting = new Waiting(registration, indexes, cancellationToken);
        await inbox.Writer.WriteAsync(waiting, cancellationToken);
        if (Interlocked.CompareExchange(ref writing, 1, 0) == 0)
        {
            _ = Task.Run(WriteAllAsync, CancellationToken.None);
        }

        return await waiting.Result.Task;
    }

    private async Task WriteAllAsync()
    {
        do
        {
            while (Take() is { Count: > 0 } batch)
            {
                await WriteAsync(batch);
                if (turns.OneWriter && batch.Count > 1 && inbox.Reader.Count + putOff.Count < TogetherMax)
                {
                    await Task.Delay(Gather, TimeProvider.System, CancellationToken.None);
                }
            }

            // a full fence: whoever came after the last look starts the next writer, or is seen here
            Interlocked.Exchange(ref writing, 0);
        } while (inbox.Reader.Count > 0 && Interlocked.CompareExchange(ref writing, 1, 0) == 0);
    }

    /// <summary>The next to be written together: no two of one account or one token, which see each other's result.</summary>
    private List<Waiting> Take()
    {
        var taken = new HashSet<string>(StringComparer.Ordinal);
        var batch = new List<Waiting>();
        var again = putOff.ToList();
        putOff.Clear();
        foreach (var next in again)
        {
            Put(next);
        }

        while (batch.Count < TogetherMax && putOff.Count < TogetherMax && inbox.Reader.TryRead(out var next))
        {
            Put(next);
        }

        return batch;

        void Put(Waiting next)
        {
            if (next.Stop.IsCancellationRequested)
            {
                next.Result.TrySetCanceled(next.Stop);
            }
            else if (batch.Count < TogetherMax && taken.Add(next.Registration.Account) & taken.Add(Convert.ToHexString(next.Indexes[0])))
            {
                batch.Add(next);
            }
            else
            {
                putOff.Add(next);
            }
        }
    }

    /// <summary>Together; and where that clashes with another node's, each by itself.</summary>
    private async Task WriteAsync(IReadOnlyList<Waiting> batch)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                var results = await TryWriteAsync(batch);
                for (var i = 0; i < batch.Count; i++)
                {
                    batch[i].Result.TrySetResult(results[i]);
                }

                return;
            }
            catch (Exception exception) when (IsClash(exception) && batch.Count > 1)
            {
                foreach (var waiting in batch)
                {
                    await WriteAsync([waiting]);
                }

                return;
            }
            catch (Exception exception) when (IsClash(exception) && tries < TriesMax)
            {
                // look again
            }
            catch (Exception exception)
            {
                foreach (var waiting in batch)
                {
                    waiting.Result.TrySetException(exception);
                }

                return;
            }
        }
    }

    private static bool IsClash(Exception exception) =>
        (exception is DbUpdateException && !DatabaseErrors.Is(exception))
        || exception.GetBaseException()
            is PostgresException { SqlState: PostgresErrorCodes.DeadlockDetected or PostgresErrorCodes.SerializationFailure };

    private async Task<IReadOnlyList<RegistrationResult>> TryWriteAsync(IReadOnlyList<Waiting> batch)
    {
        // not the callers' tokens: one that goes away must not take the others with it
        var none = CancellationToken.None;
        await using var db = await databases.CreateDbContextAsync(none);
        using var turn = await turns.TakeAsync(none);
        await using var transaction = await db.Database.BeginTransactionAsync(none);
        if (!db.IsSqlite)
        {
            // accounts that claim one token take turns, and so do the registrations of one account, which are counted; in one order for
            // all nodes, so that none waits for another that waits for it. And without statistics, of a table that grows fast, the planner
            // takes a hundred accounts for half of the table
            var locks = batch
                .SelectMany(w => w.Indexes.Append(SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(w.Registration.Account))))
                .Select(hash => BitConverter.ToInt64(hash))
                .Distinct()
                .Order()
                .ToArray();
            await db.Database.ExecuteSqlAsync(
                $"SET LOCAL enable_seqscan = off; SELECT pg_advisory_xact_lock(k) FROM unnest({locks}) AS k",
                none
            );
        }

        var now = await clock.NowAsync(db, none);
        var accounts = batch.Select(w => w.Registration.Account).ToList();
        var indexes = batch.SelectMany(w => w.Indexes).ToList();
        var devices = await db.Set<Device>()
            .Where(d => accounts.Contains(d.Account) || indexes.Contains(d.TokenIndex))
            .OrderBy(d => d.Key)
            .ToListAsync(none);
        var change = new Change(db, devices, now);
        var results = batch.Select(w => Register(w, change)).ToList();
        await RemoveAsync(change);
        await db.SaveChangesAsync(none);
        await transaction.CommitAsync(none);
        recent.Forget(change.Touched);
        change.Records.ForEach(audit.Tell);
        return results;
    }

    /// <summary>What a registration comes to, noted in <paramref name="change"/>.</summary>
    private RegistrationResult Register(Waiting waiting, Change change)
    {
        var (registration, index) = (waiting.Registration, waiting.Indexes[0]);
        var own = change.Devices.Where(d => d.Account == registration.Account).ToList();
        var sameToken = own.Find(waiting.Holds);
        var sameId = registration.Id is null ? sameToken : own.Find(d => d.Id == registration.Id);
        if (registration.Precondition?.Invoke(sameId) == false)
        {
            return new RegistrationResult.PreconditionFailed();
        }

        // a new id for a known token takes that device over, with what is pending for it
        var device = sameId ?? sameToken;
        var evicted =
            device is null && own.Count >= DeviceRegistry.DevicesPerAccountMax ? own.Find(d => d.Status == DeviceStatus.Invalid) : null;
        if (device is null && own.Count >= DeviceRegistry.DevicesPerAccountMax && evicted is null)
        {
            return new RegistrationResult.LimitReached();
        }

        if (sameToken is not null && sameToken != device)
        {
            // one phone, two installation ids: the id that was named stays
            Remove(sameToken, Reasons.DeviceMoved, registration.Actor, change);
        }

        if (registration.Exclusive)
        {
            foreach (var elsewhere in change.Devices.Where(d => d.Account != registration.Account && waiting.Holds(d)).ToList())
            {
                Remove(elsewhere, Reasons.DeviceMoved, registration.Actor, change);
            }
        }

        if (evicted is not null)
        {
            Remove(evicted, Reasons.DeviceRemoved, registration.Actor, change);
        }

        if (device is null)
        {
            device = NewDevice(registration, index, change.Now);
            change.Db.Add(device);
        }

        Replace(device, registration, index, change.Now);
        if (change.Db.Entry(device) is { State: not EntityState.Added } entry)
        {
            // written even where they look unchanged: a refusal of the old token may be committed in this very moment
            entry.Property(d => d.Status).IsModified = true;
            entry.Property(d => d.StatusReason).IsModified = true;
        }

        change.Touched.Add(device.Key);
        change.Records.Add(audit.Note(change.Db, change.Now, registration.Actor, "device.registered", device.Account, device.Id));
        return new RegistrationResult.Done(device, sameId is null);
    }

    private void Remove(Device device, string reason, Actor actor, Change change)
    {
        change.Devices.Remove(device);
        change.Db.Entry(device).State = EntityState.Detached;
        change.Removed.Add((device.Key, reason));
        change.Touched.Add(device.Key);
        change.Records.Add(audit.Note(change.Db, change.Now, actor, DeviceRegistry.ActionOf(reason), device.Account, device.Id));
    }

    /// <summary>Before the others are written: one may take a removed one's place.</summary>
    private async Task RemoveAsync(Change change)
    {
        foreach (var reason in change.Removed.GroupBy(r => r.Reason))
        {
            var keys = reason.Select(r => r.Key).ToList();
            await outbox.CancelAsync(change.Db, row => keys.Contains(row.DeviceKey), reason.Key, CancellationToken.None);
            await change.Db.Set<Device>().Where(d => keys.Contains(d.Key)).ExecuteDeleteAsync(CancellationToken.None);
        }
    }

    private Device NewDevice(Registration registration, byte[] index, DateTimeOffset now)
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
            Lane = LaneOf(registration),
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
        device.App = registration.Address.App;
        device.Platform = registration.Platform;
        device.TokenIndex = index;
        device.Tokens = DeviceTokens.Seal(registration.Address.Tokens, device.Key, masterKey);
        device.Environment = registration.Address.Environment;
        device.Lane = LaneOf(registration);
        device.Resource = registration.Resource;
        device.Locale = registration.Locale;
        device.TimeZone = registration.TimeZone;
        device.Status = DeviceStatus.Active;
        device.StatusReason = null;
        device.RegisteredAt = now;
        device.UpdatedAt = now;
        device.Revision++;
    }

    private static Lane LaneOf(Registration registration) =>
        ApnsNetwork.LaneOf(registration.Address.App, registration.Address.Environment == "sandbox");

    /// <summary>A registration on its way, and who waits for it.</summary>
    private sealed record Waiting(Registration Registration, IReadOnlyList<byte[]> Indexes, CancellationToken Stop)
    {
        public TaskCompletionSource<RegistrationResult> Result { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public bool Holds(Device device) => Indexes.Any(index => device.TokenIndex.AsSpan().SequenceEqual(index));
    }

    /// <summary>What one transaction changes: the devices as those before in it have left them.</summary>
    private sealed record Change(RelayDb Db, List<Device> Devices, DateTimeOffset Now)
    {
        public List<(Guid Key, string Reason)> Removed { get; } = [];

        public List<Guid> Touched { get; } = [];

        public List<AuditRecord> Records { get; } = [];
    }
}
