using System.Globalization;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Tests.Bridge;

/// <summary>The bridge over a real socket: a scripted server says what a real one would not say on demand.</summary>
public sealed class BridgeTests : IAsyncLifetime
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");

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
        // first: a relay that stops waits for the server's end of the stream, in a time that does not go on by itself
        peer.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task The_first_thing_on_a_link_is_the_request_for_a_snapshot()
    {
        var request = await peer.ExpectSnapshotRequestAsync();

        Assert.Null(request.Elements().Single().Attribute("epoch"));
        Assert.Equal(("push.example.com", TestRelay.Server), ((string?)request.Attribute("from"), (string?)request.Attribute("to")));
        Assert.Equal(AccountState.Unknown, State());
    }

    [Fact]
    public async Task A_message_is_acknowledged_once_it_is_in_the_ledger()
    {
        await GoLiveAsync();

        await peer.SendEventsAsync("e1", 1, Message("m1"));

        Assert.Equal(1, await peer.ExpectAckAsync("e1"));
        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((Reasons.Offline, "m1"), (row.Reason, row.MessageId));
    }

    [Fact]
    public async Task Sessions_of_the_snapshot_count_from_its_result_on()
    {
        var request = await peer.ExpectSnapshotRequestAsync();
        await peer.SendAsync(
            $"<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'>{Session("s1", "active")}</events>",
            wrap: true
        );
        // said before the result: not yet ours to count, nor to acknowledge
        await peer.SendEventsAsync("e1", 5, Message("early"));
        await peer.AnswerSnapshotAsync(request, "e1", 7);
        await peer.SendEventsAsync("e1", 8, Message("m1"));

        Assert.Equal(8, await peer.ExpectAckAsync("e1"));
        Assert.Equal(["m1"], (await relay.RowsAsync()).Select(r => r.MessageId));
        Assert.Equal(Reasons.Foreground, (await relay.RowsAsync())[0].Reason);
        Assert.Equal(AccountState.Foreground, State());
    }

    [Fact]
    public async Task An_answer_to_another_request_is_no_answer()
    {
        var request = await peer.ExpectSnapshotRequestAsync();
        await peer.SendAsync(
            "<iq type='result' id='made-up' from='example.com' to='push.example.com'><snapshot xmlns='urn:pushrelay:bridge:1' "
                + "epoch='e1' seq='0'/></iq>"
        );
        await peer.SendEventsAsync("e1", 1, Message("before"));
        Assert.Equal(AccountState.Unknown, State());

        await peer.AnswerSnapshotAsync(request, "e1", 1);
        await peer.SendEventsAsync("e1", 2, Message("after"));

        await peer.ExpectAckAsync("e1");
        Assert.Equal(["after"], (await relay.RowsAsync()).Select(r => r.MessageId));
    }

    [Fact]
    public async Task Pages_before_an_answer_that_came_too_late_do_not_count()
    {
        var late = await peer.ExpectSnapshotRequestAsync();
        relay.Advance(TimeSpan.FromSeconds(16));
        relay.Advance(TimeSpan.FromSeconds(1));
        var request = await peer.ExpectSnapshotRequestAsync();

        await peer.SendAsync(
            $"<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'>{Session("s1", "active")}</events>",
            wrap: true
        );
        await peer.AnswerSnapshotAsync(late, "e1", 0);
        await peer.AnswerSnapshotAsync(request, "e1", 0);
        await peer.SendEventsAsync("e1", 1, Message("m1"));

        await peer.ExpectAckAsync("e1");
        Assert.Equal(Reasons.Offline, (await relay.RowsAsync())[0].Reason);
    }

    [Fact]
    public async Task Names_that_strangers_invent_do_not_make_the_bridge_unreadable()
    {
        await GoLiveAsync();
        for (var i = 0; i < 60; i++)
        {
            await peer.SendAsync(
                $"<message from='mallory@evil.example' "
                    + $"to='push.example.com'>{string.Concat(Enumerable.Range(0, 100).Select(j => $"<n{i}x{j}/>"))}</message>"
            );
        }

        await peer.SendEventsAsync(
            "e1",
            1,
            "<message to='bob@example.com' from='alice@example.com/a' type='chat' class='call' call='c1' id='m1' stanza-id='7' "
                + "mention='true' nick='n' room='r@x' ts='1'/>",
            // what newer modules send too
            "<retraction to='bob@example.com' from='alice@example.com/a' of='m0' of-stanza='true' by='room'/>",
            "<message class='subscribe' name='n' replaces='r' origin-id='o' stamp='1' kind='file' file='f' hide='true' private='true'/>",
            "<blocked account='bob@example.com' jid='a@b'/>"
        );

        Assert.Equal(1, await peer.ExpectAckAsync("e1"));
        Assert.Equal("7", Assert.Single(await relay.RowsAsync()).StanzaId);
    }

    [Fact]
    public async Task A_question_in_the_words_of_the_bridge_is_answered()
    {
        await GoLiveAsync();

        await peer.SendAsync(
            "<iq type='get' id='ask' from='example.com' to='push.example.com'><snapshot xmlns='urn:pushrelay:bridge:1'/></iq>"
        );

        Assert.Equal("error", (string?)(await peer.ExpectAsync(s => (string?)s.Attribute("id") == "ask")).Attribute("type"));
    }

    [Fact]
    public async Task A_replay_brings_what_was_held_and_only_what_is_new()
    {
        await GoLiveAsync();
        await peer.SendEventsAsync("e1", 1, Message("m1"));
        await peer.ExpectAckAsync("e1");
        await peer.DropAsync();
        await ReconnectAsync();

        var request = await peer.ExpectSnapshotRequestAsync();
        var asked = request.Elements().Single();
        Assert.Equal(("e1", "1"), ((string?)asked.Attribute("epoch"), (string?)asked.Attribute("seq")));
        await peer.AnswerSnapshotAsync(request, "e1", 4);
        await peer.SendEventsAsync("e1", 1, Message("m1"), replay: true);
        await peer.SendEventsAsync("e1", 3, Message("m3"), replay: true);
        await peer.SendEventsAsync("e1", 5, Message("m5"));

        while (await peer.ExpectAckAsync("e1") < 5)
        {
            // commits may come apart
        }

        Assert.Equal(["m1", "m3", "m5"], (await relay.RowsAsync()).Select(r => r.MessageId));
    }

    [Fact]
    public async Task A_hole_is_never_acknowledged_over_a_new_snapshot_brings_it()
    {
        await GoLiveAsync();
        await peer.SendEventsAsync("e1", 1, Message("m1"));
        await peer.ExpectAckAsync("e1");

        await peer.SendEventsAsync("e1", 3, Message("m3"));

        var request = await peer.ExpectSnapshotRequestAsync();
        Assert.Equal("1", (string?)request.Elements().Single().Attribute("seq"));
        Assert.Equal(["m1"], (await relay.RowsAsync()).Select(r => r.MessageId));
    }

    [Fact]
    public async Task A_new_epoch_asks_anew_and_ends_the_old_sessions()
    {
        await GoLiveAsync(Session("s1", "active"));
        Assert.Equal(AccountState.Foreground, State());

        await peer.SendEventsAsync("e2", 1, Session("s9", "active"));

        var request = await peer.ExpectSnapshotRequestAsync();
        Assert.Equal(AccountState.Unknown, State());
        await peer.AnswerSnapshotAsync(request, "e2", 1);
        await peer.SendEventsAsync("e2", 2, Message("m1"));
        await peer.ExpectAckAsync("e2");
        Assert.Equal(AccountState.Offline, State());
    }

    [Fact]
    public async Task A_lost_link_makes_every_state_unknown()
    {
        await GoLiveAsync(Session("s1", "active"));

        await peer.DropAsync();
        await ReconnectAsync();
        await peer.ExpectSnapshotRequestAsync();

        Assert.Equal(AccountState.Unknown, State());
    }

    [Fact]
    public async Task A_stream_that_is_silent_for_three_heartbeats_is_unknown()
    {
        await GoLiveAsync(Session("s1", "active"));
        await peer.SendEventsAsync("e1", 1, "<heartbeat interval='10'/>" + Message("m1"));
        await peer.ExpectAckAsync("e1");

        relay.Advance(TimeSpan.FromSeconds(29));
        Assert.Equal(AccountState.Foreground, State());
        relay.Advance(TimeSpan.FromSeconds(3));

        await peer.ExpectSnapshotRequestAsync();
        Assert.Equal(AccountState.Unknown, State());
    }

    [Fact]
    public async Task An_event_that_cannot_be_understood_is_passed_over_and_the_position_moves_on()
    {
        await GoLiveAsync();

        await peer.SendEventsAsync(
            "e1",
            1,
            "<message to='nobody' from='alice@example.com' class='text'/>",
            "<message to='bob@elsewhere.example' from='alice@example.com' class='text' ts='1'/>",
            "<message to='bob@example.com' from='alice@example.com' class='telepathy'/>",
            "<session jid='bob@example.com' sid='s1' state='active'/>",
            "<session jid='bob@example.com/phone' sid='s1' state='levitating'/>",
            "<displayed account='bob@example.com'/>",
            "<future event='yes'/>",
            Message("m1")
        );

        Assert.Equal(1, await peer.ExpectAckAsync("e1"));
        Assert.Equal(["m1"], (await relay.RowsAsync()).Select(r => r.MessageId));
    }

    [Fact]
    public async Task An_account_that_the_server_keeps_apart_from_another_is_not_taken_for_that()
    {
        await relay.RegisterAsync("გი@example.com");
        await GoLiveAsync();

        await peer.SendEventsAsync(
            "e1",
            1,
            Message("m1").Replace("bob@", "ᲒᲘ@", StringComparison.Ordinal),
            Message("m2").Replace("bob@", "გი@", StringComparison.Ordinal)
        );

        await peer.ExpectAckAsync("e1");
        Assert.Equal(["m2"], (await relay.AllRowsAsync()).Select(r => r.MessageId));
    }

    [Theory]
    [InlineData("mallory@example.com/x")]
    [InlineData("mallory@example.com")]
    [InlineData("example.com/x")]
    [InlineData("sub.example.com")]
    [InlineData("evil.example")]
    public async Task Events_from_anybody_but_the_configured_server_are_ignored(string from)
    {
        await GoLiveAsync();

        await peer.SendAsync(
            $"<message from='{from}' to='push.example.com'><events xmlns='urn:pushrelay:bridge:1' epoch='e1' "
                + $"seq='1'>{Message("spoofed")}</events></message>"
        );
        await peer.SendEventsAsync("e1", 1, Message("m1"));

        await peer.ExpectAckAsync("e1");
        Assert.Equal(["m1"], (await relay.RowsAsync()).Select(r => r.MessageId));
    }

    [Theory]
    [InlineData("<events xmlns='urn:pushrelay:bridge:1' seq='1'/>")]
    [InlineData("<events xmlns='urn:pushrelay:bridge:1' epoch='e1' seq='-1'/>")]
    [InlineData("<events xmlns='urn:pushrelay:bridge:1' epoch='e1' seq='99999999999999999999'/>")]
    [InlineData("<events xmlns='urn:pushrelay:bridge:1' epoch='e1'/>")]
    [InlineData("<events xmlns='urn:pushrelay:bridge:9' epoch='e1' seq='1'/>")]
    [InlineData("<snapshot xmlns='urn:pushrelay:bridge:1'/>")]
    public async Task A_stanza_that_is_no_stanza_of_the_bridge_leaves_the_link_up(string payload)
    {
        await GoLiveAsync();

        await peer.SendAsync(payload, wrap: true);
        await peer.SendEventsAsync("e1", 1, Message("m1"));

        Assert.Equal(1, await peer.ExpectAckAsync("e1"));
    }

    [Fact]
    public async Task An_unknown_request_is_answered_and_an_unknown_message_is_not()
    {
        await GoLiveAsync();

        await peer.SendAsync("<message from='example.com' to='push.example.com'><body>hello component</body></message>");
        await peer.SendAsync("<iq type='get' id='q+/=1' from='example.com' to='push.example.com'><query xmlns='jabber:iq:last'/></iq>");

        var answer = await peer.ExpectAsync(s => s.Name.LocalName == "iq");
        Assert.Equal(("error", "q+/=1"), ((string?)answer.Attribute("type"), (string?)answer.Attribute("id")));
        Assert.Contains(answer.Descendants(), e => e.Name.LocalName == "service-unavailable");
    }

    [Theory]
    [InlineData(-10_000_000L, -900)]
    [InlineData(-10_000_000_000L, -900)]
    [InlineData(-9_000_000_000_000_000L, -900)]
    [InlineData(-60L, -60)]
    [InlineData(9_000_000_000_000_000L, 0)]
    [InlineData(3600L, 0)]
    [InlineData(null, 0)]
    public async Task The_time_of_an_event_is_clamped_to_the_quarter_hour_before_it_came(long? secondsFromNow, int expected)
    {
        await GoLiveAsync();
        var now = relay.Clock.GetUtcNow();
        var ts = secondsFromNow is { } seconds
            ? $"ts='{(now.ToUnixTimeMilliseconds() + (seconds * 1000)).ToString(CultureInfo.InvariantCulture)}'"
            : "ts='soon'";

        await peer.SendEventsAsync(
            "e1",
            1,
            $"<message to='bob@example.com' from='alice@example.com/a' type='chat' class='text' id='m1' {ts}><body>x</body></message>"
        );

        await peer.ExpectAckAsync("e1");
        Assert.Equal(now.AddSeconds(expected), (await relay.RowsAsync())[0].EventAt);
    }

    [Fact]
    public async Task A_group_message_is_the_rooms_conversation()
    {
        await GoLiveAsync();

        await peer.SendEventsAsync(
            "e1",
            1,
            "<message to='bob@example.com' from='garden@rooms.example.com/Rose' room='garden@rooms.example.com' nick='Rose' "
                + "type='groupchat' class='text' id='m1'><body>x</body></message>"
        );

        await peer.ExpectAckAsync("e1");
        var row = (await relay.RowsAsync())[0];
        Assert.Equal(
            ("garden@rooms.example.com", "groupchat", "Rose"),
            (row.Conversation, row.MessageType, AlertContent.Open(relay.MasterKey, row).Nick)
        );
    }

    public static TheoryData<string, string, string> Meanings =>
        new()
        {
            // attributes and elements beside those of every message, the conversation, what the alert is made of
            { "type='chat' class='text' name='Alice'><body>x</body>", "alice@example.com", """{"Body":"x","Name":"Alice"}""" },
            {
                "type='chat' class='text'><body>x</body><body xml:lang='de'>y</body><body xml:lang=''>z</body>",
                "alice@example.com",
                """{"Body":"x","Bodies":{"de":"y"}}"""
            },
            {
                "type='chat' class='text' kind='image' file='lake.jpg'><body>the lake</body>",
                "alice@example.com",
                """{"Body":"the lake","File":"image","FileName":"lake.jpg"}"""
            },
            { "type='chat' class='text' kind='unheard of'><body>x</body>", "alice@example.com", """{"Body":"x"}""" },
            { "type='chat' class='text' hide='true'>", "alice@example.com", """{"Hidden":true}""" },
            {
                "type='chat' class='text' private='true' name='Garden' room='alice@example.com'><body>x</body>",
                "alice@example.com/a",
                """{"Body":"x","Nick":"a","Name":"Garden"}"""
            },
            {
                "type='chat' class='call' call='c1' media='audio video smell'>",
                "alice@example.com",
                """{"Media":["audio","video"],"Caller":"alice@example.com/a"}"""
            },
            {
                "type='normal' class='invite' room='garden@rooms.example.com' inviter='rose@example.com/x' name='Rose'>",
                "garden@rooms.example.com",
                """{"Name":"Rose","Room":"garden@rooms.example.com","Inviter":"rose@example.com"}"""
            },
            { "class='subscribe'>", "alice@example.com", "{}" },
            { "type='normal' class='attention'>", "alice@example.com", "{}" },
        };

    [Theory]
    [MemberData(nameof(Meanings))]
    public async Task What_a_message_means_is_kept_for_its_alert(string rest, string conversation, string content)
    {
        await GoLiveAsync();

        await peer.SendEventsAsync("e1", 1, $"<message to='bob@example.com' from='alice@example.com/a' id='m1' {rest}</message>");

        await peer.ExpectAckAsync("e1");
        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal(conversation, row.Conversation);
        Assert.Equal(content, AlertContent.Open(relay.MasterKey, row).ToJson());
    }

    [Fact]
    public async Task A_module_that_is_unloaded_leaves_its_sessions_unknown_at_once()
    {
        await GoLiveAsync();
        await peer.SendEventsAsync(
            "e1",
            1,
            "<session jid='bob@example.com/desk' sid='s1' state='active' available='true' priority='0' ts='1'/><end/>"
        );
        await peer.ExpectAckAsync("e1");

        await TestRelay.UntilAsync(
            () => Task.FromResult(relay.Get<PresenceTracker>().Get(TestRelay.Server, TestRelay.Bob).State == AccountState.Unknown),
            () => "still known"
        );
    }

    [Fact]
    public async Task A_server_without_the_module_is_asked_again_and_the_relay_says_so_in_its_health()
    {
        var request = await peer.ExpectSnapshotRequestAsync();
        await peer.SendAsync(
            $"<iq type='error' id='{(string)request.Attribute("id")!}' from='example.com' to='push.example.com'><error "
                + $"type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        using var client = relay.NewClient();
        var health = "";
        await TestRelay.UntilAsync(
            async () =>
            {
                // the worker looks once a second
                relay.Advance(TimeSpan.FromMilliseconds(100));
                health = await client.GetStringAsync("/health/ready", Token);
                return health.Contains("publishes, without the module: example.com", StringComparison.Ordinal);
            },
            () => health
        );
        Assert.Contains("\"status\":\"ready\"", health, StringComparison.Ordinal);

        relay.Advance(TimeSpan.FromSeconds(20));
        relay.Advance(TimeSpan.FromSeconds(2));

        await peer.ExpectSnapshotRequestAsync();
    }

    private static string Message(string id) =>
        $"<message to='bob@example.com' from='alice@example.com/a' type='chat' class='text' id='{id}'><body>hello</body></message>";

    private static string Session(string sid, string state) =>
        $"<session jid='bob@example.com/phone' sid='{sid}' state='{state}' available='true' priority='0'/>";

    private AccountState State() => relay.Get<PresenceTracker>().Get(Stream.Server, TestRelay.Bob).State;

    private async Task GoLiveAsync(params string[] sessions)
    {
        var request = await peer.ExpectSnapshotRequestAsync();
        if (sessions.Length > 0)
        {
            await peer.SendAsync(
                $"<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'>{string.Concat(sessions)}</events>",
                wrap: true
            );
        }

        await peer.AnswerSnapshotAsync(request, "e1", 0);
        // an answered request behind it: what came before is taken
        await peer.SendAsync("<iq type='get' id='sync' from='example.com' to='push.example.com'><ping xmlns='urn:xmpp:ping'/></iq>");
        await peer.ExpectAsync(s => (string?)s.Attribute("id") == "sync");
        if (sessions.Length > 0)
        {
            await WaitForStateAsync(AccountState.Foreground);
        }
    }

    private async Task WaitForStateAsync(AccountState state)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(Token);
        patience.CancelAfter(TimeSpan.FromSeconds(10));
        while (State() != state)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, patience.Token);
        }
    }

    /// <summary>The relay waits before it connects again; its time is the test's.</summary>
    private async Task ReconnectAsync()
    {
        var accepted = peer.AcceptAsync();
        while (!accepted.IsCompleted)
        {
            relay.Advance(TimeSpan.FromSeconds(1));
            await Task.WhenAny(accepted, Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Token));
        }

        await accepted;
    }
}

/// <summary>A server is heard in either spelling of an internationalised name, and asked in that of the settings.</summary>
public sealed class InternationalServerTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example")]
    [InlineData("xn--bcher-kva.example", "xn--bcher-kva.example", "bücher.example")]
    [InlineData("bücher.example", "bücher.example", "xn--bcher-kva.example")]
    public async Task Its_events_count(string configured, string asked, string from)
    {
        using var peer = new ScriptedBridge();
        await using var relay = await TestRelay.OpenAsync(
            null,
            $"--Xmpp:Components:0:Port={peer.Port.ToString(CultureInfo.InvariantCulture)}",
            $"--Xmpp:Components:0:Servers:0={configured}"
        );
        await relay.RegisterAsync("bob@bücher.example");
        await relay.ServeAsync();
        await peer.AcceptAsync();

        var request = await peer.ExpectSnapshotRequestAsync();
        Assert.Equal(asked, (string?)request.Attribute("to"));
        await peer.SendAsync(
            $"<iq type='result' id='{(string)request.Attribute("id")!}' from='{from}' to='push.example.com'><snapshot "
                + "xmlns='urn:pushrelay:bridge:1' epoch='e1' seq='0' dropped='0' server='Peer 1' module='1.0.0'/></iq>"
        );
        await peer.SendAsync(
            $"<message from='{from}' to='push.example.com'><events xmlns='urn:pushrelay:bridge:1' epoch='e1' seq='1'><message "
                + $"to='bob@{from}' from='alice@example.com/x' type='chat' class='text' id='m1'><body>hello</body></message>"
                + "</events></message>"
        );

        var ack = await peer.ExpectAsync(s => s.Elements().Any(e => e.Name.LocalName == "ack"));
        Assert.Equal(asked, (string?)ack.Attribute("to"));
        Assert.Equal("bob@bücher.example", Assert.Single(await relay.AllRowsAsync()).Account);
        peer.Dispose();
    }
}
