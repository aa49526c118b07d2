namespace PushRelay.Limits;

/// <summary>
/// The generic cell rate algorithm: one in each <paramref name="Interval"/>, up to <paramref name="Burst"/> at once. All that a key's
/// caller keeps of it is one instant: when the key's burst is whole again.
/// </summary>
internal readonly record struct CellRate(TimeSpan Interval, int Burst)
{
    /// <returns>The first instant at or after <paramref name="at"/> that has one left.</returns>
    public TimeSpan Next(TimeSpan at, TimeSpan whole)
    {
        var earliest = whole - (Interval * (Burst - 1));
        return earliest > at ? earliest : at;
    }

    /// <returns>When the burst is whole again after one more at <paramref name="at"/>.</returns>
    public TimeSpan Take(TimeSpan at, TimeSpan whole) => (whole > at ? whole : at) + Interval;
}
