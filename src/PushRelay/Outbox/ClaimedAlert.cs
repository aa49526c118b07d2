using PushRelay.Push;

namespace PushRelay.Outbox;

/// <summary>
/// What one request to the push network speaks for: every row that a claim took of an ordering key, oldest first. The oldest is the head:
/// the
/// push network knows every attempt by its id. Text, badge and expiration are the newest row's. It owns its permit.
/// </summary>
/// <param name="Rows">At least one, all under one lease.</param>
/// <param name="Permit">Given back when the alert is disposed of.</param>
/// <param name="ClaimedAt">Before the lease began, by the process's monotonic clock (<see cref="TimeProvider.GetTimestamp"/>).</param>
/// <param name="Life">Counted from there; an alert that is older is stale.</param>
internal sealed record ClaimedAlert(IReadOnlyList<Delivery> Rows, Permit Permit, long ClaimedAt, TimeSpan Life) : IDisposable
{
    public Delivery Head => Rows[0];

    public Delivery Newest => Rows[^1];

    /// <summary>The account and device at the time of the claim; the device may have moved to another account since.</summary>
    public Lane Lane => Permit.Lane;

    public void Dispose() => Permit.Dispose();
}

/// <summary>How an attempt ended the claim of an alert.</summary>
internal sealed record SettledAlert(ClaimedAlert Alert, Settlement Settlement, Attempt? Attempt);

/// <summary>
/// What an insert did. The caller publishes it after the commit (<see cref="ReadyQueue.PublishAsync"/>) and always disposes of it: alerts
/// that were not published return their permits. If their rows were committed, the rows come back when their leases end.
/// </summary>
/// <param name="claimed">Taken by the insert itself.</param>
/// <param name="due">Due now and left to the claims: their ordering key was busy, or there was no permit.</param>
internal sealed class AppendedRows(IReadOnlyList<ClaimedAlert> claimed, IReadOnlyList<Delivery> due) : IDisposable
{
    private IReadOnlyList<ClaimedAlert> claimed = claimed;

    public IReadOnlyList<ClaimedAlert> Claimed => claimed;

    public IReadOnlyList<Delivery> Due { get; } = due;

    /// <summary>From here on the claimed alerts are the caller's.</summary>
    public IReadOnlyList<ClaimedAlert> Release() => Interlocked.Exchange(ref claimed, []);

    public void Dispose()
    {
        foreach (var alert in Release())
        {
            alert.Dispose();
        }
    }
}

/// <summary>A lane that has waiting rows.</summary>
internal sealed record WaitingLane(Lane Lane, string App, string Platform);
