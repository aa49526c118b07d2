using System.Collections.Concurrent;

namespace PushRelay.Devices;

/// <summary>
/// Devices as they were read a moment ago: what the ingest has just read, the dispatcher does not read again. As old as other processes'
/// changes may take to be seen.
/// </summary>
internal sealed class RecentDevices(TimeProvider timers)
{
    private const int GenerationMax = 10_000;
    private static readonly TimeSpan Age = TimeSpan.FromSeconds(2);

    private ConcurrentDictionary<Guid, (Device Device, long ReadAt)> recent = [];

    // the generation before, so that a full one does not take with it what was read a moment ago
    private ConcurrentDictionary<Guid, (Device Device, long ReadAt)> older = [];
    private int counted;

    public Device? Find(Guid key) =>
        (recent.TryGetValue(key, out var known) || older.TryGetValue(key, out known)) && timers.GetElapsedTime(known.ReadAt) < Age
            ? known.Device
            : null;

    /// <param name="devices">As they were read.</param>
    /// <param name="readAt">A timestamp from before the reading.</param>
    public void Keep(IReadOnlyCollection<Device> devices, long readAt)
    {
        var generation = recent;
        foreach (var device in devices)
        {
            generation[device.Key] = (device, readAt);
        }

        if ((counted += devices.Count) > GenerationMax)
        {
            counted = 0;
            (older, recent) = (generation, []);
        }
    }

    public void Forget(IEnumerable<Guid> keys)
    {
        foreach (var key in keys)
        {
            recent.TryRemove(key, out _);
            older.TryRemove(key, out _);
        }
    }
}
