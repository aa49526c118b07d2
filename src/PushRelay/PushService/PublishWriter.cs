using System.Threading.Channels;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Telemetry;
using PushRelay.Xmpp;

namespace PushRelay.PushService;

/// <summary>What became of a publish.</summary>
internal enum PublishResult
{
    /// <summary>Stored, and decided; or deliberately not stored, because it says nothing new.</summary>
    Taken,

    /// <summary>The server's module reports the same.</summary>
    Duplicate,

    /// <summary>There is no such node of this server that is registered, or the secret is another's.</summary>
    Refused,
}

/// <summary>
/// Stores publishes in groups: those that come in while one transaction runs go together into the next. Each is answered after the commit,
/// in the order in which they came.
/// </summary>
internal sealed class PublishWriter(
    EventIngest ingest,
    DeviceRegistry registry,
    NodeSecrets secrets,
    PresenceTracker presence,
    ServedAccounts accounts,
    DatabaseFailures failures,
    RelayMetrics metrics,
    TimeProvider clock
)
{
    private const int TogetherMax = 500;
    private const int WaitingMax = 20_000;

    /// <summary>A node of ours has 32 characters.</summary>
    private const int NodeCharsMax = 64;

    /// <summary>The subject of a database that does not take them.</summary>
    private const string Work = "publishes";

    /// <summary>How often it is looked whether a server's module has answered.</summary>
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(50);

    private readonly Channel<Waiting> inbox = Channel.CreateBounded<Waiting>(WaitingMax);
    private int writing;

    /// <param name="publish">What came.</param>
    /// <param name="from">As its server stamped it: a server, or one of its accounts.</param>
    /// <param name="cancellationToken">A publish that is not being written yet is not written.</param>
    /// <exception cref="Exception">The database failed: nothing was stored.</exception>
    public async Task<PublishResult> WriteAsync(Publish publish, Jid from, CancellationToken cancellationToken)
    {
        // of any other domain no label: strangers would make them without end
        var server = accounts.Serves(from.Domain) ? from.Domain : "";
        try
        {
            var result = await WaitAsync(publish, from, cancellationToken);
            metrics.CountPublish(server, result.ToString().ToLowerInvariant());
            return result;
        }
        catch
        {
            metrics.CountPublish(server, "later");
            throw;
        }
    }

    private async Task<PublishResult> WaitAsync(Publish publish, Jid from, CancellationToken cancellationToken)
    {
        BridgeCoverage coverage;
        while ((coverage = presence.CoverageOf(from.Domain, clock.GetUtcNow())) == BridgeCoverage.Awaited)
        {
            await Task.Delay(Look, clock, cancellationToken);
        }

        var waiting = new Waiting(publish, from, coverage == BridgeCoverage.Live, cancellationToken);
        await inbox.Writer.WriteAsync(waiting, cancellationToken);
        if (Interlocked.CompareExchange(ref writing, 1, 0) == 0)
        {
            _ = Task.Run(WriteAllAsync, CancellationToken.None);
        }

        // a database that hangs must not hold the answer: what is stored after it is only told twice, if the server repeats it
        return await waiting.Result.Task.WaitAsync(cancellationToken);
    }

    private async Task WriteAllAsync()
    {
        do
        {
            while (Take() is { Count: > 0 } batch)
            {
                await WriteAsync(batch);
            }

            // a full fence: a publish that came after the last look either starts the next writer or is seen here
            Interlocked.Exchange(ref writing, 0);
        } while (inbox.Reader.Count > 0 && Interlocked.CompareExchange(ref writing, 1, 0) == 0);
    }

    private List<Waiting> Take()
    {
        var batch = new List<Waiting>();
        while (batch.Count < TogetherMax && inbox.Reader.TryRead(out var next))
        {
            if (next.Stop.IsCancellationRequested)
            {
                next.Result.TrySetCanceled(next.Stop);
            }
            else
            {
                batch.Add(next);
            }
        }

        return batch;
    }

    private async Task WriteAsync(List<Waiting> batch)
    {
        try
        {
            var nodes = batch.Select(w => w.Publish.Node).Where(n => n.Length <= NodeCharsMax).Distinct(StringComparer.Ordinal).ToList();
            var devices = await registry.OfNodesAsync(nodes, CancellationToken.None);
            var results = batch.ConvertAll(w => (Waiting: w, Device: DeviceOf(w, devices.GetValueOrDefault(w.Publish.Node))));
            var groups = results
                .Where(r => r is { Device: not null, Waiting.IsDuplicate: false })
                .GroupBy(r => r.Waiting.From.Domain, r => EventOf(r.Waiting.Publish, r.Device!), StringComparer.Ordinal)
                .Select(g => new EventBatch(new StreamName(g.Key, ""), [.. g], null))
                .ToList();
            if (groups.Count > 0)
            {
                // the publishes of one writer come over links of this node, but they need no lease of these links: a publish is never sent
                // again
                await ingest.CommitAsync(groups, null, CancellationToken.None);
            }

            failures.Remove(Work);
            foreach (var (waiting, device) in results)
            {
                waiting.Result.TrySetResult(
                    device is null ? PublishResult.Refused
                    : waiting.IsDuplicate ? PublishResult.Duplicate
                    : PublishResult.Taken
                );
            }
        }
        catch (Exception exception)
        {
            if (DatabaseErrors.IsOutage(exception))
            {
                failures.Add(Work, exception);
            }

            foreach (var waiting in batch)
            {
                waiting.Result.TrySetException(exception);
            }
        }
    }

    /// <summary>The device that may be told; every check is made of every publish, so that all refusals take the same time.</summary>
    private Device? DeviceOf(Waiting waiting, Device? device)
    {
        var (publish, from) = (waiting.Publish, waiting.From);
        var hasSecret = secrets.Is(publish.Node, publish.Secret);
        var needsNone = publish.IsPush2 || (publish.Secret is null && Dialects.KnowsNoSecret(device?.Dialect));
        var isServed = accounts.Serves(from.Domain);
        var isItsServer =
            device is not null
            && ServedAccounts.ServerOf(device.Account) == from.Domain
            && (from.Local is null || from.Bare.ToString() == device.Account);
        return (hasSecret || needsNone) && isServed && isItsServer && device!.Status == DeviceStatus.Active ? device : null;
    }

    private RelayEvent.Message EventOf(Publish publish, Device device)
    {
        var server = ServedAccounts.ServerOf(device.Account);
        return new RelayEvent.Message(device.Account, clock.GetUtcNow())
        {
            // a publish has no id: each is an event of its own
            Key = Guid.NewGuid().ToString("D"),
            Source = EventSource.Xep0357,
            Class = publish.Class,
            From = publish.Sender?.Bare.ToString() ?? server,
            Type = publish.IsGroup ? "groupchat" : "chat",
            CallId = publish.CallId,
            Ended = publish.Ended,
            Badge = publish.Count,
            OnlyDevice = device.Key,
            Presence = presence.Get(server, device.Account),
            Content = new AlertContent
            {
                Body = publish.Body,
                Nick = publish.Nick,
                Anonymous = publish.Sender is null,
                Caller = publish.Class == EventClass.Call ? publish.Sender?.ToString() : null,
                Encrypted = publish.Encrypted?.Text,
                Iv = publish.Encrypted?.Iv,
            },
        };
    }

    /// <summary>A publish that waits to be written, and its result.</summary>
    private sealed record Waiting(Publish Publish, Jid From, bool IsDuplicate, CancellationToken Stop)
    {
        public TaskCompletionSource<PublishResult> Result { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
