using System.Collections.Concurrent;

namespace PushRelay.Devices;

/// <summary>
/// Devices that were read in the last two seconds: what ingest has just read, dispatch does not read again. Changes of other processes are
/// therefore seen at most two seconds late; changes of this process call <see cref="Forget"/>.
/// </summary>
internal sealed class RecentDevices(TimeProvider timers)
{
    private const int GenerationMax = 10_000;
    private static readonly TimeSpan Age = TimeSpan.FromSeconds(2);

    private ConcurrentDictionary<Guid, (Device Device, long ReadAt)> recent = [];

    // the previous generation: when one is full, what was read a moment ago is still there
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
