namespace PushRelay.Apns.Simulator;

/// <summary>A request that came in, and the answer decided for it.</summary>
public sealed record ReceivedNotification
{
    /// <summary>1 for the first since the start or the last clearing.</summary>
    public required long Number { get; init; }

    public required DateTimeOffset At { get; init; }

    /// <summary>As it stood in the path, in lower case.</summary>
    public required string DeviceToken { get; init; }

    /// <summary>All <c>apns-*</c> headers, names in lower case.</summary>
    public required IReadOnlyDictionary<string, string> Headers { get; init; }

    /// <summary>The body as text; empty where it was larger than any payload may be.</summary>
    public required string Payload { get; init; }

    /// <summary>The status of the answer. A fault may have kept it from being sent.</summary>
    public required int Status { get; init; }

    /// <summary>Null with a 200.</summary>
    public string? Reason { get; init; }

    /// <summary>The <c>apns-id</c> of the answer.</summary>
    public required Guid ApnsId { get; init; }

    /// <summary>What happened to the answer.</summary>
    public ApnsFault Fault { get; init; }

    /// <summary>Which connection it came over, counted from 1.</summary>
    public required int Connection { get; init; }
}
