using System.Security.Cryptography;
using System.Threading.Channels;
using Microsoft.EntityFrameworkCore;
using PushRelay.Audit;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>
/// Writes registrations in batches: those that come in while one transaction runs go together into the next, and share its round trips and
/// its commit. Each is answered after the commit.
/// </summary>
internal sealed class RegistrationWriter(
    IDbContextFactory<RelayDb> databases,
    OutboxQueue outbox,
    MasterKey masterKey,
    DatabaseClock clock,
    IdSequence sequence,
    AuditTrail audit,
    WriteGate gate,
    RecentDevices recent
)
{
    private const int TogetherMax = 100;
    private const int WaitingMax = 5000;
    private const int TriesMax = 5;

    // SQLite has one writer: a pause after a batch makes fewer and larger transactions, and lets alerts be written in between
    private static readonly TimeSpan Gather = TimeSpan.FromMilliseconds(25);

    private readonly Channel<Waiting> inbox = Channel.CreateBounded<Waiting>(WaitingMax);
    private readonly List<Waiting> postponed = [];
    private int writing;

    public async Task<DeviceResult> RegisterAsync(Registration registration, CancellationToken cancellationToken)
    {
        var address = registration.Address;
        var index = DeviceTokens.IndexOf(address.App, address.Tokens[Channels.Alert], masterKey);
        var waiting = new Waiting(registration, index, cancellationToken);
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
                if (gate.OneWriter && batch.Count > 1 && inbox.Reader.Count + postponed.Count < TogetherMax)
                {
                    await Task.Delay(Gather, TimeProvider.System, CancellationToken.None);
                }
            }

            // a full fence: a registration that came after the last look either starts the next writer or is seen here
            Interlocked.Exchange(ref writing, 0);
        } while (inbox.Reader.Count > 0 && Interlocked.CompareExchange(ref writing, 1, 0) == 0);
    }

    /// <summary>The next batch: no two of one account or one token, since the second must see what the first did.</summary>
    private List<Waiting> Take()
    {
        var taken = new HashSet<string>(StringComparer.Ordinal);
        var batch = new List<Waiting>();
        var again = postponed.ToList();
        postponed.Clear();
        foreach (var next in again)
        {
            Put(next);
        }

        while (batch.Count < TogetherMax && postponed.Count < TogetherMax && inbox.Reader.TryRead(out var next))
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
            else
            {
                // the names of what is put off count as taken too: what comes later waits behind it
                var accountIsFree = taken.Add(next.Registration.Account);
                var tokenIsFree = taken.Add(Convert.ToHexString(next.Index));
                (batch.Count < TogetherMax && accountIsFree && tokenIsFree ? batch : postponed).Add(next);
            }
        }
    }

    /// <summary>Writes a batch; if it clashes with another node's transaction, each registration by itself.</summary>
    private async Task WriteAsync(IReadOnlyList<Waiting> batch)
    {
        try
        {
            var results = await DatabaseErrors.RetryClashesAsync(_ => TryWriteAsync(batch), batch.Count > 1 ? 1 : TriesMax);
            foreach (var (waiting, result) in batch.Zip(results))
            {
                waiting.Result.TrySetResult(result);
            }
        }
        catch (Exception exception) when (batch.Count > 1 && DatabaseErrors.IsClash(exception))
        {
            foreach (var waiting in batch)
            {
                await WriteAsync([waiting]);
            }
        }
        catch (Exception exception)
        {
            foreach (var waiting in batch)
            {
                waiting.Result.TrySetException(exception);
            }
        }
    }

    private async Task<IReadOnlyList<DeviceResult>> TryWriteAsync(IReadOnlyList<Waiting> batch)
    {
        // not the callers' tokens: one caller that goes away must not stop the others
        var none = CancellationToken.None;
        await using var db = await databases.CreateDbContextAsync(none);
        using var held = await gate.EnterAsync(none);
        await using var transaction = await db.Database.BeginTransactionAsync(none);
        if (!db.IsSqlite)
        {
            // One lock for each token, which several accounts may claim, and one for each account, whose devices are counted. In ascending
            // order on all nodes: no deadlock. Without statistics, as of a table that grows fast, the planner would scan the whole table
            // for a hundred accounts.
            var locks = batch
                .SelectMany(w => new[] { w.Index, SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(w.Registration.Account)) })
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
        var indexes = batch.Select(w => w.Index).ToList();
        var devices = await db.Set<Device>()
            .Where(d => accounts.Contains(d.Account) || indexes.Contains(d.TokenIndex))
            .OrderBy(d => d.Key)
            .ToListAsync(none);
        var changes = new RegistrationChanges(db, devices, now, masterKey, sequence, audit);
        var results = batch.Select(w => changes.Register(w.Registration, w.Index)).ToList();
        await changes.SaveAsync(outbox, none);
        await transaction.CommitAsync(none);
        recent.Forget(changes.Touched);
        changes.Records.ForEach(audit.Log);
        return results;
    }

    /// <summary>A registration that waits to be written, and its result.</summary>
    private sealed record Waiting(Registration Registration, byte[] Index, CancellationToken Stop)
    {
        public TaskCompletionSource<DeviceResult> Result { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
