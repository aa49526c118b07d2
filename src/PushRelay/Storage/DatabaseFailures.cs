using PushRelay.Telemetry;

namespace PushRelay.Storage;

/// <summary>
/// Which work waits for a database that takes nothing. All of it is one condition, from <see cref="Tolerated"/> on: the database may have
/// been restarted. Thread-safe.
/// </summary>
internal sealed class DatabaseFailures(Conditions conditions, TimeProvider clock) : IWatch
{
    /// <summary>Less than 5 s, for work is tried again every second, and the watches look every <see cref="Watches.Every"/>.</summary>
    private static readonly TimeSpan Tolerated = TimeSpan.FromSeconds(4);

    private const string Subject = "database";

    private readonly Lock sync = new();
    private readonly Dictionary<string, (long Since, string Reason)> waiting = new(StringComparer.Ordinal);
    private volatile int count;
    private volatile bool isFull;

    /// <summary>Why nothing can be committed now, from the first failure on; null: nothing fails.</summary>
    public string? Reason
    {
        get
        {
            lock (sync)
            {
                return waiting.Count == 0 ? null : waiting.Values.MinBy(w => w.Since).Reason;
            }
        }
    }

    /// <summary>A write failed for want of space, and none has succeeded since.</summary>
    public bool IsFull => isFull;

    /// <summary>A statement of this work failed; it will be tried again.</summary>
    public void Add(string work, Exception exception)
    {
        lock (sync)
        {
            var reason = exception.GetBaseException().Message;
            waiting[work] = (waiting.TryGetValue(work, out var before) ? before.Since : clock.GetTimestamp(), reason);
            count = waiting.Count;
            if (DatabaseErrors.IsFull(exception))
            {
                isFull = true;
                conditions.Raise(ConditionKind.DiskLow, Subject, reason);
            }

            RaiseIfDue_NeedsLock();
        }
    }

    /// <summary>This work succeeded, or is no more.</summary>
    public void Remove(string work)
    {
        // on every way that works
        if (count == 0)
        {
            return;
        }

        lock (sync)
        {
            if (waiting.Remove(work) && (count = waiting.Count) == 0)
            {
                isFull = false;
                conditions.Clear(ConditionKind.DatabaseDown, Subject);
            }
        }
    }

    public Task LookAsync(CancellationToken cancellationToken)
    {
        lock (sync)
        {
            RaiseIfDue_NeedsLock();
        }

        return Task.CompletedTask;
    }

    private void RaiseIfDue_NeedsLock()
    {
        if (waiting.Count > 0 && clock.GetElapsedTime(waiting.Values.Min(w => w.Since)) >= Tolerated)
        {
            var oldest = waiting.MinBy(w => w.Value.Since);
            var works = string.Join(", ", waiting.Keys.Order(StringComparer.Ordinal));
            conditions.Raise(ConditionKind.DatabaseDown, Subject, $"{oldest.Value.Reason} (work that waits: {works})");
        }
    }
}
