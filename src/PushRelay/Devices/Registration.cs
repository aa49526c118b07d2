using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Push;

namespace PushRelay.Devices;

/// <summary>A checked registration: names normalised, tokens in the form that their network keeps.</summary>
internal sealed record Registration
{
    public required string Account { get; init; }

    /// <summary>The app's own installation id; null: the relay makes one, or the token names a device that is there.</summary>
    public string? Id { get; init; }

    public required string Platform { get; init; }

    public required PushAddress Address { get; init; }

    public required Lane Lane { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    /// <summary>The token leaves every other account: a phone that changed hands.</summary>
    public bool Exclusive { get; init; } = true;

    /// <summary>The dialect in which it came over XMPP; null: over REST.</summary>
    public string? Dialect { get; init; }

    public required Actor Actor { get; init; }

    /// <summary>Asked of the device as it is, in the transaction that changes it.</summary>
    public ExpectedRevision Expected { get; init; } = ExpectedRevision.Any;
}

/// <summary>Why a device goes: as its cancelled deliveries say it, and as the audit says it.</summary>
internal sealed record DeviceRemoval(string Reason, string Action)
{
    public static readonly DeviceRemoval Unregistered = new(Outbox.Reasons.DeviceRemoved, AuditActions.DeviceRemoved);

    /// <summary>Its token is another device's now.</summary>
    public static readonly DeviceRemoval Moved = new(Outbox.Reasons.DeviceMoved, AuditActions.DeviceMoved);

    public static readonly DeviceRemoval WithItsAccount = new(Outbox.Reasons.AccountRemoved, AuditActions.AccountRemoved);
}
