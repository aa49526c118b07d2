namespace PushRelay.Apns;

/// <summary>Which of Apple's two services a device token belongs to.</summary>
public enum ApnsEnvironment
{
    /// <summary><c>api.push.apple.com</c>: apps from the App Store, TestFlight and enterprise builds.</summary>
    Production,

    /// <summary><c>api.sandbox.push.apple.com</c>: apps run from Xcode.</summary>
    Sandbox,
}

/// <summary>The kinds of push Apple knows; the kind decides the topic's suffix and which rules hold.</summary>
public enum ApnsPushType
{
    Alert,
    Background,
    Voip,
    Complication,
    FileProvider,
    Mdm,
    Location,
    LiveActivity,
    PushToTalk,
    Widgets,
    Controls,
}

/// <summary>One push to one device. What it may not contain is refused before anything is sent: see <see
/// cref="ApnsClient.SendAsync"/>.</summary>
public sealed record ApnsNotification
{
    /// <summary>The device token in hexadecimal, 64 to 400 digits.</summary>
    public required string DeviceToken { get; init; }

    /// <summary>The app's bundle id; the client adds the suffix that <see cref="PushType"/> asks for. For MDM: the topic of the MDM
    /// certificate.</summary>
    public required string Topic { get; init; }

    public ApnsPushType PushType { get; init; } = ApnsPushType.Alert;

    /// <summary>10: at once; 5: with regard to the device's power; 1: lowest. A background push must have 5.</summary>
    public int Priority { get; init; } = 10;

    /// <summary>
    /// Until when Apple keeps it for a device that is out of reach. Null: the header is left out. <see cref="DateTimeOffset.UnixEpoch"/>:
    /// tried once, never kept. A VoIP push must have one: a call that rings an hour late is worse than none.
    /// </summary>
    public DateTimeOffset? Expiration { get; init; }

    /// <summary>1 to 64 characters of printable ASCII; a later push with the same one replaces the earlier on the screen.</summary>
    public string? CollapseId { get; init; }

    /// <summary>The <c>apns-id</c>, the same on each attempt of the same push; null lets Apple choose one.</summary>
    public Guid? Id { get; init; }

    /// <summary>The JSON, at most 4096 bytes, for VoIP 5120; <see cref="ApnsPayload"/> builds it.</summary>
    public required ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>Nothing that must not stand in a log: no device token, no collapse id.</summary>
    public override string ToString() => $"{PushType} push {Id}";
}
