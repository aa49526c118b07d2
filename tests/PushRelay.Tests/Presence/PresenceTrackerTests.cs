using PushRelay.Presence;

namespace PushRelay.Tests.Presence;

public sealed class PresenceTrackerTests
{
    private static readonly StreamName Stream = new("example.com", "");

    private readonly PresenceTracker tracker = new();

    [Fact]
    public void Before_the_first_snapshot_every_account_is_unknown()
    {
        Assert.Equal(AccountState.Unknown, State());

        Assert.Null(tracker.Apply(Stream, TestRelay.Bob, "s1", Session("s1")));

        Assert.Equal(AccountState.Unknown, State());
    }

    [Fact]
    public void Of_more_sessions_than_are_kept_nothing_is_known_until_a_snapshot_fits()
    {
        // line 69
        var small = new PresenceTracker(sessionsMax: 2);
        small.Replace(Stream, [(TestRelay.Bob, Session("s1")), (TestRelay.Bob, Session("s2")), (TestRelay.Bob, Session("s3"))]);
        Assert.True(small.IsOverfull(Stream));
        Assert.Equal(AccountState.Unknown, small.Get("example.com", TestRelay.Bob).State);

        small.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);

        Assert.False(small.IsOverfull(Stream));
        Assert.Equal(AccountState.Foreground, small.Get("example.com", TestRelay.Bob).State);
    }

    [Fact]
    public void An_empty_snapshot_makes_everybody_offline()
    {
        tracker.Replace(Stream, []);

        Assert.Equal(AccountState.Offline, State());
    }

    [Theory]
    [InlineData("Active", true, 0, "Foreground")]
    [InlineData("Active", true, 127, "Foreground")]
    [InlineData("Active", true, -1, "Background")]
    [InlineData("Active", false, 0, "Background")]
    [InlineData("Inactive", true, 0, "Background")]
    [InlineData("Hibernating", true, 0, "Background")]
    public void Only_an_active_available_session_of_priority_zero_or_more_is_in_front(
        string state,
        bool available,
        int priority,
        string expected
    )
    {
        tracker.Replace(Stream, []);

        tracker.Apply(Stream, TestRelay.Bob, "s1", Session("s1", Enum.Parse<SessionState>(state), available, priority));

        Assert.Equal(expected, State().ToString());
    }

    [Fact]
    public void One_session_in_front_is_enough()
    {
        tracker.Replace(
            Stream,
            [(TestRelay.Bob, Session("s1", SessionState.Hibernating)), (TestRelay.Bob, Session("s2", resource: "desk"))]
        );

        Assert.Equal(AccountState.Foreground, State());
        var presence = tracker.Get("example.com", TestRelay.Bob);
        Assert.True(presence.InFront("desk"));
        Assert.False(presence.InFront("phone"));
    }

    [Fact]
    public void The_same_resource_again_is_a_second_session_until_the_first_ends()
    {
        tracker.Replace(Stream, [(TestRelay.Bob, Session("old"))]);
        tracker.Apply(Stream, TestRelay.Bob, "new", Session("new"));

        // a server may end the replaced session after the new one began
        var change = tracker.Apply(Stream, TestRelay.Bob, "old", null);

        Assert.Null(change);
        Assert.Equal(AccountState.Foreground, State());
    }

    [Theory]
    [InlineData(null, true, true)]
    [InlineData("chat", true, true)]
    [InlineData("dnd", true, true)]
    [InlineData("away", false, true)]
    [InlineData("xa", false, true)]
    public void Away_is_not_in_front_unless_the_settings_say_so(string? show, bool inFront, bool whereAwayCounts)
    {
        var lenient = new PresenceTracker(awayIsForeground: true);
        foreach (var (presence, expected) in new[] { (tracker, inFront), (lenient, whereAwayCounts) })
        {
            presence.Replace(Stream, [(TestRelay.Bob, Session("s1", show: show))]);
            Assert.Equal(expected, presence.Get(TestRelay.Server, TestRelay.Bob).State == AccountState.Foreground);
            presence.Apply(Stream, TestRelay.Bob, "s1", Session("s1", SessionState.Inactive));
            presence.Apply(Stream, TestRelay.Bob, "s1", Session("s1", show: show));
            Assert.Equal(expected, presence.Get(TestRelay.Server, TestRelay.Bob).State == AccountState.Foreground);
        }
    }

    [Fact]
    public void Coming_to_front_and_leaving_it_are_told_once()
    {
        tracker.Replace(Stream, []);

        var came = tracker.Apply(Stream, TestRelay.Bob, "s1", Session("s1"));
        var again = tracker.Apply(Stream, TestRelay.Bob, "s1", Session("s1", show: "dnd"));
        var left = tracker.Apply(Stream, TestRelay.Bob, "s1", Session("s1", SessionState.Inactive));
        var gone = tracker.Apply(Stream, TestRelay.Bob, "s1", null);

        Assert.Equal(["phone"], came!.CameToFront);
        Assert.Null(again);
        Assert.True(left!.LeftForeground);
        Assert.Null(gone);
    }

    [Fact]
    public void A_lost_stream_makes_its_accounts_unknown_and_its_next_snapshot_tells_who_left_meanwhile()
    {
        tracker.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);

        tracker.MarkUnknown(Stream);
        Assert.Equal(AccountState.Unknown, State());
        Assert.Empty(tracker.Get("example.com", TestRelay.Bob).Sessions);
        var changes = tracker.Replace(Stream, []);

        Assert.True(Assert.Single(changes).LeftForeground);
        Assert.Equal(AccountState.Offline, State());
    }

    [Fact]
    public void A_server_of_two_nodes_is_unknown_while_one_of_them_is()
    {
        var (first, second) = (new StreamName("example.com", "a"), new StreamName("example.com", "b"));
        tracker.Replace(first, [(TestRelay.Bob, Session("s1"))]);
        tracker.Replace(second, []);
        Assert.Equal(AccountState.Foreground, State());

        tracker.MarkUnknown(second);

        Assert.Equal(AccountState.Unknown, State());
    }

    [Fact]
    public void Another_server_is_not_touched()
    {
        tracker.Replace(Stream, []);

        Assert.Equal(AccountState.Unknown, tracker.Get("example.net", "bob@example.net").State);
    }

    private static Session Session(
        string sid,
        SessionState state = SessionState.Active,
        bool available = true,
        int priority = 0,
        string resource = "phone",
        string? show = null
    ) => new(sid, resource, state, available, priority, show, DateTimeOffset.UnixEpoch);

    private AccountState State() => tracker.Get("example.com", TestRelay.Bob).State;
}
