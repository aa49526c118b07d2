using System.Net;
using System.Net.Http.Json;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Push;

namespace PushRelay.Tests.Publishes;

/// <summary>Each registration dialect as its apps speak it, from the form to the publish that its answer makes possible.</summary>
public sealed class DialectTests : PushServiceBed
{
    private readonly string token = TestRelay.NewToken();

    [Fact]
    public async Task Discovery_lists_the_service_its_provider_and_every_command()
    {
        var info = await AskAsync("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
        var items = await AskAsync(
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
        );

        Assert.Superset(
            new HashSet<string>
            {
                "urn:xmpp:push:0",
                "http://jabber.org/protocol/pubsub#publish",
                "http://jabber.org/protocol/pubsub#publish-options",
                "http://jabber.org/protocol/commands",
                "urn:xmpp:ping",
                "jabber:iq:version",
                Provider,
            },
            info.Descendants().Where(e => e.Name.LocalName == "feature").Select(f => (string)f.Attribute("var")!).ToHashSet()
        );
        Assert.Equal(
            [
                "pushrelay:token",
                "pushrelay:tokens",
                "pushrelay:revoke",
                "pushrelay:register",
                "pushrelay:unregister",
                "register-push-apns",
                "unregister-push-apns",
                "register-push-fcm",
                "unregister-push-fcm",
                "list-push-registrations",
                "v1-register-push",
                "v1-unregister-push",
                "register-device",
                "unregister-device",
            ],
            items.Descendants().Where(e => e.Name.LocalName == "item").Select(i => (string?)i.Attribute("node"))
        );
    }

    [Fact]
    public async Task P2_registers_publishes_lists_and_removes()
    {
        var answer = await AskAsync("set", Command("register-push-apns", ("token", token), ("device-id", "dev-1"), ("extra", "x")));

        var fields = Fields(answer);
        Assert.Equal("completed", (string?)answer.Element(Commands + "command")!.Attribute("status"));
        Assert.Equal("form", (string?)answer.Descendants(Data + "x").Single().Attribute("type"));
        var device = Assert.Single(await DevicesAsync());
        Assert.Equal(("dev-1", "phone", "p2", "push.example.com"), (device.Id, device.Resource, device.Dialect, fields["jid"]));
        Assert.Equal("result", Said(await PublishAsync(fields["node"], fields["secret"], Hello)));
        Assert.Equal("cancel/item-not-found", Said(await PublishAsync(fields["node"], null, Hello)));

        // the same device again, with another token: the same node
        var again = Fields(await AskAsync("set", Command("register-push-apns", ("token", TestRelay.NewToken()), ("android-id", "dev-1"))));
        Assert.Equal((fields["node"], fields["secret"]), (again["node"], again["secret"]));
        var listed = await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='list-push-registrations'/>");
        Assert.Contains(fields["node"], listed.ToString(), StringComparison.Ordinal);
        Assert.Equal("result", Said(await AskAsync("set", Command("unregister-push-apns", ("device-id", "dev-1"), ("channel", "c")))));
        Assert.Equal("cancel/item-not-found", Said(await AskAsync("set", Command("unregister-push-apns", ("device-id", "dev-1")))));
        Assert.Empty(await DevicesAsync());
    }

    [Fact]
    public async Task An_old_app_writes_its_token_in_base64()
    {
        var base64 = Convert.ToBase64String(Convert.FromHexString(token));

        await AskAsync("set", Command("register-push-apns", ("token", base64), ("device-id", "d")));

        Assert.Equal(token, Assert.Single(await DevicesAsync()).Address(Relay.MasterKey).Tokens[Channels.Alert]);
    }

    [Fact]
    public async Task The_appserver_dialect_registers_by_command_and_by_its_route()
    {
        var fields = Fields(await AskAsync("set", Command("v1-register-push", ("type", "apns"), ("node", "dev-1"), ("token", token))));
        using var operators = Relay.NewClient();
        using var content = new FormUrlEncodedContent(
            new Dictionary<string, string>
            {
                ["account"] = TestRelay.Bob,
                ["type"] = "apns",
                ["node"] = "dev-1",
                ["token"] = token,
            }
        );
        var answer = await operators.PostAsync("/push_appserver/v1/register", content, Token);

        Assert.Equal($"OK\n{fields["node"]}\n{fields["secret"]}", await answer.Content.ReadAsStringAsync(Token));
        Assert.Equal("result", Said(await PublishAsync(fields["node"], fields["secret"], Hello)));
        Assert.Equal("result", Said(await AskAsync("set", Command("v1-unregister-push", ("node", "dev-1")))));
        Assert.Empty(await DevicesAsync());
    }

    [Fact]
    public async Task The_appserver_route_wants_to_know_who_asks()
    {
        using var nobody = Relay.NewClient(key: null);
        using var content = new FormUrlEncodedContent(
            new Dictionary<string, string>
            {
                ["type"] = "apns",
                ["node"] = "dev-1",
                ["token"] = token,
            }
        );

        Assert.Equal(HttpStatusCode.Unauthorized, (await nobody.PostAsync("/push_appserver/v1/register", content, Token)).StatusCode);
    }

    [Fact]
    public async Task The_Tigase_dialect_registers_without_a_secret_and_removes_by_token()
    {
        var answer = await AskAsync(
            "set",
            "<command xmlns='http://jabber.org/protocol/commands' node='register-device'><x xmlns='jabber:x:data' type='submit'>"
                + $"<field var='provider'><value>{Provider}</value></field>"
                + $"<field var='device-token'><value>{token}</value></field></x></command>"
        );

        var fields = Fields(answer);
        Assert.Equal(("tigase:push:encrypt:0", "3000"), (fields["features"], fields["max-payload-size"]));
        Assert.Equal(
            "text-multi",
            (string?)answer.Descendants(Data + "field").Single(f => (string?)f.Attribute("var") == "features").Attribute("type")
        );
        Assert.NotNull(answer.Descendants(Data + "x").Single().Attribute("type"));
        Assert.Equal("result", Said(await PublishAsync(fields["node"], null, Hello)));
        Assert.Equal("cancel/item-not-found", Said(await PublishAsync(fields["node"], "wrong", Hello)));
        Assert.Equal("result", Said(await AskAsync("set", Command("unregister-device", ("provider", Provider), ("device-token", token)))));
        Assert.Equal("cancel/item-not-found", Said(await PublishAsync(fields["node"], null, Hello)));
    }

    [Theory]
    [InlineData("/unregister-device/push.example.com")]
    [InlineData("/rest/push/unregister-device/push.example.com")]
    public async Task A_Tigase_app_that_cannot_log_in_removes_its_device_over_HTTP(string path)
    {
        await AskAsync("set", Command("register-device", ("provider", Provider), ("device-token", token)));
        using var nobody = Relay.NewClient(key: null);

        var wrong = await nobody.PostAsJsonAsync(path, Body(TestRelay.NewToken()), Token);
        var right = await nobody.PostAsJsonAsync(path, Body(token), Token);

        Assert.Equal(HttpStatusCode.NotFound, wrong.StatusCode);
        Assert.Equal("""{"result":"success"}""", await right.Content.ReadAsStringAsync(Token));
        Assert.Empty(await DevicesAsync());

        static Dictionary<string, string> Body(string token) =>
            new()
            {
                ["account"] = TestRelay.Bob,
                ["provider"] = Provider,
                ["device-token"] = token,
            };
    }

    [Fact]
    public async Task An_app_registers_without_HTTP()
    {
        var fields = Fields(
            await AskAsync(
                "set",
                Command("pushrelay:register", ("app", TestRelay.App), ("platform", "apns"), ("token", token), ("locale", "de"))
            )
        );

        var device = Assert.Single(await DevicesAsync());
        Assert.Equal(("de", "phone", fields["node"]), (device.Locale, device.Resource, device.Node));
        Assert.Equal(("push.example.com", "result"), (fields["jid"], Said(await PublishAsync(fields["node"], fields["secret"], Hello))));
        Assert.Equal(
            "cancel/item-not-found",
            Said(await AskAsync("set", Command("pushrelay:unregister", ("node", fields["node"])), "alice@example.com/x"))
        );
        Assert.Equal("result", Said(await AskAsync("set", Command("pushrelay:unregister", ("token", token), ("app", TestRelay.App)))));
        var actions = Relay.NewDb().Set<AuditRecord>().Where(r => r.Account == TestRelay.Bob).Select(r => r.Action).ToList();
        Assert.Equal([AuditActions.DeviceRegistered, AuditActions.DeviceRemoved], actions);
    }

    [Theory]
    [InlineData("pushrelay:register", "app")]
    [InlineData("register-push-apns", "token")]
    [InlineData("v1-register-push", "type")]
    [InlineData("register-device", "provider")]
    public async Task A_person_gets_the_form_first_and_an_error_that_names_the_field(string node, string field)
    {
        var form = await AskAsync("set", $"<command xmlns='http://jabber.org/protocol/commands' node='{node}'/>");
        var session = (string?)form.Element(Commands + "command")!.Attribute("sessionid");
        var answer = await AskAsync(
            "set",
            $"<command xmlns='http://jabber.org/protocol/commands' node='{node}' sessionid='{session}' action='complete'>"
                + "<x xmlns='jabber:x:data' type='submit'/></command>"
        );

        Assert.Equal("executing", (string?)form.Element(Commands + "command")!.Attribute("status"));
        Assert.Equal(field, (string?)form.Descendants(Data + "field").First().Attribute("var"));
        Assert.NotNull(form.Descendants(Data + "field").First().Element(Data + "required"));
        Assert.Equal("modify/bad-request", Said(answer));
        Assert.Contains($"{field} is missing", answer.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("register-push-apns", "modify/bad-request", "token=zz", "device-id=d")]
    [InlineData("register-push-fcm", "cancel/item-not-found", "token=zz", "device-id=d")]
    [InlineData("register-push-apns", "cancel/feature-not-implemented", "token=$T", "device-id=d", "muc=room@conference.example.com")]
    [InlineData("register-device", "cancel/item-not-found", "provider=unknown", "device-token=$T")]
    [InlineData("v1-register-push", "cancel/item-not-found", "type=pigeon", "node=d", "token=$T")]
    [InlineData("pushrelay:register", "cancel/item-not-found", "app=unknown", "platform=apns", "token=$T")]
    [InlineData("pushrelay:unregister", "modify/bad-request", "token=$T")]
    public async Task A_form_that_cannot_be_used_is_refused(string node, string said, params string[] fields)
    {
        var form = fields.Select(f => f.Split('=')).Select(f => (f[0], f[1].Replace("$T", token, StringComparison.Ordinal))).ToArray();

        Assert.Equal(said, Said(await AskAsync("set", Command(node, form))));
        Assert.Empty(await DevicesAsync());
    }

    private static string Hello => Notification(Summary(("last-message-body", "hello")));

    private Task<IReadOnlyList<Device>> DevicesAsync() => Relay.Devices.ListAsync(TestRelay.Bob, null, 10, Token);
}

/// <summary>Only the dialects that the settings name are there.</summary>
public sealed class DialectSettingTests : PushServiceBed
{
    protected override string[] Settings => ["--Xmpp:Dialects:0=p2"];

    [Fact]
    public async Task Other_commands_and_routes_are_not_there()
    {
        var items = await AskAsync(
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
        );
        using var client = Relay.NewClient();
        using var content = new FormUrlEncodedContent([]);

        Assert.All(
            items.Descendants().Where(e => e.Name.LocalName == "item"),
            item => Assert.EndsWith("(p2)", (string?)item.Attribute("name"), StringComparison.Ordinal)
        );
        Assert.Equal("cancel/item-not-found", Said(await AskAsync("set", Command("register-device", ("provider", Provider)))));
        Assert.Equal(HttpStatusCode.NotFound, (await client.PostAsync("/push_appserver/v1/register", content, Token)).StatusCode);
    }
}
