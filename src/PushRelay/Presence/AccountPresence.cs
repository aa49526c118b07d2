using System.Collections.Immutable;

namespace PushRelay.Presence;

internal enum AccountState
{
    /// <summary>No session.</summary>
    Offline,

    /// <summary>Sessions, none in front.</summary>
    Background,

    /// <summary>A session in front.</summary>
    Foreground,

    /// <summary>The link to the server is lost, or its first snapshot has not come: never withholds an alert.</summary>
    Unknown,
}

/// <summary>One account at one moment.</summary>
internal sealed record AccountPresence(AccountState State, ImmutableArray<Session> Sessions)
{
    public static readonly AccountPresence Unknown = new(AccountState.Unknown, []);

    /// <summary>Of an account whose sessions are all known.</summary>
    public static AccountPresence Of(ImmutableArray<Session> sessions) =>
        new(
            sessions.IsEmpty ? AccountState.Offline
                : sessions.Any(s => s.InFront) ? AccountState.Foreground
                : AccountState.Background,
            sessions
        );

    public bool InFront(string resource) => State != AccountState.Unknown && Sessions.Any(s => s.InFront && s.Resource == resource);
}

/// <summary>What one step of presence means for an account's alerts.</summary>
/// <param name="Account">The bare JID.</param>
/// <param name="CameToFront">Resources with a session in front now that had none before.</param>
/// <param name="LeftForeground">It was in foreground and is no longer.</param>
internal sealed record PresenceChange(string Account, ImmutableArray<string> CameToFront, bool LeftForeground);
