using System.Globalization;
using PushRelay.Cluster;
using PushRelay.Presence;

namespace PushRelay.Tests.Bridge;

/// <summary>Streams that come and go: the nodes of a cluster, numbers that fall, a link that another node takes.</summary>
public sealed class BridgeClusterTests : IAsyncLifetime
{
    private ScriptedBridge peer = null!;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        peer = new ScriptedBridge();
        relay = await TestRelay.OpenAsync(null, $"--Xmpp:Components:0:Port={peer.Port.ToString(CultureInfo.InvariantCulture)}");
        await relay.RegisterAsync();
        await relay.ServeAsync();
        await peer.AcceptAsync();
    }

    public async ValueTask DisposeAsync()
    {
        peer.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task A_node_that_answers_for_the_whole_is_a_stream_of_its_own_and_the_others_are_asked_as_they_say_hello()
    {
        await GoLiveWithTwoNodesAsync();

        Assert.Equal(AccountState.Foreground, State(TestRelay.Bob));
        Assert.Equal(AccountState.Background, State(TestRelay.Alice));
        await peer.SendNodeEventsAsync("n2", "e2", 8, Message("m1"));
        var ack = await peer.ExpectAsync(s => s.Elements().Any(e => e.Name.LocalName == "ack" && (string?)e.Attribute("seq") == "8"));
        Assert.Equal(
            ("n2", "e2"),
            ((string?)ack.Elements().Single().Attribute("node"), (string?)ack.Elements().Single().Attribute("epoch"))
        );
    }

    [Fact]
    public async Task A_node_that_joins_makes_the_server_unknown_until_it_has_said_what_it_has()
    {
        var whole = await peer.ExpectSnapshotRequestAsync("");
        await peer.SendAsync(
            $"<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'>{Session("bob", "s1", "active")}</events>",
            wrap: true
        );
        await peer.AnswerSnapshotAsync(whole, "e1", 4);
        await WaitForStateAsync(TestRelay.Bob, AccountState.Foreground);

        await peer.SendNodeEventsAsync("n1", "e1", 5, "<heartbeat interval='30'/>");

        var request = await peer.ExpectSnapshotRequestAsync("n1");
        Assert.Equal(AccountState.Unknown, State(TestRelay.Bob));
        await peer.SendNodeEventsAsync("n1", "e1", null, Session("bob", "s1", "inactive"));
        await peer.AnswerSnapshotAsync(request, "e1", 5, "n1");
        await WaitForStateAsync(TestRelay.Bob, AccountState.Background);
    }

    [Fact]
    public async Task A_node_for_which_another_answers_has_left_and_its_sessions_are_ended()
    {
        await GoLiveWithTwoNodesAsync();

        await SilenceAsync("n2", "n1");
        var request = await peer.ExpectSnapshotRequestAsync("n2");
        Assert.Equal(AccountState.Unknown, State(TestRelay.Alice));
        await peer.AnswerSnapshotAsync(request, "e1", 9, "n1");

        await WaitForStateAsync(TestRelay.Alice, AccountState.Offline);
        Assert.Equal(AccountState.Foreground, State(TestRelay.Bob));
    }

    [Fact]
    public async Task A_node_that_nobody_answers_for_is_ended_after_ten_minutes_while_others_live()
    {
        await GoLiveWithTwoNodesAsync();

        for (var seq = 10; State(TestRelay.Alice) != AccountState.Offline; seq++)
        {
            Assert.True(seq < 100, "The silent node was not ended.");
            relay.Advance(TimeSpan.FromSeconds(20));
            await peer.SendNodeEventsAsync("n1", "e1", seq, "<heartbeat interval='30'/>");
            await peer.ExpectAsync(s =>
                s.Elements()
                    .Any(e => e.Name.LocalName == "ack" && (string?)e.Attribute("seq") == seq.ToString(CultureInfo.InvariantCulture))
            );
        }

        Assert.Equal(AccountState.Foreground, State(TestRelay.Bob));
    }

    [Fact]
    public async Task The_last_node_of_a_cluster_speaks_for_the_whole_again_and_the_named_ones_are_ended()
    {
        await GoLiveWithTwoNodesAsync();

        await peer.SendEventsAsync("e1", 10, "<heartbeat interval='30'/>");
        var request = await peer.ExpectSnapshotRequestAsync("");
        Assert.Equal(AccountState.Unknown, State(TestRelay.Bob));
        await peer.SendAsync(
            $"<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'>{Session("bob", "s1", "active")}</events>",
            wrap: true
        );
        await peer.AnswerSnapshotAsync(request, "e1", 10);

        await WaitForStateAsync(TestRelay.Bob, AccountState.Foreground);
        Assert.Equal(AccountState.Offline, State(TestRelay.Alice));
    }

    [Fact]
    public async Task Numbers_that_fall_within_an_epoch_are_a_new_numbering_and_nothing_of_it_is_skipped()
    {
        await peer.AnswerSnapshotAsync(await peer.ExpectSnapshotRequestAsync(), "e1", 0);
        for (var seq = 1; seq <= 5; seq++)
        {
            await peer.SendEventsAsync("e1", seq, Message($"before{seq.ToString(CultureInfo.InvariantCulture)}"));
        }

        while (await peer.ExpectAckAsync("e1") < 5)
        {
            // commits may come apart
        }

        // the server is set back to its third stanza, and goes on
        await peer.SendEventsAsync("e1", 4, Message("after4"));
        var request = await peer.ExpectSnapshotRequestAsync();
        Assert.Equal(
            ("e1", "3"),
            ((string?)request.Elements().Single().Attribute("epoch"), (string?)request.Elements().Single().Attribute("seq"))
        );
        await peer.AnswerSnapshotAsync(request, "e1", 5);
        await peer.SendEventsAsync("e1", 4, Message("after4"), replay: true);
        await peer.SendEventsAsync("e1", 5, Message("after5"), replay: true);
        await peer.SendEventsAsync("e1", 6, Message("after6"));
        while (await peer.ExpectAckAsync("e1") < 6)
        {
            // commits may come apart
        }

        Assert.Equal(
            ["before1", "before2", "before3", "before4", "before5", "after4", "after5", "after6"],
            (await relay.RowsAsync()).Select(r => r.MessageId)
        );
    }

    [Fact]
    public async Task Whoever_lost_the_lease_acknowledges_nothing_and_closes_the_link()
    {
        await peer.AnswerSnapshotAsync(await peer.ExpectSnapshotRequestAsync(), "e1", 0);
        await peer.SyncAsync();
        await using (var db = relay.NewDb())
        {
            await Microsoft.EntityFrameworkCore.EntityFrameworkQueryableExtensions.ExecuteUpdateAsync(
                db.Set<Lease>(),
                set => set.SetProperty(l => l.Term, l => l.Term + 1),
                Token
            );
        }

        await peer.SendEventsAsync("e1", 1, Message("m1"));

        await peer.ExpectEndAsync();
        Assert.Empty(await relay.RowsAsync());
        // the end of the link is seen here before the relay has followed it
        await TestRelay.UntilAsync(
            () => Task.FromResult(State(TestRelay.Bob) == AccountState.Unknown),
            () => State(TestRelay.Bob).ToString()
        );
    }

    private static string Message(string id) =>
        $"<message to='bob@example.com' from='alice@example.com/a' type='chat' class='text' id='{id}'><body>hello</body></message>";

    private static string Session(string user, string sid, string state) =>
        $"<session jid='{user}@example.com/phone' sid='{sid}' state='{state}' available='true' priority='0'/>";

    /// <summary>Bob in front on n1, Alice in the background on n2.</summary>
    private async Task GoLiveWithTwoNodesAsync()
    {
        var whole = await peer.ExpectSnapshotRequestAsync("");
        await peer.SendNodeEventsAsync("n1", "e1", null, Session("bob", "s1", "active"));
        await peer.AnswerSnapshotAsync(whole, "e1", 9, "n1");
        await peer.SendNodeEventsAsync("n2", "e2", 7, "<heartbeat interval='30'/>");
        var request = await peer.ExpectSnapshotRequestAsync("n2");
        Assert.Equal(AccountState.Unknown, State(TestRelay.Bob));
        await peer.SendNodeEventsAsync("n2", "e2", null, Session("alice", "s1", "inactive"));
        await peer.AnswerSnapshotAsync(request, "e2", 7, "n2");
        await WaitForStateAsync(TestRelay.Bob, AccountState.Foreground);
    }

    /// <summary>One node says nothing any more for longer than is borne, the other does.</summary>
    private async Task SilenceAsync(string silent, string speaking)
    {
        Assert.NotEqual(silent, speaking);
        // after 90 seconds it is asked, and after 15 more once again
        for (var seq = 10; seq < 15; seq++)
        {
            relay.Advance(TimeSpan.FromSeconds(20));
            await peer.SendNodeEventsAsync(speaking, "e1", seq, "<heartbeat interval='30'/>");
            await peer.ExpectAsync(s =>
                s.Elements()
                    .Any(e => e.Name.LocalName == "ack" && (string?)e.Attribute("seq") == seq.ToString(CultureInfo.InvariantCulture))
            );
        }
    }

    private AccountState State(string account) => relay.Get<PresenceTracker>().Get(TestRelay.Server, account).State;

    private Task WaitForStateAsync(string account, AccountState state) =>
        TestRelay.UntilAsync(() => Task.FromResult(State(account) == state), () => $"{account} is {State(account)}, not {state}");
}
