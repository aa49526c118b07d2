namespace PushRelay.Ingest;

/// <summary>
/// Spaces the silent pushes that say what was read elsewhere: one for a device in ten seconds, as push networks deliver few of them. Counts
/// what this process makes. Thread-safe.
/// </summary>
internal sealed class ReadPushes
{
    private const int DevicesMax = 10_000;
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(10);

    private readonly Lock sync = new();
    private readonly Dictionary<Guid, DateTimeOffset> next = [];

    /// <summary>When the next one of this device is due. What is due at the same moment goes out as one.</summary>
    public DateTimeOffset Next(Guid device, DateTimeOffset now)
    {
        lock (sync)
        {
            if (next.TryGetValue(device, out var free) && free > now)
            {
                return free;
            }

            if (next.Count >= DevicesMax)
            {
                next.Clear();
            }

            next[device] = now + Interval;
            return now;
        }
    }
}
