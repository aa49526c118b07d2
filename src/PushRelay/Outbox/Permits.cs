using PushRelay.Push;

namespace PushRelay.Outbox;

/// <summary>
/// Gives out permits. One app does not delay another: half of <c>Dispatch:Concurrency</c> is divided among the apps, the other half is for
/// the apps that need more. A single app has all of it, and up to twice as many alerts may also wait in memory. A lane has no share of its
/// own, but a limit while its circuit is not closed; the lanes of some push networks always have one, so that a host that never answers
/// delays no other host. Thread-safe.
/// </summary>
internal sealed class Permits(WorkSignal signal)
{
    private const int QueueFactor = 2;
    private const int WorthClaiming = 8;

    private readonly Lock sync = new();
    private readonly Dictionary<string, AppUse> apps = new(StringComparer.Ordinal);
    private readonly Dictionary<Lane, LaneUse> lanes = [];

    // lanes whose circuit is not closed; LaneCircuit sets it
    private readonly Dictionary<Lane, int> limits = [];
    private DispatchCapacity? capacity;
    private bool givesToInserts;
    private int appCount;
    private int share;

    // a single app delays no other app: its alerts can wait here, without being written and read as pending rows
    private int queue;
    private int inFlight;

    // used of the half that all apps share
    private int sharedInFlight;
    private bool starved;
    private TaskCompletionSource? idle;

    /// <summary>How many are out.</summary>
    public int InFlight => Volatile.Read(ref inFlight);

    /// <summary>How long a row that an insert claims is the dispatcher's.</summary>
    public TimeSpan Lease => capacity?.Lease ?? throw new InvalidOperationException("No dispatcher has opened the permits.");

    /// <summary>No row's lease that is still honest ends later than this from now; null before a dispatcher has opened.</summary>
    public TimeSpan? LeaseMax => capacity?.Lease;

    /// <summary>A dispatcher runs in this process: from here on inserts get permits.</summary>
    public void Open(DispatchCapacity of)
    {
        lock (sync)
        {
            (capacity, givesToInserts) = (of, true);
            appCount = of.Reachable.Select(r => r.App).Distinct(StringComparer.Ordinal).Count();
            share = appCount > 1 ? Math.Max(1, of.Concurrency / 2 / appCount) : of.Concurrency;
            queue = appCount > 1 ? 0 : QueueFactor * of.Concurrency;
            sharedInFlight = apps.Values.Sum(app => Math.Max(0, app.InFlight - share));
        }
    }

    /// <summary>The dispatcher stops: inserts get none any more. What is out stays so until it is disposed of.</summary>
    public void Close()
    {
        lock (sync)
        {
            givesToInserts = false;
        }
    }

    /// <summary>For an insert that wants to claim this row; null: the row has to wait.</summary>
    public Permit? TryTake(Delivery row)
    {
        lock (sync)
        {
            if (!givesToInserts || !capacity!.Reachable.Contains((row.App!, row.Platform!)))
            {
                return null;
            }

            var lane = row.Lane!.Value;
            var use = UseOf_NeedsLock(lane, row.App!, row.Platform!);
            return Free_NeedsLock(use) + (LimitOf_NeedsLock(use) is null ? queue : 0) > 0 ? Take_NeedsLock(use) : null;
        }
    }

    /// <summary>For a row that is claimed already, with what <see cref="Claimable"/> allowed.</summary>
    public Permit Take(Delivery row)
    {
        lock (sync)
        {
            return Take_NeedsLock(UseOf_NeedsLock(row.Lane!.Value, row.App!, row.Platform!));
        }
    }

    /// <summary>Whether some app could have a permit: if not, there is no need to look for what waits.</summary>
    /// <returns>False: the next permit that comes back wakes the claims.</returns>
    public bool AnyFree()
    {
        lock (sync)
        {
            var any = apps.Count < appCount || apps.Values.Any(app => IsWorthClaiming(AppFree_NeedsLock(app) + ForClaims, share, app));
            starved |= !any;
            return any;
        }
    }

    /// <summary>
    /// How many alerts may be claimed of each of these lanes. Lanes of one app share its permits, so up to as many again may be claimed;
    /// those wait in memory. A lane with fewer than 1/8 of its permits free is left out: such a small claim costs more than it sends.
    /// </summary>
    /// <returns>Without the lanes that have to wait; empty: the next permit that comes back wakes the claims.</returns>
    public Dictionary<Lane, int> Claimable(IReadOnlyList<WaitingLane> waiting, int max)
    {
        lock (sync)
        {
            var claimable = new Dictionary<Lane, int>(waiting.Count);
            foreach (var (lane, app, platform) in waiting)
            {
                if (capacity is null || !capacity.Reachable.Contains((app, platform)))
                {
                    continue;
                }

                var use = UseOf_NeedsLock(lane, app, platform);
                var limit = LimitOf_NeedsLock(use);
                var free = Free_NeedsLock(use) + (limit is null ? ForClaims : 0);
                if (IsWorthClaiming(free, Math.Min(share, limit ?? share), use.App))
                {
                    claimable[lane] = Math.Min(free, max);
                }
                else
                {
                    use.IsAwaited = limit is not null;
                }
            }

            starved |= claimable.Count == 0;
            return claimable;
        }
    }

    /// <summary>The lane's circuit is not closed: at most so many of it are out, and none of it waits in memory.</summary>
    public void Limit(Lane lane, int limit)
    {
        lock (sync)
        {
            limits[lane] = limit;
        }
    }

    /// <summary>The lane's circuit is closed.</summary>
    public void Unlimit(Lane lane)
    {
        lock (sync)
        {
            limits.Remove(lane);
        }
    }

    /// <summary>Due rows wait, for a permit or for the alert before them: the next permit that comes back wakes the claims.</summary>
    public void WakeOnReturn()
    {
        lock (sync)
        {
            starved = true;
        }
    }

    /// <summary>Waits until none is out.</summary>
    /// <returns>False: not within <paramref name="timeout"/>.</returns>
    public async Task<bool> WhenIdleAsync(TimeSpan timeout, TimeProvider clock)
    {
        TaskCompletionSource drained;
        lock (sync)
        {
            if (inFlight == 0)
            {
                return true;
            }

            idle = drained = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        return await Task.WhenAny(drained.Task, Task.Delay(timeout, clock, CancellationToken.None)) == drained.Task;
    }

    internal void Return(LaneUse use)
    {
        bool wake;
        lock (sync)
        {
            use.InFlight--;
            sharedInFlight -= use.App.InFlight > share ? 1 : 0;
            use.App.InFlight--;
            if (use.InFlight == 0)
            {
                // a network may have as many lanes as there are hosts
                lanes.Remove(use.Lane);
            }

            if (--inFlight == 0)
            {
                idle?.TrySetResult();
            }

            (wake, starved) = (starved, false);
            if (use.IsAwaited && IsWorthClaiming(Free_NeedsLock(use), LimitOf_NeedsLock(use) ?? share, use.App))
            {
                (wake, use.IsAwaited) = (true, false);
            }
        }

        if (wake)
        {
            signal.Wake();
        }
    }

    /// <summary>More than an insert may take: what waits is claimed also while new rows take every permit.</summary>
    private int ForClaims => queue + Math.Max(1, share / 4);

    private static bool IsWorthClaiming(int free, int most, AppUse app) => free > 0 && (app.InFlight == 0 || free >= most / WorthClaiming);

    private AppUse AppOf_NeedsLock(string app) => apps.TryGetValue(app, out var use) ? use : apps[app] = new AppUse();

    private Permit Take_NeedsLock(LaneUse use)
    {
        lanes[use.Lane] = use;
        use.InFlight++;
        use.App.InFlight++;
        sharedInFlight += use.App.InFlight > share ? 1 : 0;
        inFlight++;
        return new Permit(this, use);
    }

    private int Free_NeedsLock(LaneUse use)
    {
        var free = AppFree_NeedsLock(use.App);
        return LimitOf_NeedsLock(use) is { } limit ? Math.Min(free, limit - use.InFlight) : free;
    }

    /// <summary>Its circuit's, or the bound of its network's lanes; null: it has neither.</summary>
    private int? LimitOf_NeedsLock(LaneUse use) =>
        limits.TryGetValue(use.Lane, out var limit) ? Math.Min(limit, use.Max ?? limit) : use.Max;

    private LaneUse UseOf_NeedsLock(Lane lane, string app, string platform) =>
        lanes.GetValueOrDefault(lane)
        ?? new LaneUse(lane, AppOf_NeedsLock(app), capacity?.LaneMax.TryGetValue(platform, out var max) == true ? max : null);

    /// <summary>Below zero where claims took more than is free.</summary>
    private int AppFree_NeedsLock(AppUse app)
    {
        if (appCount <= 1)
        {
            return (capacity?.Concurrency ?? 0) - app.InFlight;
        }

        var own = share - app.InFlight;
        var shared = capacity!.Concurrency - (share * appCount) - sharedInFlight;
        return own < 0 ? shared : own + Math.Max(0, shared);
    }
}
