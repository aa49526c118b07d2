using PushRelay.Audit;
using PushRelay.Push;

namespace PushRelay.Devices;

/// <summary>A valid registration: names normalised, tokens in the form that their network keeps.</summary>
internal sealed record Registration
{
    public required string Account { get; init; }

    /// <summary>The app's own installation id; null: the relay makes one, or the token tells.</summary>
    public string? Id { get; init; }

    public required string Platform { get; init; }

    /// <summary>As the network keeps and compares it.</summary>
    public required PushAddress Address { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    /// <summary>The token leaves every other account: a phone that changed hands.</summary>
    public bool Exclusive { get; init; } = true;

    public Actor Actor { get; init; } = Actor.Relay;

    /// <summary>Asked with the device as it is, or null, before anything is changed; false changes nothing.</summary>
    public Func<Device?, bool>? Precondition { get; init; }
}

/// <summary>What a registration came to.</summary>
internal abstract record RegistrationResult
{
    private RegistrationResult() { }

    /// <param name="Device">As it is now.</param>
    /// <param name="Created">It was not there before.</param>
    public sealed record Done(Device Device, bool Created) : RegistrationResult;

    /// <summary>The account has as many valid devices as it may have.</summary>
    public sealed record LimitReached : RegistrationResult;

    /// <summary><see cref="Registration.Precondition"/> said no.</summary>
    public sealed record PreconditionFailed : RegistrationResult;
}
