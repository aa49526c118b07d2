using System.Globalization;
using System.Xml.Linq;
using PushRelay.Access;
using PushRelay.Audit;
using PushRelay.Commands;
using PushRelay.Tests.Xmpp;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Commands;

/// <summary>The component's discovery and commands over a real socket, with a server that stamps whatever sender a test wants.</summary>
public sealed class CommandTests : IAsyncLifetime
{
    private static readonly XNamespace Commands = "http://jabber.org/protocol/commands";
    private static readonly XNamespace Data = "jabber:x:data";

    private ScriptedServer server = null!;
    private TestRelay relay = null!;
    private ScriptedLink link = null!;
    private int ids;
    private string heard = "";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        server = new ScriptedServer();
        relay = await TestRelay.OpenAsync(
            null,
            $"--Xmpp:Components:0:Port={server.Port.ToString(CultureInfo.InvariantCulture)}",
            "--Api:PublicUrl=https://push.example.com"
        );
        await relay.ServeAsync();
        link = await server.AcceptComponentAsync("secret");
    }

    public async ValueTask DisposeAsync()
    {
        link.Dispose();
        server.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task The_component_says_what_it_is_and_which_commands_there_are()
    {
        var info = await AskAsync("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
        var items = await AskAsync(
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
        );
        var command = await AskAsync("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='pushrelay:token'/>");

        XNamespace space = "http://jabber.org/protocol/disco#info";
        var identity = info.Descendants(space + "identity").Single();
        Assert.Equal(("pubsub", "push"), ((string)identity.Attribute("category")!, (string)identity.Attribute("type")!));
        Assert.Superset(
            new HashSet<string> { "urn:xmpp:push:0", "http://jabber.org/protocol/commands", "urn:xmpp:ping" },
            info.Descendants(space + "feature").Select(f => (string)f.Attribute("var")!).ToHashSet()
        );
        Assert.Superset(
            new HashSet<string>
            {
                "push.example.com pushrelay:token",
                "push.example.com pushrelay:tokens",
                "push.example.com pushrelay:revoke",
            },
            items
                .Descendants()
                .Where(e => e.Name.LocalName == "item")
                .Select(i => $"{(string?)i.Attribute("jid")} {(string?)i.Attribute("node")}")
                .ToHashSet()
        );
        Assert.Equal("command-node", (string?)command.Descendants(space + "identity").Single().Attribute("type"));
        Assert.Equal(
            "item-not-found",
            Condition(await AskAsync("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='unknown'/>"))
        );
        Assert.Equal("result", (string?)(await AskAsync("get", "<query xmlns='jabber:iq:version'/>")).Attribute("type"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("action='execute'")]
    [InlineData("action='complete'")]
    public async Task An_account_gets_a_token_that_the_REST_interface_takes(string action)
    {
        var answer = await AskAsync(
            "set",
            $"<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:token' {action}/>",
            "Bob@Example.com/phone"
        );

        var command = answer.Element(Commands + "command")!;
        Assert.Equal(("pushrelay:token", "completed"), ((string?)command.Attribute("node"), (string?)command.Attribute("status")));
        Assert.NotNull(command.Attribute("sessionid"));
        var fields = Fields(command);
        Assert.Equal("https://push.example.com", fields["api"]);
        Assert.Equal(
            DateTimeOffset.Parse(fields["expires"], CultureInfo.InvariantCulture),
            relay.Clock.GetUtcNow() + TimeSpan.FromDays(90)
        );
        Assert.Equal(TestRelay.Bob, (await relay.Get<AccountTokens>().FindAsync(fields["token"], Token))!.Account);
        using var client = relay.NewClient(fields["token"]);
        Assert.True((await client.GetAsync("/v1/devices", Token)).IsSuccessStatusCode);
    }

    [Theory]
    [InlineData("bob@elsewhere.example/phone")]
    [InlineData("example.com")]
    [InlineData("room@conference.example.com/bob")]
    [InlineData("push2.example.com/x")]
    public async Task Who_is_no_account_of_a_configured_server_gets_nothing(string from)
    {
        var answer = await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:token'/>", from);

        Assert.Equal("forbidden", Condition(answer));
        Assert.Empty(await relay.Get<AccountTokens>().ListAsync(null, null, 10, Token));
    }

    [Fact]
    public async Task Tokens_are_listed_and_revoked_by_their_own_account_only()
    {
        var kept = (await relay.IssueTokenAsync(TestRelay.Bob)).Kept;
        var listed = await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:tokens'/>");
        Assert.Equal(kept.Id.ToString(), (string?)listed.Descendants(Data + "item").Single().Descendants(Data + "value").First());

        var form = (await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:revoke'/>")).Element(
            Commands + "command"
        )!;
        Assert.Equal("executing", (string?)form.Attribute("status"));
        Assert.Equal(kept.Id.ToString(), (string?)form.Descendants(Data + "option").Single().Element(Data + "value"));
        Assert.Equal("item-not-found", Condition(await AskAsync("set", Revoke(kept.Id, null), "alice@example.com/x")));
        Assert.Equal(
            "bad-request",
            Condition(await AskAsync("set", Revoke(kept.Id, (string)form.Attribute("sessionid")!), "alice@example.com/x"))
        );
        Assert.NotNull(await Find(kept));

        var done = await AskAsync("set", Revoke(kept.Id, (string)form.Attribute("sessionid")!));

        Assert.Equal("completed", (string?)done.Element(Commands + "command")!.Attribute("status"));
        Assert.Null(await Find(kept));
        Assert.Equal("item-not-found", Condition(await AskAsync("set", Revoke(kept.Id, (string)form.Attribute("sessionid")!))));

        async Task<AccountToken?> Find(AccountToken token) =>
            (await relay.Get<AccountTokens>().ListAsync(TestRelay.Bob, null, 10, Token)).SingleOrDefault(t => t.Id == token.Id);
    }

    [Fact]
    public async Task Sessions_are_nobody_elses_end_and_can_be_cancelled()
    {
        var session = (string)
            (await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:revoke'/>"))
                .Element(Commands + "command")!
                .Attribute("sessionid")!;
        string Command(string attributes) => $"<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:revoke' {attributes}/>";

        var cancelled = await AskAsync("set", Command($"action='cancel' sessionid='{session}'"));
        Assert.Equal("canceled", (string?)cancelled.Element(Commands + "command")!.Attribute("status"));
        Assert.Contains("bad-action", (await AskAsync("set", Command("action='explode'"))).ToString(), StringComparison.Ordinal);
        Assert.Contains("bad-sessionid", (await AskAsync("set", Command("sessionid='made-up'"))).ToString(), StringComparison.Ordinal);
        Assert.Contains("bad-sessionid", (await AskAsync("set", Command("action='cancel'"))).ToString(), StringComparison.Ordinal);
        relay.Clock.Advance(TimeSpan.FromMinutes(11));
        Assert.Contains("session-expired", (await AskAsync("set", Command($"sessionid='{session}'"))).ToString(), StringComparison.Ordinal);
        Assert.Equal(
            "item-not-found",
            Condition(await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='unknown'/>"))
        );
    }

    [Fact]
    public async Task Who_asks_for_tokens_too_often_is_told_to_wait()
    {
        var conditions = new List<string?>();
        for (var i = 0; i < 7; i++)
        {
            conditions.Add(
                Condition(await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:token'/>"))
            );
        }

        Assert.Equal([null, null, null, null, null, "policy-violation", "policy-violation"], conditions);
    }

    [Fact]
    public async Task Who_is_refused_stands_in_the_audit_once_a_minute_for_an_account_or_a_strangers_server()
    {
        const string Issue = "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:token'/>";
        await AskAsync("set", Issue, "mallory@elsewhere.example/x");
        await AskAsync("set", Issue, "eve@elsewhere.example/x");
        await AskAsync("set", Revoke(Guid.NewGuid(), null), "alice@example.com/x");
        await AskAsync("set", "<command xmlns='http://jabber.org/protocol/commands' node='made up by a peer'/>", "carol@example.com/x");
        await AskAsync(
            "set",
            "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:tokens' sessionid='1-AAAA'/>",
            "dan@example.com/x"
        );
        for (var i = 0; i < 7; i++)
        {
            await AskAsync("set", Issue);
        }

        var records = await relay.Get<AuditTrail>().ListAsync(null, null, 200, Token);

        Assert.Equal(
            [
                ("elsewhere.example", null, "pushrelay:token", "forbidden"),
                ("alice@example.com", "alice@example.com", "pushrelay:revoke", "item-not-found"),
                ("carol@example.com", "carol@example.com", null, "item-not-found"),
                ("dan@example.com", "dan@example.com", "pushrelay:tokens", "bad-sessionid"),
                (TestRelay.Bob, TestRelay.Bob, "pushrelay:token", "policy-violation"),
            ],
            records.Reverse().Where(r => r.Action == "command.refused").Select(r => (r.Address, r.Account, r.Target, r.Result))
        );
        Assert.Equal(5, records.Count(r => r.Action == AuditActions.TokenIssued));
    }

    [Theory]
    [InlineData("64 a ping", "get", "<ping xmlns='urn:xmpp:ping'/>", null)]
    [InlineData("64 disco", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", null)]
    [InlineData("64 an unknown node", "get", "<query xmlns='http://jabber.org/protocol/disco#items' node='none'/>", "item-not-found")]
    [InlineData("64 a version", "get", "<query xmlns='jabber:iq:version'/>", null)]
    [InlineData("64 unknown", "set", "<made xmlns='up'/>", "service-unavailable")]
    [InlineData("64 a bridge's word", "get", "<snapshot xmlns='urn:pushrelay:bridge:1'/>", "service-unavailable")]
    [InlineData("67 a command", "set", "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:tokens'/>", null)]
    [InlineData("67 an unknown command", "set", "<command xmlns='http://jabber.org/protocol/commands' node='none'/>", "item-not-found")]
    public async Task Of_a_flood_of_one_account_some_are_answered_as_many_refused_and_the_rest_passed_over(
        string line,
        string type,
        string child,
        string? first
    )
    {
        Assert.NotEmpty(line);
        var answers = new List<(string?, string?)>();
        for (var i = 0; i < 100; i++)
        {
            var answer = await AskAsync(type, child, $"bob@example.com/{i}");
            answers.Add(
                (Condition(answer), (string?)answer.Elements().FirstOrDefault(e => e.Name.LocalName == "error")?.Attribute("type"))
            );
        }

        Assert.All(answers.Take(50), answer => Assert.Equal(first, answer.Item1));
        Assert.All(answers.Skip(50), answer => Assert.Equal(("resource-constraint", "wait"), answer));
        for (var i = 0; i < 100; i++)
        {
            await link.WriteAsync($"<iq type='{type}' id='in vain' from='bob@example.com/phone' to='push.example.com'>{child}</iq>");
        }

        // nothing else came before it
        Assert.Equal(first, Condition(await AskAsync(type, child, "alice@example.com/x")));
        Assert.DoesNotContain("in vain", heard, StringComparison.Ordinal);
        relay.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(first, Condition(await AskAsync(type, child)));
    }

    [Fact]
    public async Task Strangers_of_one_server_share_what_one_account_has()
    {
        for (var i = 0; i < 50; i++)
        {
            Assert.Equal("service-unavailable", Condition(await AskAsync("get", "<made xmlns='up'/>", $"made-up-{i}@elsewhere.example/x")));
        }

        Assert.Equal("resource-constraint", Condition(await AskAsync("get", "<made xmlns='up'/>", "another@elsewhere.example/x")));
        Assert.Equal("service-unavailable", Condition(await AskAsync("get", "<made xmlns='up'/>", "alice@example.com/x")));
        Assert.Equal("service-unavailable", Condition(await AskAsync("get", "<made xmlns='up'/>", "bob@other.example/x")));
    }

    [Fact]
    public async Task A_field_that_is_wrong_is_named()
    {
        var answer = await AskAsync(
            "set",
            "<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:revoke'><x xmlns='jabber:x:data' type='submit'>"
                + "<field var='id'><value>the first one</value></field></x></command>"
        );

        Assert.Equal("bad-request", Condition(answer));
        Assert.Single(answer.Descendants(Commands + "bad-payload"));
        Assert.StartsWith("id must be", (string)answer.Descendants(XmppStanza.StanzaErrors + "text").Single(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("<x xmlns='jabber:x:data' type='submit'><field var='to'><value>a</value><value>b</value></field></x>", "a b")]
    [InlineData("<x xmlns='jabber:x:data'><field var='to'><value>a</value></field><field var='to'><value>b</value></field></x>", "a")]
    [InlineData("<x xmlns='jabber:x:data' type='submit'><field var='to'><value/></field></x>", "")]
    [InlineData("<x xmlns='jabber:x:data' type='submit'><field var='to'/></x>", null)]
    [InlineData("<x xmlns='jabber:x:data' type='submit'/>", null)]
    [InlineData("<x xmlns='jabber:x:data' type='cancel'><field var='to'><value>a</value></field></x>", null)]
    public void A_submitted_form_has_the_values_of_its_fields(string form, string? expected)
    {
        var read = SubmittedForm.Of(XElement.Parse($"<command xmlns='http://jabber.org/protocol/commands'>{form}</command>"));

        Assert.Equal(expected, read?.Values("to") is { Count: > 0 } values ? string.Join(' ', values) : null);
    }

    private static string Revoke(Guid id, string? session) =>
        $"<command xmlns='http://jabber.org/protocol/commands' node='pushrelay:revoke' "
        + $"{(session is null ? "" : $"sessionid='{session}'")}><x xmlns='jabber:x:data' type='submit'><field "
        + $"var='id'><value>{id}</value></field></x></command>";

    private static Dictionary<string, string> Fields(XElement command) =>
        command
            .Element(Data + "x")!
            .Elements(Data + "field")
            .ToDictionary(f => (string)f.Attribute("var")!, f => (string)f.Element(Data + "value")!);

    private static string? Condition(XElement iq) =>
        iq.Elements().FirstOrDefault(e => e.Name.LocalName == "error")?.Elements().First().Name.LocalName;

    private async Task<XElement> AskAsync(string type, string child, string from = "bob@example.com/phone")
    {
        var id = $"q{(++ids).ToString(CultureInfo.InvariantCulture)}";
        await link.WriteAsync($"<iq type='{type}' id='{id}' from='{from}' to='push.example.com'>{child}</iq>");
        while (true)
        {
            // an answer without a child is written with one tag
            var text = await link.ReadToAsync(">");
            heard += text;
            var answer = heard[Math.Max(0, heard.LastIndexOf("<iq ", StringComparison.Ordinal))..];
            if (
                (
                    text.EndsWith("</iq>", StringComparison.Ordinal)
                    || (text.StartsWith("<iq ", StringComparison.Ordinal) && text.EndsWith("/>", StringComparison.Ordinal))
                ) && (answer.Contains($"id='{id}'", StringComparison.Ordinal) || answer.Contains($"id=\"{id}\"", StringComparison.Ordinal))
            )
            {
                return ParserDriver.Stanza(answer);
            }
        }
    }
}
