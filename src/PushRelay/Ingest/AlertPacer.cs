using Microsoft.Extensions.Options;
using PushRelay.Ingest.Policy;

namespace PushRelay.Ingest;

/// <summary>
/// Says when an alert that is due at once may go out. The first event of a slot goes at once; those within <c>Alerts:CoalesceWindow</c>
/// of an alert of theirs wait for its end and go as one. A device gets <c>Alerts:DeviceBurst</c> alerts at once and then one in each
/// <c>Alerts:DeviceInterval</c>: what is more waits, and merges in its slot, so that a flood delays nobody else and drops nothing. A flood
/// from very many senders puts off no alert of its device by more than 40 such intervals: then the pace gives way.
/// Kept in memory for as long as it matters: after a restart an alert more may go out, never one less.
/// </summary>
internal sealed class AlertPacer(IOptions<AlertsOptions> settings, TimeProvider timers)
{
    private const int PutOffMax = 40;

    private readonly AlertsOptions options = settings.Value;

    // times are the process's own, since its start: a clock that is set back puts nothing off
    private readonly long start = timers.GetTimestamp();
    private readonly Dictionary<(Guid Device, Guid Slot), SlotPace> slots = [];
    private readonly Dictionary<Guid, TimeSpan> devices = [];
    private readonly Lock sync = new();
    private TimeSpan sweepAt;

    /// <param name="At">The slot's next alert, or the end of the window after its last.</param>
    /// <param name="Planned">An alert waits for <paramref name="At"/>; false: only the window ends there.</param>
    internal readonly record struct SlotPace(TimeSpan At, bool Planned);

    /// <summary>A transaction's turn: what it plans counts once it is committed.</summary>
    public Turn Begin() => new(this, timers.GetElapsedTime(start));

    private void Keep(Turn turn, TimeSpan now)
    {
        lock (sync)
        {
            foreach (var (slot, pace) in turn.Slots)
            {
                slots[slot] = pace;
            }

            foreach (var (device, at) in turn.Devices)
            {
                devices[device] = at;
            }

            if (now >= sweepAt)
            {
                var window = options.CoalesceWindow;
                sweepAt = now + TimeSpan.FromSeconds(1) + window;
                foreach (var (slot, _) in slots.Where(s => s.Value.At + window <= now).ToList())
                {
                    slots.Remove(slot);
                }

                foreach (var (device, _) in devices.Where(d => d.Value <= now).ToList())
                {
                    devices.Remove(device);
                }
            }
        }
    }

    internal sealed class Turn(AlertPacer pacer, TimeSpan now)
    {
        private readonly TimeSpan window = pacer.options.CoalesceWindow;

        private readonly TimeSpan interval = pacer.options.DeviceInterval;

        private readonly int burst = pacer.options.DeviceBurst;

        internal Dictionary<(Guid Device, Guid Slot), SlotPace> Slots { get; } = [];

        internal Dictionary<Guid, TimeSpan> Devices { get; } = [];

        /// <returns>How long an event of this slot, due now, waits.</returns>
        public TimeSpan Next(Guid device, Guid slot)
        {
            var known = Slots.TryGetValue((device, slot), out var pace) || Look(pacer.slots, (device, slot), out pace);
            if (known && pace.Planned && now <= pace.At)
            {
                return pace.At - now;
            }

            // a planned alert has gone out by now, and its window began then
            var free = known
                ? pace.Planned
                    ? pace.At + window
                    : pace.At
                : now;
            var at = Reserve(device, free > now ? free : now);
            Slots[(device, slot)] = at > now ? new SlotPace(at, Planned: true) : new SlotPace(now + window, Planned: false);
            return at - now;
        }

        public void Commit() => pacer.Keep(this, now);

        /// <summary>Generic cell rate: what is kept is when the device's debt is paid.</summary>
        private TimeSpan Reserve(Guid device, TimeSpan at)
        {
            if (!Devices.TryGetValue(device, out var paid) && !Look(pacer.devices, device, out paid))
            {
                paid = at;
            }

            var earliest = paid - (interval * (burst - 1));
            var next = earliest > at ? earliest : at;
            if (next - at > interval * PutOffMax)
            {
                return at + (interval * PutOffMax);
            }

            Devices[device] = (paid > at ? paid : at) + interval;
            return next;
        }

        private bool Look<TKey, TValue>(Dictionary<TKey, TValue> kept, TKey key, out TValue value)
            where TKey : notnull
        {
            lock (pacer.sync)
            {
                return kept.TryGetValue(key, out value!);
            }
        }
    }
}
