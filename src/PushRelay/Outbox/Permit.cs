using PushRelay.Push;

namespace PushRelay.Outbox;

/// <summary>
/// The right to work on one alert. An insert takes it before it claims; a claim takes it afterwards, within what
/// <see cref="Permits.Claimable"/> allowed. The claimed alert owns it. Only disposing returns it. Any thread may dispose, more than once.
/// </summary>
internal sealed class Permit : IDisposable
{
    private readonly LaneUse use;
    private Permits? source;

    internal Permit(Permits source, LaneUse use) => (this.source, this.use) = (source, use);

    public Lane Lane => use.Lane;

    public void Dispose() => Interlocked.Exchange(ref source, null)?.Return(use);
}

/// <summary>What a dispatcher can work on at once.</summary>
/// <param name="Concurrency">Requests in flight at most.</param>
/// <param name="Reachable">The apps and their push networks that the settings have; rows of others wait.</param>
/// <param name="LaneMax">The most that a lane of these push networks may have; for other networks the app's permits are the only
/// bound.</param>
/// <param name="Lease">How long a claimed row is the dispatcher's.</param>
internal sealed record DispatchCapacity(
    int Concurrency,
    IReadOnlySet<(string App, string Platform)> Reachable,
    IReadOnlyDictionary<string, int> LaneMax,
    TimeSpan Lease
);

/// <summary>Permits of one lane that are out; only <see cref="Permits"/> looks inside.</summary>
/// <param name="max">In flight at most, in every state of its circuit; null: no bound of its own.</param>
internal sealed class LaneUse(Lane lane, AppUse app, int? max)
{
    public Lane Lane { get; } = lane;

    public int? Max { get; } = max;

    /// <summary>Due rows wait for permits of this lane, while other lanes of the app have some.</summary>
    public bool IsAwaited { get; set; }

    public AppUse App { get; } = app;

    public int InFlight { get; set; }
}

/// <summary>Permits of one app that are out; only <see cref="Permits"/> looks inside.</summary>
internal sealed class AppUse
{
    public int InFlight { get; set; }
}
