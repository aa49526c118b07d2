namespace PushRelay.Apns.Simulator;

/// <summary>
/// One line of a script: which requests it is for and what they get. Only requests that Apple would take are counted and answered by
/// script; the others get Apple's refusal. The first rule that fits, in the order they were added, decides.
/// </summary>
public sealed record ScriptRule
{
    /// <summary>For this device token only; null: for all.</summary>
    public string? Token { get; init; }

    /// <summary>So many fitting requests pass by before the rule takes effect.</summary>
    public int Skip { get; init; }

    /// <summary>For so many requests, then the rule is gone.</summary>
    public int Times { get; init; } = 1;

    public int Status { get; init; } = 200;

    /// <summary>Null: the usual reason of <see cref="Status"/>.</summary>
    public string? Reason { get; init; }

    /// <summary>The <c>Retry-After</c> header, as text: seconds, a date, or nonsense. Null: no header.</summary>
    public string? RetryAfter { get; init; }

    /// <summary>With a 410: since when. Null: the time of the request.</summary>
    public DateTimeOffset? Timestamp { get; init; }

    /// <summary>The answer comes this much later.</summary>
    public TimeSpan Delay { get; init; }

    /// <summary>Sent as the body instead of Apple's JSON.</summary>
    public string? Body { get; init; }
}
