namespace PushRelay.Presence;

/// <summary>The state of one session, as the bridge names it; a session that ended is no session any more.</summary>
internal enum SessionState
{
    /// <summary>Connected, in front.</summary>
    Active,

    /// <summary>Connected, XEP-0352 inactive.</summary>
    Inactive,

    /// <summary>XEP-0198: the link is lost, the session resumable.</summary>
    Hibernating,
}

/// <summary>One XMPP session, whole, as its server last reported it.</summary>
internal sealed record Session(
    string Sid,
    string Resource,
    SessionState State,
    bool Available,
    int Priority,
    string? Show,
    DateTimeOffset Since
)
{
    /// <summary>Setting <c>Alerts:AwayIsForeground</c>: <c>away</c> and <c>xa</c> do not count as away.</summary>
    public bool AwayIsForeground { get; init; }

    /// <summary>Its user is looking at it, as far as a server can know.</summary>
    public bool InFront => State == SessionState.Active && Available && Priority >= 0 && (AwayIsForeground || Show is not ("away" or "xa"));
}
