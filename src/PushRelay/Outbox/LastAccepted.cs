namespace PushRelay.Outbox;

/// <summary>A device, as deliveries name it.</summary>
internal sealed class DeliveryTarget
{
    public required string Account { get; init; }

    public required Guid DeviceKey { get; init; }
}

/// <summary>When a push network last accepted an alert for a device.</summary>
internal sealed class LastAccepted
{
    public required Guid DeviceKey { get; init; }

    public required DateTimeOffset? At { get; init; }
}

/// <summary>A row that may be tried next on a lane whose circuit is open.</summary>
internal sealed record ProbeCandidate(Guid Id, string Account, Guid DeviceKey, Guid OrderingKey);
