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

    /// <summary>For so many requests, then the rule is gone; <see cref="int.MaxValue"/>: for ever.</summary>
    public int Times { get; init; } = 1;

    /// <summary>Which part of the fitting requests it strikes, by chance (see <see cref="ApnsSimulatorOptions.Seed"/>): above 0, up to
    /// 1.</summary>
    public double Rate { get; init; } = 1;

    /// <summary>What happens instead of, or around, the answer.</summary>
    public ApnsFault Fault { get; init; }

    /// <summary>
    /// With a fault: whether the push counts as processed all the same, as if the phone got it. Of <see cref="ApnsFault.GoAway"/> it
    /// decides
    /// the last stream id: this request's, or the one before. A <see cref="ApnsFault.Refuse"/>d one never is, one whose
    /// answer is cut always.
    /// </summary>
    public bool Processed { get; init; } = true;

    /// <summary>The HTTP/2 error code of a <see cref="ApnsFault.Reset"/> (default 2, INTERNAL_ERROR) or <see cref="ApnsFault.GoAway"/>
    /// (default 0, NO_ERROR).</summary>
    public uint? ErrorCode { get; init; }

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

/// <summary>What can go wrong between a sender and Apple.</summary>
public enum ApnsFault
{
    /// <summary>The answer comes.</summary>
    None,

    /// <summary>RST_STREAM instead of an answer.</summary>
    Reset,

    /// <summary>RST_STREAM with REFUSED_STREAM: not processed.</summary>
    Refuse,

    /// <summary>No answer, ever, to this request; the connection lives on.</summary>
    Stall,

    /// <summary>GOAWAY: streams up to the last id are answered, those above are not processed; then the connection closes.</summary>
    GoAway,

    /// <summary>The same in two steps, as RFC 9113 section 6.8 has it for a graceful shutdown: first a GOAWAY that forbids nothing
    /// yet.</summary>
    GoAwayTwice,

    /// <summary>The headers of the answer, half of its body, then the connection is cut.</summary>
    CutAnswer,

    /// <summary>The connection is closed without a word (FIN).</summary>
    Close,

    /// <summary>The connection is cut (TCP reset).</summary>
    Abort,

    /// <summary>The simulator closes its own direction and goes on reading.</summary>
    HalfClose,

    /// <summary>The connection falls silent for good: nothing is read, answered or acknowledged, not even a PING; it is not
    /// closed.</summary>
    Freeze,
}
