namespace PushRelay.Apns;

/// <summary>What became of a push, as far as the sender's next step goes. The set is closed.</summary>
public enum ApnsOutcome
{
    /// <summary>Apple took it. Whether the phone gets it, nobody tells.</summary>
    Accepted,

    /// <summary>The device token is of no use (any more): compare <see cref="ApnsResponse.InvalidSince"/> with the time of its
    /// registration.</summary>
    DeviceInvalid,

    /// <summary>This very notification is wrong; sent again it would be refused again.</summary>
    Refused,

    /// <summary>Certainly not processed; the same push may succeed later. <see cref="ApnsResponse.RetryAfter"/> is a floor.</summary>
    Deferred,

    /// <summary>Credentials, topic or endpoint are wrong: no push of this app will pass until an operator mends it. Says nothing about the
    /// device.</summary>
    Misconfigured,

    /// <summary>It was written out and no answer came: Apple may have processed it. Sending it again may show it twice, unless it has a
    /// collapse id.</summary>
    Unknown,
}

/// <summary>What Apple answered to one push, or why no answer came.</summary>
public sealed record ApnsResponse
{
    public required ApnsOutcome Outcome { get; init; }

    /// <summary>HTTP status; null where no answer came.</summary>
    public int? Status { get; init; }

    /// <summary>
    /// Apple's own text (at most 64 characters), also one this library does not know; where no answer came, one of <c>connect_failed</c>,
    /// <c>tls_failed</c>, <c>timed_out</c>, <c>connection_lost</c>, <c>stream_reset</c>, <c>stream_refused</c>, <c>no_provider_token</c>.
    /// </summary>
    public string? Reason { get; init; }

    /// <summary><see cref="Reason"/> where it is one Apple documents or is known to send.</summary>
    public ApnsReason? KnownReason { get; init; }

    /// <summary>The <c>apns-id</c> of the answer, else the one that was sent.</summary>
    public Guid? ApnsId { get; init; }

    /// <summary>Only from the sandbox: the id that Apple's Push Notifications Console shows.</summary>
    public Guid? ApnsUniqueId { get; init; }

    /// <summary>With a 410: since when Apple knows the token to be invalid. Null where the answer did not say.</summary>
    public DateTimeOffset? InvalidSince { get; init; }

    /// <summary>How long Apple asks to wait, between zero and one hour; null where it did not ask.</summary>
    public TimeSpan? RetryAfter { get; init; }

    /// <summary>From the call of <see cref="ApnsClient.SendAsync"/> to its end, waiting for a free stream included.</summary>
    public TimeSpan Duration { get; init; }
}
