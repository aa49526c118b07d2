using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apns.Simulator;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Tests.Publishes;

/// <summary>What a publish (XEP-0357) is answered, and what the phone gets of it, for the forms that servers write.</summary>
public sealed class PublishTests : PushServiceBed
{
    private const string Iv = "MTIzNDU2Nzg5MDEy";
    private const string Secret = "cGF5bG9hZCB0aGF0IG5vYm9keSBoZXJlIHJlYWRz";

    /// <summary>Children of the notification; class, state and reason of the row; the alert's title and body, or its kind.</summary>
    public static TheoryData<string, string, string, string, string> Shapes =>
        new()
        {
            {
                "ejabberd with body and sender",
                Summary(("last-message-sender", "alice@localhost/a"), ("last-message-body", "hello")),
                "text",
                "alice@localhost",
                "hello"
            },
            { "ejabberd's static text", Summary(("last-message-body", "New message")), "text", "", "New message" },
            {
                "Prosody's static text, with its sender",
                Summary(("message-count", "1"), ("last-message-sender", "alice@localhost/a"), ("last-message-body", "New Message!")),
                "text",
                "alice@localhost",
                "New message"
            },
            {
                "Openfire: an empty sender",
                Summary(("message-count", "1"), ("last-message-sender", ""), ("last-message-body", "hi")),
                "text",
                "",
                "hi"
            },
            {
                "ejabberd, encrypted",
                Summary(("last-message-sender", "alice@localhost/a"), ("last-message-body", "(encrypted)")),
                "encrypted",
                "alice@localhost",
                "Encrypted message"
            },
            {
                "Tigase, encrypted text",
                Summary(
                    ("last-message-sender", "alice@localhost/a"),
                    ("last-message-body", "New secure message. Open to see the message.")
                ),
                "encrypted",
                "alice@localhost",
                "Encrypted message"
            },
            {
                "Tigase, a room",
                Summary(("last-message-sender", "room@muc.localhost/ann"), ("last-message-body", "hi all"))
                    + "<groupchat xmlns='http://tigase.org/protocol/muc#offline'><nickname>ann</nickname></groupchat>",
                "text",
                "room",
                "ann: hi all"
            },
            { "high priority without text", "<priority xmlns='tigase:push:priority:0'>high</priority>", "text", "", "New message" },
            {
                "a call",
                Summary(("last-message-sender", "alice@localhost/a")) + "<jingle xmlns='tigase:push:jingle:0' action='propose' sid='c1'/>",
                "call",
                "alice@localhost",
                "Incoming call"
            },
            {
                "fields in another order, unknown ones, unknown elements",
                "<x xmlns='jabber:x:data'><field var='odd'/><field var='last-message-body' type='text-single'><value>ok</value></field>"
                    + "<field var='last-message-sender'><value>alice@localhost</value></field></x><unknown xmlns='urn:x'/>",
                "text",
                "alice@localhost",
                "ok"
            },
        };

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task A_publish_with_something_to_tell_is_an_alert(
        string name,
        string notification,
        string @class,
        string title,
        string body
    )
    {
        Assert.NotEmpty(name);
        var push = await RegisterAsync();

        var answer = await PublishAsync(push.Node, push.Secret, Notification(notification));

        Assert.Equal("result", Said(answer));
        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]));
        Assert.Equal((EventSource.Xep0357, @class), (row.Source, Names.Of(row.Class)));
        Assert.Equal("published", row.Reason);
        var alert = Payload(Assert.Single(Apple.Received))["aps"]!["alert"]!.AsObject();
        Assert.Equal((title, body), ((string?)alert["title"] ?? "", (string?)alert["body"]));
    }

    [Fact]
    public async Task The_form_may_stand_beside_the_notification_as_Prosody_wrote_it_before_2021()
    {
        var push = await RegisterAsync();

        var answer = await PublishAsync(push.Node, push.Secret, Notification("") + Summary(("last-message-body", "old")));

        Assert.Equal("result", Said(answer));
        await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]);
        Assert.Equal("old", (string?)Payload(Apple.Received[0])["aps"]!["alert"]!["body"]);
    }

    [Fact]
    public async Task What_a_server_encrypts_is_passed_on_and_not_opened()
    {
        var push = await RegisterTigaseAsync();

        await PublishAsync(
            push["node"],
            null,
            Notification(
                "<priority xmlns='tigase:push:priority:0'>high</priority>"
                    + $"<encrypted xmlns='tigase:push:encrypt:0' iv='{Iv}'>{Secret}</encrypted>"
            )
        );

        await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]);
        var payload = Payload(Assert.Single(Apple.Received));
        Assert.Equal((TestRelay.Bob, Secret, Iv), ((string?)payload["account"], (string?)payload["encrypted"], (string?)payload["iv"]));
        Assert.Equal(1, (int?)payload["aps"]!["mutable-content"]);
        Assert.NotNull(payload["aps"]!["alert"]);
    }

    [Theory]
    [InlineData("high", "voip")]
    [InlineData("low", "background")]
    public async Task An_encrypted_call_rings_only_where_it_is_urgent(string priority, string pushType)
    {
        var push = await RegisterTigaseAsync(("device-second-token", TestRelay.NewToken()));

        await PublishAsync(
            push["node"],
            null,
            Notification(
                $"<priority xmlns='tigase:push:priority:0'>{priority}</priority>"
                    + $"<encrypted xmlns='tigase:push:encrypt:0' type='voip' iv='{Iv}'>{Secret}</encrypted>"
            )
        );

        await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]);
        var request = Assert.Single(Apple.Received);
        Assert.Equal(pushType, request.Headers["apns-push-type"]);
        Assert.Equal(Secret, (string?)Payload(request)["encrypted"]);
    }

    [Fact]
    public async Task A_Tigase_app_reads_its_own_members_of_a_plain_alert()
    {
        var push = await RegisterTigaseAsync();

        await PublishAsync(
            push["node"],
            null,
            Notification(Summary(("message-count", "3"), ("last-message-sender", "alice@example.com/a"), ("last-message-body", "hello")))
        );

        await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]);
        var payload = Payload(Assert.Single(Apple.Received));
        Assert.Equal(
            ("alice@example.com", "hello", 3, 3),
            ((string?)payload["sender"], (string?)payload["body"], (int?)payload["unread-messages"], (int?)payload["aps"]!["badge"])
        );
    }

    [Fact]
    public async Task A_publish_without_text_wakes_the_app_once_in_an_interval()
    {
        var push = await RegisterAsync();
        for (var i = 0; i < 20; i++)
        {
            Assert.Equal("result", Said(await PublishAsync(push.Node, push.Secret, "<notification xmlns='urn:xmpp:push:0'/>")));
        }

        var rows = await Relay.WaitForRowsAsync(all => all.Exists(r => r.State == DeliveryState.Accepted));
        Assert.Equal(2, rows.Count);
        var request = Assert.Single(Apple.Received);
        Assert.Equal(("background", "5"), (request.Headers["apns-push-type"], request.Headers["apns-priority"]));
        var payload = Payload(request);
        Assert.Equal(("wakeup", TestRelay.Bob), ((string?)payload["kind"], (string?)payload["account"]));
        Assert.Equal(1, (int?)payload["aps"]!["content-available"]);
        Assert.Null(payload["aps"]!["badge"]);
        Relay.Advance(TimeSpan.FromMinutes(20));
        await Relay.WaitForRowsAsync(all => all.TrueForAll(r => r.State == DeliveryState.Accepted));
        Assert.Equal(2, Apple.Received.Count);
    }

    [Fact]
    public async Task No_message_is_unread_any_more_and_the_badge_goes()
    {
        var push = await RegisterAsync();

        await PublishAsync(push.Node, push.Secret, Notification(Summary(("message-count", "0"))));

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]));
        Assert.Equal(EventClass.Badge, row.Class);
        Assert.Equal(0, (int?)Payload(Assert.Single(Apple.Received))["aps"]!["badge"]);
    }

    [Theory]
    [InlineData("an unknown node", "0123456789abcdef0123456789abcdef", "$SECRET", "example.com")]
    [InlineData("a wrong secret", "$NODE", "wrong", "example.com")]
    [InlineData("no secret", "$NODE", null, "example.com")]
    [InlineData("a server that is not configured", "$NODE", "$SECRET", "elsewhere.example")]
    [InlineData("another account", "$NODE", "$SECRET", "alice@example.com")]
    [InlineData("a node over every bound", "$LONG", "$SECRET", "example.com")]
    public async Task What_is_not_ours_is_refused_alike(string name, string node, string? secret, string from)
    {
        Assert.NotEmpty(name);
        var push = await RegisterAsync();

        var answer = await PublishAsync(
            node.Replace("$NODE", push.Node, StringComparison.Ordinal).Replace("$LONG", new string('n', 5000), StringComparison.Ordinal),
            secret?.Replace("$SECRET", push.Secret, StringComparison.Ordinal),
            Notification(Summary(("last-message-body", "hello"))),
            from
        );

        Assert.Equal("cancel/item-not-found", Said(answer));
        Assert.Empty(await Relay.AllRowsAsync());
    }

    [Theory]
    [InlineData("example.com")]
    [InlineData("bob@example.com")]
    public async Task A_server_or_the_account_itself_may_publish(string from)
    {
        var push = await RegisterAsync();

        Assert.Equal("result", Said(await PublishAsync(push.Node, push.Secret, Notification(Summary(("last-message-body", "hi"))), from)));
    }

    [Theory]
    [InlineData("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish/></pubsub>")]
    [InlineData("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'/></pubsub>")]
    [InlineData("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item/></publish></pubsub>")]
    [InlineData(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node=''><item><notification xmlns='urn:xmpp:push:0'/></item>"
            + "</publish></pubsub>"
    )]
    public async Task What_is_malformed_ends_no_registration(string child) =>
        Assert.Equal("wait/bad-request", Said(await AskAsync("set", child, "example.com")));

    [Fact]
    public async Task A_device_that_is_invalid_is_refused_and_a_new_registration_heals_it()
    {
        var device = await Relay.RegisterAsync(TestRelay.Bob);
        var push = Relay.Get<DeviceQueries>().PushOf(device);
        await Relay.Devices.InvalidateAsync(device, "BadDeviceToken", null, Token);

        Assert.Equal(
            "cancel/item-not-found",
            Said(await PublishAsync(push.Node, push.Secret, Notification(Summary(("last-message-body", "hi")))))
        );
    }

    [Fact]
    public async Task The_order_of_publishes_is_kept()
    {
        var push = await RegisterAsync();
        string last = "";
        for (var i = 0; i < 50; i++)
        {
            var body = FormattableString.Invariant($"m{i}");
            last = await SendAsync(
                "set",
                Publish(
                    push.Node,
                    push.Secret,
                    Notification(Summary(("last-message-sender", "alice@example.com"), ("last-message-body", body)))
                ),
                "example.com"
            );
        }

        await AnswerAsync(last);

        // those that wait are looked for when the window ends: by then the first is through
        await Relay.WaitForRowsAsync(rows => rows.Exists(r => r.State == DeliveryState.Accepted));
        Relay.Advance(TimeSpan.FromSeconds(3));
        await Relay.WaitForRowsAsync(rows =>
            rows.Count == 50 && rows.TrueForAll(r => r.State is DeliveryState.Accepted or DeliveryState.Coalesced)
        );
        Assert.Equal("m49", (string?)Payload(Apple.Received[^1])["aps"]!["alert"]!["body"]);
    }

    [Theory]
    [InlineData("high", "text")]
    [InlineData("normal", "text")]
    [InlineData("low", "wakeup")]
    public async Task A_push2_notification_is_taken_without_an_answer(string priority, string @class)
    {
        var push = await RegisterAsync();

        await Link.WriteAsync(
            "<message from='example.com' to='push.example.com' id='p1'><notification xmlns='urn:xmpp:push2:0'>"
                + $"<client>{push.Node}</client><priority>{priority}</priority></notification></message>"
        );

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]));
        Assert.Equal(@class, Names.Of(row.Class));
    }

    [Fact]
    public async Task An_unknown_push2_client_gets_an_error_that_ends_it()
    {
        await Link.WriteAsync(
            "<message from='example.com' to='push.example.com' id='p1'><notification xmlns='urn:xmpp:push2:0'>"
                + "<client>nobody</client><priority>high</priority></notification></message>"
        );

        var answer = Xmpp.ParserDriver.Stanza(await Link.ReadToAsync("</message>"));
        Assert.Equal(("p1", "cancel/item-not-found"), ((string?)answer.Attribute("id"), Said(answer)));
    }

    private async Task<DevicePush> RegisterAsync() => Relay.Get<DeviceQueries>().PushOf(await Relay.RegisterAsync(TestRelay.Bob));

    private async Task<Dictionary<string, string>> RegisterTigaseAsync(params (string, string)[] more) =>
        Fields(
            await AskAsync("set", Command("register-device", [("provider", Provider), ("device-token", TestRelay.NewToken()), .. more]))
        );

    private static JsonObject Payload(ReceivedNotification request) => JsonNode.Parse(request.Payload)!.AsObject();
}

/// <summary>Where a server has our module too, a message is alerted once.</summary>
public sealed class PublishBesideModuleTests : PushServiceBed
{
    private const string Bridge = "urn:pushrelay:bridge:1";

    protected override bool HasModule => true;

    [Fact]
    public async Task A_publish_counts_only_while_the_module_is_silent()
    {
        var push = Relay.Get<DeviceQueries>().PushOf(await Relay.RegisterAsync(TestRelay.Bob));
        var request = Xmpp.ParserDriver.Stanza(await Link.ReadToAsync("</iq>"));
        var hello = Publish(push.Node, push.Secret, Notification(Summary(("last-message-body", "hello"))));

        // the module's answer is outstanding: the publish waits for it
        var early = await SendAsync("set", hello, "example.com");
        await Link.WriteAsync(
            $"<iq type='result' id='{(string?)request.Attribute("id")}' from='example.com' to='push.example.com'>"
                + $"<snapshot xmlns='{Bridge}' epoch='0123456789abcdef' seq='0' dropped='0' server='Test' module='1.0.0'/></iq>"
        );
        await TestRelay.UntilAsync(() => Task.FromResult(Coverage() == BridgeCoverage.Live), () => $"{Coverage()}");
        Relay.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal("result", Said(await AnswerAsync(early)));
        Assert.Equal("result", Said(await AskAsync("set", hello, "example.com")));
        Assert.Empty(await Relay.AllRowsAsync());

        // unloaded: publishes are all there is
        await Link.WriteAsync(
            $"<message from='example.com' to='push.example.com'><events xmlns='{Bridge}' epoch='0123456789abcdef' seq='1'>"
                + "<end/></events></message>"
        );
        await TestRelay.UntilAsync(() => Task.FromResult(Coverage() == BridgeCoverage.None), () => $"{Coverage()}");
        var late = await SendAsync("set", hello, "example.com");
        Assert.Equal("result", Said(await AnswerAsync(late)));
        Assert.Equal(Reasons.Published, Assert.Single(await Relay.AllRowsAsync()).Reason);
    }

    [Fact]
    public async Task A_module_that_answers_nothing_is_waited_for_five_seconds_once()
    {
        var push = Relay.Get<DeviceQueries>().PushOf(await Relay.RegisterAsync(TestRelay.Bob));
        await Link.ReadToAsync("</iq>");
        var early = await SendAsync("set", Publish(push.Node, push.Secret, Notification("")), "example.com");
        for (var i = 0; i < 12; i++)
        {
            Relay.Advance(TimeSpan.FromMilliseconds(500));
        }

        await TestRelay.UntilAsync(
            () =>
            {
                Relay.Advance(TimeSpan.FromMilliseconds(100));
                return Task.FromResult(Relay.AllRowsAsync().Result.Count == 1);
            },
            () => "no row"
        );
        Assert.Equal("result", Said(await AnswerAsync(early)));
    }
}

/// <summary>The database is away: no server ends a registration for it.</summary>
public sealed class PublishOutageTests : PushServiceBed
{
    [Fact]
    public async Task A_publish_that_cannot_be_stored_is_to_be_repeated()
    {
        var push = Relay.Get<DeviceQueries>().PushOf(await Relay.RegisterAsync(TestRelay.Bob));
        var hello = Notification(Summary(("last-message-body", "hello")));
        await using (var db = Relay.NewDb())
        {
            await db.Database.ExecuteSqlRawAsync("ALTER TABLE devices RENAME TO away", Token);
        }

        Assert.Equal("wait/internal-server-error", Said(await PublishAsync(push.Node, push.Secret, hello)));
        Assert.Equal("wait/internal-server-error", Said(await PublishAsync("unknown", "x", hello)));
        await using (var db = Relay.NewDb())
        {
            await db.Database.ExecuteSqlRawAsync("ALTER TABLE away RENAME TO devices", Token);
        }

        Assert.Equal("result", Said(await PublishAsync(push.Node, push.Secret, hello)));
    }
}

/// <summary>Setting <c>Alert:Wakeups</c>.</summary>
public abstract class WakeupTests(string wakeups, string? kind) : PushServiceBed
{
    protected override string[] Settings => [$"--Apps:0:Alert:Wakeups={wakeups}"];

    [Fact]
    public async Task A_publish_without_text_becomes_what_the_setting_says()
    {
        var push = Relay.Get<DeviceQueries>().PushOf(await Relay.RegisterAsync(TestRelay.Bob));

        await PublishAsync(push.Node, push.Secret, Notification(""));

        if (kind is null)
        {
            var row = Assert.Single(await Relay.AllRowsAsync());
            Assert.Equal((DeliveryState.Suppressed, "wakeups_off"), (row.State, row.Reason));
            return;
        }

        await Relay.WaitForRowsAsync(rows => rows is [{ State: DeliveryState.Accepted }]);
        var request = Assert.Single(Apple.Received);
        var aps = JsonNode.Parse(request.Payload)!["aps"]!;
        Assert.Equal(
            (kind, "New message", 1),
            (request.Headers["apns-push-type"], (string?)aps["alert"]!["body"], (int?)aps["mutable-content"])
        );
    }
}

public sealed class WakeupAsAlertTests() : WakeupTests("Alert", "alert");

public sealed class WakeupOffTests() : WakeupTests("None", null);
