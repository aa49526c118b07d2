using PushRelay.Apps;
using PushRelay.Limits;

namespace PushRelay.Ingest;

/// <summary>
/// Decides when an alert that is due now may be sent. The first event of an ordering key goes at once; those within
/// <c>Alerts:CoalesceWindow</c> of its alert wait for the window's end and go as one. A device gets <c>Alerts:DeviceBurst</c> alerts at
/// once and then one in each <c>Alerts:DeviceInterval</c>: what is more waits and merges by its ordering key, so a flood delays no other
/// device and drops nothing. A flood from very many senders delays no alert of its device by more than 40 intervals.
/// Kept in memory, for as long as it is needed: after a restart one more alert may be sent, never one less. Thread-safe.
/// </summary>
/// <param name="window">Within so long after an alert its ordering key waits.</param>
/// <param name="rate">Of each device.</param>
/// <param name="clock">The time it goes by.</param>
internal sealed class AlertPacer(TimeSpan window, CellRate rate, TimeProvider clock)
{
    private const int DelayIntervalsMax = 40;

    private readonly TimeSpan window = window;
    private readonly CellRate rate = rate;

    // times are since the start of the process: a clock that is set back delays nothing
    private readonly long start = clock.GetTimestamp();
    private readonly Dictionary<(Guid Device, Guid OrderingKey), KeyPace> keys = [];

    // when the device may send a full burst again
    private readonly Dictionary<Guid, TimeSpan> devices = [];
    private readonly Lock sync = new();
    private TimeSpan sweepAt;

    /// <param name="At">The key's next alert, or the end of the window after its last.</param>
    /// <param name="Planned">An alert waits for <paramref name="At"/>; false: only the window ends there.</param>
    internal readonly record struct KeyPace(TimeSpan At, bool Planned);

    /// <summary>Paces alerts as the settings say.</summary>
    public static AlertPacer OfAlerts(AlertsOptions settings, TimeProvider clock) =>
        new(settings.CoalesceWindow, new CellRate(settings.DeviceInterval, settings.DeviceBurst), clock);

    /// <summary>Paces what only wakes an app: one for a device in each <c>Alerts:WakeInterval</c>.</summary>
    public static AlertPacer OfWakeups(AlertsOptions settings, TimeProvider clock) =>
        new(settings.WakeInterval, new CellRate(settings.WakeInterval, 1), clock);

    /// <summary>The plan of one transaction; it takes effect when the transaction is committed.</summary>
    public Plan Begin() => new(this, clock.GetElapsedTime(start));

    private void Keep(Plan plan, TimeSpan now)
    {
        lock (sync)
        {
            foreach (var (key, pace) in plan.Keys)
            {
                keys[key] = pace;
            }

            foreach (var (device, whole) in plan.Devices)
            {
                devices[device] = whole;
            }

            if (now < sweepAt)
            {
                return;
            }

            sweepAt = now + TimeSpan.FromSeconds(1) + window;
            foreach (var (key, _) in keys.Where(k => k.Value.At + window <= now).ToList())
            {
                keys.Remove(key);
            }

            foreach (var (device, _) in devices.Where(d => d.Value <= now).ToList())
            {
                devices.Remove(device);
            }
        }
    }

    /// <summary>One transaction's alerts. Not thread-safe.</summary>
    internal sealed class Plan(AlertPacer pacer, TimeSpan now)
    {
        internal Dictionary<(Guid Device, Guid OrderingKey), KeyPace> Keys { get; } = [];

        internal Dictionary<Guid, TimeSpan> Devices { get; } = [];

        /// <returns>How long an alert of this ordering key, due now, waits.</returns>
        public TimeSpan Next(Guid device, Guid orderingKey) => NextOrWaiting(device, orderingKey).Wait;

        /// <returns>The same, and whether another one waits until then already.</returns>
        public (TimeSpan Wait, bool IsWaiting) NextOrWaiting(Guid device, Guid orderingKey)
        {
            var key = (device, orderingKey);
            var known = Keys.TryGetValue(key, out var pace) || Find(pacer.keys, key, out pace);
            if (known && pace.Planned && now <= pace.At)
            {
                return (pace.At - now, true);
            }

            // a planned alert has gone out by now, and its window began then
            var free = (known, pace.Planned) switch
            {
                (true, true) => pace.At + pacer.window,
                (true, false) => pace.At,
                _ => now,
            };
            var at = Reserve(device, free > now ? free : now);
            Keys[key] = at > now ? new KeyPace(at, Planned: true) : new KeyPace(now + pacer.window, Planned: false);
            return (at - now, false);
        }

        public void Commit() => pacer.Keep(this, now);

        /// <summary>Takes one of the device's alerts.</summary>
        private TimeSpan Reserve(Guid device, TimeSpan at)
        {
            if (!Devices.TryGetValue(device, out var whole) && !Find(pacer.devices, device, out whole))
            {
                whole = at;
            }

            var next = pacer.rate.Next(at, whole);
            if (next - at > pacer.rate.Interval * DelayIntervalsMax)
            {
                return at + (pacer.rate.Interval * DelayIntervalsMax);
            }

            Devices[device] = pacer.rate.Take(at, whole);
            return next;
        }

        private bool Find<TKey, TValue>(Dictionary<TKey, TValue> kept, TKey key, out TValue value)
            where TKey : notnull
        {
            lock (pacer.sync)
            {
                return kept.TryGetValue(key, out value!);
            }
        }
    }
}
