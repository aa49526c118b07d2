using PushRelay.Ingest;

namespace PushRelay.Bridge;

/// <summary>What an <c>events</c> stanza is to a live stream.</summary>
internal enum StreamStep
{
    /// <summary>The next one, or a replay of one that is not committed.</summary>
    Next,

    /// <summary>A replay of one that is committed, or a page of a snapshot that was not requested.</summary>
    Skip,

    /// <summary>The module has started again without its queue.</summary>
    NewEpoch,

    /// <summary>A stanza is missing.</summary>
    Hole,

    /// <summary>A number that was given out before, for another stanza.</summary>
    Repeated,
}

/// <summary>
/// Where a bridge stream stands: <see cref="Idle"/> until a snapshot is asked for, <see cref="Asked"/> until its result, then
/// <see cref="Live"/>. A lost link leads from each to Idle, a stanza that does not follow or silence from Live to Asked.
/// </summary>
internal abstract record StreamState
{
    private StreamState() { }

    /// <summary>No request is out; the account states of the server are unknown.</summary>
    /// <param name="Since">By the monotonic clock.</param>
    public sealed record Idle(long Since) : StreamState;

    /// <summary>A snapshot was asked for. Pages are collected; numbered stanzas are ignored, for they come again.</summary>
    /// <param name="Since">By the monotonic clock.</param>
    /// <param name="Request">The id of the request.</param>
    public sealed record Asked(long Since, string Request) : StreamState
    {
        public List<BridgeSession> Pages { get; } = [];
    }

    /// <summary>The snapshot came, and no stanza is missing since.</summary>
    /// <param name="Epoch">The module's.</param>
    /// <param name="Numbering">The epoch as it is committed: with a number at its end where the module gave out its numbers again.</param>
    /// <param name="Seq">Of the last live stanza.</param>
    public sealed record Live(string Epoch, string Numbering, long Seq) : StreamState
    {
        /// <param name="events">A stanza of the stream.</param>
        /// <param name="committed">The last committed stanza.</param>
        public StreamStep StepOf(BridgeEvents events, StreamPoint? committed) =>
            events.Seq is not { } seq ? StreamStep.Skip
            : events.Epoch != Epoch ? StreamStep.NewEpoch
            : events.Replay
                ? committed is { } point && point.Epoch == Numbering && seq <= point.Seq ? StreamStep.Skip
                    : StreamStep.Next
            : seq <= Seq ? StreamStep.Repeated
            : seq == Seq + 1 ? StreamStep.Next
            : StreamStep.Hole;
    }
}
