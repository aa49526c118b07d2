using PushRelay.Bridge;
using PushRelay.Ingest;

namespace PushRelay.Tests.Bridge;

/// <summary>What a stanza is to a stream that is live in epoch e1, at number 7, with 5 committed.</summary>
public sealed class StreamStateTests
{
    [Theory]
    [InlineData("e1", 8, false, nameof(StreamStep.Next))]
    [InlineData("e1", 9, false, nameof(StreamStep.Hole))]
    [InlineData("e1", 7, false, nameof(StreamStep.Repeated))]
    [InlineData("e1", 1, false, nameof(StreamStep.Repeated))]
    [InlineData("e2", 8, false, nameof(StreamStep.NewEpoch))]
    [InlineData("e1", 6, true, nameof(StreamStep.Next))]
    [InlineData("e1", 5, true, nameof(StreamStep.Skip))]
    [InlineData("e2", 6, true, nameof(StreamStep.NewEpoch))]
    [InlineData("e1", null, false, nameof(StreamStep.Skip))]
    public void A_stanza_follows_or_does_not(string epoch, int? seq, bool replay, string expected)
    {
        var live = new StreamState.Live("e1", "e1", 7);
        var events = new BridgeEvents(epoch, seq, Snapshot: seq is null, replay, []);

        Assert.Equal(expected, live.StepOf(events, new StreamPoint("e1", 5)).ToString());
    }

    [Theory]
    [InlineData("e1~2", "e1~2", nameof(StreamStep.Skip))]
    [InlineData("e1~2", "e1", nameof(StreamStep.Next))]
    [InlineData("e1", null, nameof(StreamStep.Next))]
    public void A_replay_is_skipped_only_where_its_own_numbering_is_committed_so_far(string numbering, string? committed, string expected)
    {
        var live = new StreamState.Live("e1", numbering, 7);
        var position = committed is null ? (StreamPoint?)null : new StreamPoint(committed, 6);

        Assert.Equal(expected, live.StepOf(new BridgeEvents("e1", 6, Snapshot: false, Replay: true, []), position).ToString());
    }
}
