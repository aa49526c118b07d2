using PushRelay.Api;
using PushRelay.Push;

namespace PushRelay.Devices;

/// <summary>What a client asks to have registered, as it said it; nothing is checked yet.</summary>
internal sealed record RegistrationRequest
{
    /// <summary>The app's own installation id; null: the relay makes one, or the token names a device that is there.</summary>
    public string? Id { get; init; }

    /// <summary>Whose device it is to be; null: the caller's own.</summary>
    public string? Account { get; init; }

    public string? App { get; init; }

    /// <summary>The push network.</summary>
    public string? Platform { get; init; }

    /// <summary>Of the network, in its own word; null: the app's.</summary>
    public string? Environment { get; init; }

    /// <summary>By channel (<see cref="Channels"/>), as the network gave them to the app.</summary>
    public required IReadOnlyDictionary<string, string> Tokens { get; init; }

    /// <summary>Binds the device to the sessions of this XMPP resource.</summary>
    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    /// <summary>The token leaves every other account: a phone that changed hands. False: an app with several accounts.</summary>
    public bool Exclusive { get; init; } = true;

    /// <summary>The dialect in which it came over XMPP (<see cref="Apps.Dialects"/>); null: over REST.</summary>
    public string? Dialect { get; init; }

    /// <summary>Of the device with <see cref="Id"/> or, without one, with the token.</summary>
    public ExpectedRevision Expected { get; init; } = ExpectedRevision.Any;
}
