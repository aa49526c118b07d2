namespace PushRelay.Outbox;

/// <summary>How an attempt leaves a delivery: the closed set of ways out of <see cref="DeliveryState.Sending"/>.</summary>
internal abstract record Settlement
{
    private Settlement() { }

    /// <summary>The push network took it.</summary>
    public sealed record Accepted : Settlement;

    /// <summary>Due again after this long.</summary>
    /// <param name="Delay">From now, by the database's clock.</param>
    /// <param name="Excused">The attempt does not use up <c>Dispatch:MaxAttempts</c>.</param>
    public sealed record Retry(TimeSpan Delay, bool Excused) : Settlement;

    /// <summary>The push network refused it; this is final.</summary>
    /// <param name="Reason">Stable code, <c>apns_...</c>.</param>
    /// <param name="DeviceInvalid">It was the token that was refused: what the alert spoke for ends with it.</param>
    public sealed record Rejected(string Reason, bool DeviceInvalid = false) : Settlement;

    /// <summary>Its attempts are used up.</summary>
    public sealed record Dead : Settlement;

    /// <summary>It is no longer wanted.</summary>
    public sealed record Cancelled(string Reason) : Settlement;

    /// <summary>Nothing was tried, or the result is unknown: due again at once, and the attempt does not count.</summary>
    public sealed record HandBack : Settlement;
}
