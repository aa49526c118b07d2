using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

[Collection(nameof(ProsodyBed))]
public sealed class MessagesOnProsody(ProsodyBed bed) : MessageScenarios(bed);

[Collection(nameof(EjabberdBed))]
public sealed class MessagesOnEjabberd(EjabberdBed bed) : MessageScenarios(bed)
{
    [Fact]
    public async Task A_message_of_a_room_alerts_its_subscriber_who_is_in_no_room()
    {
        await using var bob = await Bed.PersonAsync();
        var alice = await Bed.AliceAsync();
        var room = await RoomAsync(alice);
        var client = await bob.LoginAsync();
        await client.AskAsync(
            "set",
            "<subscribe xmlns='urn:xmpp:mucsub:0' nick='bobby'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>",
            room
        );
        await client.LogoutAsync();
        await bob.SessionsAsync("offline", []);

        var id = Bed.NextId();
        await alice.MessageAsync(room, "hi all", id, "groupchat");

        var payload = await bob.AlertedAsync(id, "offline");
        Assert.Equal("alice: hi all", (string?)payload["aps"]!["alert"]!["body"]);
    }
}

/// <summary>Each kind of message, to somebody who is not in front: what the phone shows, or that it shows nothing.</summary>
public abstract class MessageScenarios(ScenarioBed bed)
{
    private const string Text = "a text of it";
    private const string Omemo = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>x</payload></encrypted>";
    private const string Omemo2 = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>x</payload></encrypted>";
    private const string Store = "<store xmlns='urn:xmpp:hints'/>";
    private const string Proposal =
        "<propose xmlns='urn:xmpp:jingle-message:0' id='ID'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>";

    // type, body and children of the message; what the alert shows: the text itself, or the words that the app has
    private static readonly Dictionary<string, (string Type, string? Body, string Extra, string Shown)> Alerting = new()
    {
        ["a chat message"] = ("chat", Text, "", Text),
        ["a normal message"] = ("normal", Text, "", Text),
        ["a subject alone"] = ("normal", null, $"<subject>{Text}</subject>", Text),
        ["a message not to be stored"] = ("chat", Text, "<no-store xmlns='urn:xmpp:hints'/>", Text),
        // as Pidgin writes it; other clients have a fallback body
        ["OMEMO without a body"] = ("chat", null, Omemo + Eme("eu.siacs.conversations.axolotl") + Store, "encrypted"),
        ["OMEMO with a fallback"] = ("chat", Text, Omemo, "encrypted"),
        ["OMEMO of XEP-0420 with a fallback"] = ("chat", Text, Omemo2, "encrypted"),
        ["OpenPGP of XEP-0420"] = (
            "chat",
            null,
            "<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>" + Eme("urn:xmpp:openpgp:0"),
            "encrypted"
        ),
        ["PGP"] = ("chat", null, "<x xmlns='jabber:x:encrypted'>x</x>", "encrypted"),
        ["PGP with a fallback"] = ("chat", Text, "<x xmlns='jabber:x:encrypted'>x</x>", "encrypted"),
        ["a call"] = ("chat", null, Proposal, "call"),
        ["an invitation"] = ("normal", null, $"<x xmlns='jabber:x:conference' jid='r@{XmppServer.Rooms}'/>", "invite"),
    };

    private const string Forwarded =
        "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='c@x.test' to='BOB' type='chat'>"
        + "<body>x</body></message></forwarded>";

    private static readonly Dictionary<string, (string Type, string? Body, string Extra)> Silent = new()
    {
        ["a headline"] = ("headline", Text, ""),
        ["an error"] = ("error", Text, "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"),
        ["a chat state"] = ("chat", null, "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        ["a receipt"] = ("chat", null, "<received xmlns='urn:xmpp:receipts' id='1'/>"),
        ["a marker"] = ("chat", null, "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
        ["a reaction"] = ("chat", null, "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>+</reaction></reactions>"),
        ["an empty body"] = ("chat", "", ""),
        ["OMEMO of XEP-0420 without a body, which is typing or a marker"] = ("chat", null, Omemo2),
        ["keys of OMEMO"] = ("chat", null, "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>"),
        ["a call that rings"] = ("chat", null, "<ringing xmlns='urn:xmpp:jingle-message:0' id='1'/>"),
        ["a forged carbon"] = ("chat", Text, $"<received xmlns='urn:xmpp:carbons:2'>{Forwarded}</received>"),
        ["a forged archive result"] = ("normal", Text, $"<result xmlns='urn:xmpp:mam:2' id='1'>{Forwarded}</result>"),
    };

    private static string Eme(string method) => $"<encryption xmlns='urn:xmpp:eme:0' namespace='{method}' name='x'/>";

    public static TheoryData<string, string> AlertingWhere =>
        [.. Alerting.Keys.SelectMany(kind => (string[])["offline", "hibernating", "inactive"], (kind, where) => (kind, where))];

    public static TheoryData<string> SilentKinds => [.. Silent.Keys];

    internal ScenarioBed Bed => bed;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [MemberData(nameof(AlertingWhere))]
    public async Task An_alert_for(string kind, string where)
    {
        var (type, body, extra, shown) = Alerting[kind];
        await using var bob = await bed.PersonAsync();
        await GoAsync(bob, where);
        var id = bed.NextId();

        await (await bed.AliceAsync()).MessageAsync(bob.Account, body, id, type, extra.Replace("ID", id, StringComparison.Ordinal));

        var reason =
            kind == "a call" ? "call"
            : where == "offline" ? "offline"
            : "background";
        var payload = await bob.AlertedAsync(id, reason);
        var alert = payload["aps"]!["alert"]!;
        Assert.Equal(shown, shown == Text ? (string?)alert["body"] : (string?)payload["kind"]);
        Assert.DoesNotContain(Text, shown == Text ? "" : alert.ToJsonString(), StringComparison.Ordinal);
        Assert.Single(bob.Notifications);
    }

    [Theory]
    [MemberData(nameof(SilentKinds))]
    public async Task No_alert_and_no_row_for(string kind)
    {
        var (type, body, extra) = Silent[kind];
        await using var bob = await bed.PersonAsync();
        var client = await bob.HibernateAsync();
        var alice = await bed.AliceAsync();

        await alice.MessageAsync(bob.Account, body, bed.NextId(), type, extra.Replace("BOB", bob.Account, StringComparison.Ordinal));
        await alice.MessageAsync(client.Jid, body, bed.NextId(), type, extra.Replace("BOB", bob.Account, StringComparison.Ordinal));

        await bob.NothingButAsync(alice);
    }

    [Fact]
    public async Task No_alert_for_presence_and_requests_to_a_session_that_sleeps()
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.HibernateAsync();
        var alice = await bed.AliceAsync();

        await alice.SendAsync($"<presence to='{client.Jid}'/><iq type='get' to='{client.Jid}' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>");

        await bob.NothingButAsync(alice);
    }

    [Fact]
    public async Task No_alert_for_a_sender_who_is_blocked()
    {
        await using var bob = await bed.PersonAsync();
        await using var mallory = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await client.AskAsync("set", $"<block xmlns='urn:xmpp:blocking'><item jid='{mallory.Account}'/></block>", to: null);
        client.Cut();
        await bob.SessionsAsync("phone hibernating available 0");
        var spammer = await mallory.LoginAsync();

        await spammer.MessageAsync(bob.Account, "spam", bed.NextId());
        await spammer.MessageAsync(client.Jid, "spam", bed.NextId());

        await bob.NothingButAsync(await bed.AliceAsync());
    }

    [Fact]
    public async Task One_alert_for_a_message_that_a_sleeping_phone_gets_as_a_copy_and_none_for_what_the_account_writes()
    {
        await using var bob = await bed.PersonAsync();
        var desktop = await bob.LoginAsync("desktop");
        var phone = await (await bob.LoginAsync()).EnableSmAsync();
        foreach (var client in (WireClient[])[desktop, phone])
        {
            await client.AskAsync("set", "<enable xmlns='urn:xmpp:carbons:2'/>", to: null);
        }

        await desktop.CsiAsync("inactive");
        phone.Cut();
        await bob.SessionsAsync("desktop inactive available 0", "phone hibernating available 0");
        var alice = await bed.AliceAsync();
        var id = bed.NextId();

        await alice.MessageAsync(desktop.Jid, Text, id);
        Assert.Equal(Text, (string?)(await bob.AlertedAsync(id, "background"))["aps"]!["alert"]!["body"]);
        await desktop.MessageAsync(alice.Jid, "an answer", bed.NextId());
        await desktop.MessageAsync(bob.Account, "a note to myself", bed.NextId());
        await desktop.MessageAsync(phone.Jid, "and another", bed.NextId());

        await bob.NothingButAsync(alice, id);
    }

    [Fact]
    public async Task No_alert_for_what_the_archive_and_the_store_for_offline_messages_give_out()
    {
        await using var bob = await bed.PersonAsync();
        var alice = await bed.AliceAsync();
        var id = bed.NextId();
        await alice.MessageAsync(bob.Account, Text, id);
        await bob.AlertedAsync(id, "offline");

        var client = await bob.LoginAsync();
        await client.ReceiveAsync(Text);
        await client.AskAsync("set", "<query xmlns='urn:xmpp:mam:2' queryid='q'/>", to: null);
        await client.CsiAsync("inactive");
        await bob.SessionsAsync("phone inactive available 0");

        await bob.NothingButAsync(alice, id);
        await bed.Relay.UntilAsync(() => Task.FromResult(bob.Notifications.Count() == 2), "the second message is alerted too", Token);
    }

    [Fact]
    public async Task A_burst_is_fewer_alerts_than_messages_and_ends_with_the_newest_text()
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var alice = await bed.AliceAsync();
        var ids = Enumerable.Range(0, 5).Select(_ => bed.NextId()).ToList();

        foreach (var id in ids)
        {
            await alice.MessageAsync(bob.Account, $"text {id}", id);
        }

        await bed.Relay.UntilAsync(
            async () =>
                (await bed.Relay.DeliveriesAsync(bob.Account)).Count(r => (string?)r["state"] is "accepted" or "coalesced") == ids.Count,
            "all are alerted",
            Token
        );
        var heads = (await bed.Relay.DeliveriesAsync(bob.Account)).Where(r => (string?)r["state"] == "accepted").ToList();
        Assert.Equal(5, heads.Sum(r => (int)r["count"]!));
        Assert.Equal(heads.Count, bob.Notifications.Count());
        Assert.InRange(heads.Count, 1, 4); // two, unless the machine is slow
        Assert.Equal($"text {ids[^1]}", (string?)JsonNode.Parse(bob.Notifications.Last().Payload)!["aps"]!["alert"]!["body"]);
    }

    [Fact]
    public async Task A_call_that_its_caller_withdraws_is_not_alerted_any_more()
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var alice = await bed.AliceAsync();
        bed.Apns.AnswerNext(
            new ScriptRule
            {
                Token = bob.Token,
                Status = 503,
                Reason = "ServiceUnavailable",
                Times = 1000,
            }
        );
        var (call, end) = (bed.NextId(), bed.NextId());
        await alice.MessageAsync(bob.Account, null, call, extra: Proposal.Replace("ID", call, StringComparison.Ordinal));
        await bed.Relay.UntilAsync(() => Task.FromResult(bob.Notifications.Any()), "the call was tried", Token);

        await alice.MessageAsync(bob.Account, null, end, extra: $"<retract xmlns='urn:xmpp:jingle-message:0' id='{call}'/>");

        // where an attempt was under way at that moment, its row ends with it, and so does the row that was to follow it
        await bed.Relay.UntilAsync(
            async () =>
                Array.TrueForAll(
                    await bed.Relay.DeliveriesAsync(bob.Account),
                    row => ((string?)row["state"], (string?)row["reason"]) is ("cancelled", "call_ended") or ("expired", _)
                ),
            "the call's rows are cancelled",
            Token
        );
        bed.Apns.ClearScript();
        Assert.DoesNotContain(bob.Notifications, n => n.Status == 200);
        await bob.NothingButAsync(alice, call);
    }

    public static TheoryData<string, string?, string, string, string> Told =>
        new()
        {
            // what, body, elements beside it, kind, text on the lock screen
            {
                "a picture by XEP-0447 and its link",
                "https://files.example.com/secret/lake.jpg",
                """
                    <file-sharing xmlns='urn:xmpp:sfs:0' disposition='inline'><file xmlns='urn:xmpp:file:metadata:0'>
                    <media-type>image/jpeg</media-type><name>lake.jpg</name></file><sources>
                    <url-data xmlns='http://jabber.org/protocol/url-data' target='https://files.example.com/secret/x'/>
                    </sources></file-sharing>
                    <x xmlns='jabber:x:oob'><url>https://files.example.com/secret/lake.jpg</url></x>
                    """,
                "image",
                "Picture"
            },
            {
                "a spoiler",
                "the gardener did it",
                "<spoiler xmlns='urn:xmpp:spoiler:0'>end of the film</spoiler>",
                "spoiler",
                "Spoiler: end of the film"
            },
            {
                "a reply with a quotation",
                "> secret question\nyes",
                """
                    <reply xmlns='urn:xmpp:reply:0' id='q1' to='alice@example.com'/><fallback xmlns='urn:xmpp:fallback:0'
                    for='urn:xmpp:reply:0'><body start='0' end='18'/></fallback>
                    """,
                "message",
                "yes"
            },
            { "a place", "geo:52.5,13.4", "", "location", "Location" },
        };

    [Theory]
    [MemberData(nameof(Told))]
    public async Task What_is_told_of(string what, string? body, string extra, string kind, string text)
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var id = bed.NextId();

        await (await bed.AliceAsync()).MessageAsync(bob.Account, body, id, extra: extra.ReplaceLineEndings(" "));

        var payload = await bob.AlertedAsync(id, "background");
        Assert.Equal((what, kind, text), (what, (string?)payload["kind"], (string?)payload["aps"]!["alert"]!["body"]));
        Assert.DoesNotContain("secret", payload.ToJsonString(), StringComparison.Ordinal);
        Assert.DoesNotContain("gardener", payload.ToJsonString(), StringComparison.Ordinal);
        Assert.DoesNotContain("52.5", payload.ToJsonString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_correction_and_a_withdrawal_take_the_place_of_the_alert_without_a_sound()
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var alice = await bed.AliceAsync();
        var (first, second, third) = (bed.NextId(), bed.NextId(), bed.NextId());
        await alice.MessageAsync(bob.Account, "hallo", first);
        await bob.AlertedAsync(first, "background");

        await alice.MessageAsync(bob.Account, "hello", second, extra: $"<replace xmlns='urn:xmpp:message-correct:0' id='{first}'/>");
        await ShownAsync(bob, 2);
        await alice.MessageAsync(
            bob.Account,
            "this client does not know withdrawals",
            third,
            extra: $"<retract xmlns='urn:xmpp:message-retract:1' id='{first}'/><fallback xmlns='urn:xmpp:fallback:0' "
                + "for='urn:xmpp:message-retract:1'/><store xmlns='urn:xmpp:hints'/>"
        );
        await ShownAsync(bob, 3);

        var shown = bob.Notifications.ToList();
        Assert.Single(shown.Select(n => n.Headers["apns-collapse-id"]).Distinct());
        var payloads = shown.Select(n => JsonNode.Parse(n.Payload)!).ToList();
        Assert.Equal(["message", "message", "retracted"], payloads.Select(p => (string?)p["kind"]));
        Assert.Equal(["hallo", "hello", "Message withdrawn"], payloads.Select(p => (string?)p["aps"]!["alert"]!["body"]));
        Assert.Equal(["default", null, null], payloads.Select(p => (string?)p["aps"]!["sound"]));
        Assert.Equal([1, 1, 0], payloads.Select(p => (int)p["aps"]!["badge"]!));
        Assert.Equal([null, "passive", "passive"], payloads.Select(p => (string?)p["aps"]!["interruption-level"]));
    }

    [Fact]
    public async Task A_call_that_its_caller_gives_up_becomes_a_missed_call()
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var alice = await bed.AliceAsync();
        var call = bed.NextId();
        await alice.MessageAsync(bob.Account, null, call, extra: Proposal.Replace("ID", call, StringComparison.Ordinal));
        await ShownAsync(bob, 1);

        await alice.MessageAsync(bob.Account, null, bed.NextId(), extra: $"<retract xmlns='urn:xmpp:jingle-message:0' id='{call}'/>");
        await ShownAsync(bob, 2);

        var shown = bob.Notifications.ToList();
        Assert.Single(shown.Select(n => n.Headers["apns-collapse-id"]).Distinct());
        Assert.Equal(["call", "missed-call"], shown.Select(n => (string?)JsonNode.Parse(n.Payload)!["kind"]));
    }

    private Task ShownAsync(Person bob, int count) =>
        bed.Relay.UntilAsync(() => Task.FromResult(bob.Notifications.Count() == count), $"notification {count} came", Token);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_alert_for_an_invitation_by_the_room(bool withBody)
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var alice = await bed.AliceAsync();
        var room = await RoomAsync(alice);

        await alice.MessageAsync(
            room,
            withBody ? "come in" : null,
            bed.NextId(),
            "normal",
            $"<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{bob.Account}'/></x>"
        );

        await bed.Relay.UntilAsync(
            async () => (await bed.Relay.DeliveriesAsync(bob.Account)).Any(r => (string?)r["state"] == "accepted"),
            "the invitation is alerted",
            Token
        );
        Assert.Equal("invite", (string?)Assert.Single(await bed.Relay.DeliveriesAsync(bob.Account))["event"]!["class"]);
        Assert.Single(bob.Notifications);
    }

    [Theory]
    [InlineData("a word", "")]
    [InlineData("bobby: look", "")]
    [InlineData("look", "<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:BOB'/>")]
    public async Task A_message_of_a_room_alerts_an_occupant_who_sleeps_and_nothing_else_of_the_room_does(string text, string extra)
    {
        await using var bob = await bed.PersonAsync();
        var alice = await bed.AliceAsync();
        var room = await RoomAsync(alice);
        await alice.MessageAsync(room, "before", bed.NextId(), "groupchat");
        var client = await bob.LoginAsync();
        await client.JoinAsync(room, "bobby"); // and gets the history
        await client.MessageAsync(room, "my own words", bed.NextId(), "groupchat");
        await client.ReceiveAsync("my own words");
        await client.EnableSmAsync();
        client.Cut();
        await bob.SessionsAsync("phone hibernating available 0");
        var id = bed.NextId();

        await alice.SendAsync($"<presence to='{room}/alice'><show>away</show></presence>");
        await alice.MessageAsync(room, null, bed.NextId(), "groupchat", "<subject>a subject</subject>");
        await alice.MessageAsync(room, text, id, "groupchat", extra.Replace("BOB", bob.Account, StringComparison.Ordinal));

        var payload = await bob.AlertedAsync(id, "background");
        Assert.Equal(
            (room[..room.IndexOf('@', StringComparison.Ordinal)], $"alice: {text}", "groupchat"),
            ((string?)payload["aps"]!["alert"]!["title"], (string?)payload["aps"]!["alert"]!["body"], (string?)payload["type"])
        );
        await bob.NothingButAsync(alice, id);
    }

    internal async Task<string> RoomAsync(WireClient owner)
    {
        var room = $"r{bed.NextId()}@{XmppServer.Rooms}";
        await owner.JoinAsync(room, "alice");
        return room;
    }

    private static async Task GoAsync(Person person, string where)
    {
        if (where == "hibernating")
        {
            await person.HibernateAsync();
        }
        else if (where == "inactive")
        {
            await (await person.LoginAsync()).CsiAsync("inactive");
            await person.SessionsAsync("phone inactive available 0");
        }
    }
}
