using System.Text.Json.Nodes;
using System.Xml.Linq;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

[Collection(nameof(ProsodyBed))]
public sealed class PublishesOnProsodyTests(PublishesOnProsodyTests.Bed bed)
    : PublishScenarios(bed, killable: true),
        IClassFixture<PublishesOnProsodyTests.Bed>
{
    public sealed class Bed() : ScenarioBed("Prosody", hasModule: false, Provided);
}

// ejabberd answers itself where no component is connected, and ends the registration for its own answer
[Collection(nameof(EjabberdBed))]
public sealed class PublishesOnEjabberdTests(PublishesOnEjabberdTests.Bed bed)
    : PublishScenarios(bed, killable: false),
        IClassFixture<PublishesOnEjabberdTests.Bed>
{
    public sealed class Bed() : ScenarioBed("ejabberd", hasModule: false, Provided);
}

/// <summary>
/// A server without our module, whose own push module publishes to the relay (XEP-0357); clients that register and enable as the apps of
/// each dialect do.
/// </summary>
public abstract class PublishScenarios(ScenarioBed bed, bool killable)
{
    private const string Provider = "tigase:messenger:apns:1";
    internal const string Provided = $"--Apps:0:Push:Provider={Provider}";
    private static readonly XNamespace Data = "jabber:x:data";

    private readonly string token = Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32));
    private readonly string account = bed.NextAccount();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("register-push-apns", "device-id=dev-1")]
    [InlineData("v1-register-push", "type=apns", "node=dev-1")]
    [InlineData("register-device", "provider=" + Provider)]
    [InlineData("pushrelay:register", "app=" + RelayProcess.App, "platform=apns")]
    public async Task An_app_of_each_dialect_is_alerted_offline_and_hibernated(string command, params string[] fields)
    {
        var alice = await bed.AliceAsync();
        var bob = await (await WireClient.LoginAsync(account + "/phone", bed.Server.C2sPort)).EnableSmAsync(300);
        await RegisterAndEnableAsync(bob, command, fields);

        // hibernated: the link dies, the session could be resumed
        bob.Cut();
        await alice.MessageAsync(account, "while hibernated", "m1");
        var hibernated = await AlertAsync("while hibernated");
        Assert.Equal("alice@" + XmppServer.Host, (string?)hibernated["aps"]!["alert"]!["title"]);

        // offline
        var again = await WireClient.LoginAsync(account + "/phone", bed.Server.C2sPort);
        await again.LogoutAsync();
        await alice.MessageAsync(account, "while offline", "m2");
        await AlertAsync("while offline");

        var rows = await bed.Relay.DeliveriesAsync(account);
        Assert.All(
            rows.Where(r => (string?)r["event"]!["class"] == "text"),
            row => Assert.Equal(("xep0357", "published"), ((string?)row["event"]!["source"], (string?)row["reason"]))
        );
    }

    [Fact]
    public async Task A_dead_device_ends_at_the_server_by_its_own_rule_and_an_outage_ends_none()
    {
        var alice = await bed.AliceAsync();
        var bob = await WireClient.LoginAsync(account + "/phone", bed.Server.C2sPort);
        await RegisterAndEnableAsync(bob, "register-push-apns", "device-id=dev-1");
        await bob.LogoutAsync();

        // the relay stands still: its link lives, and nobody answers
        await bed.Relay.PauseAsync(Token);
        await alice.MessageAsync(account, "nobody there", "m0");
        await bed.Relay.ContinueAsync(Token);
        await AlertAsync("nobody there");

        if (killable)
        {
            // what is not settled when the process dies is sent again, when its lease has ended
            await SettledAsync();
            await bed.Relay.KillAsync();
            await alice.MessageAsync(account, "nobody at all", "m0b");
            await bed.Relay.StartAsync(Token);
        }

        await alice.MessageAsync(account, "back again", "m1");
        await AlertAsync("back again");

        // Apple says that the token is dead: the next publish is refused
        await SettledAsync();
        bed.Apns.AnswerNext(
            new ScriptRule
            {
                Token = token,
                Status = 410,
                Reason = "Unregistered",
            }
        );
        await alice.MessageAsync(account, "to a dead phone", "m2");
        await bed.Relay.UntilAsync(
            async () =>
                (string?)(await bed.Relay.GetAsync($"/v1/devices?account={Uri.EscapeDataString(account)}"))["items"]![0]!["status"]
                == "invalid",
            "the device is invalid",
            Token
        );
        var before = (await bed.Relay.DeliveriesAsync(account)).Length;
        await alice.MessageAsync(account, "refused", "m3");
        await alice.MessageAsync(account, "refused too", "m4");
        Assert.Equal(before, (await bed.Relay.DeliveriesAsync(account)).Length);
    }

    [Fact]
    public async Task A_server_without_the_module_is_no_fault() =>
        Assert.Equal("ready", (string?)(await bed.Relay.GetAsync("/health/ready"))["status"]);

    private async Task RegisterAndEnableAsync(WireClient client, string command, params string[] fields)
    {
        var tokenField = command == "register-device" ? "device-token" : "token";
        var form = string.Concat(
            fields
                .Append($"{tokenField}={token}")
                .Select(f => f.Split('=', 2))
                .Select(f => $"<field var='{f[0]}'><value>{f[1]}</value></field>")
        );
        var answer = await client.AskAsync(
            "set",
            $"<command xmlns='http://jabber.org/protocol/commands' node='{command}' action='execute'>"
                + $"<x xmlns='jabber:x:data' type='submit'>{form}</x></command>",
            XmppServer.Component
        );
        Assert.True((string?)answer.Attribute("type") == "result", answer.ToString());
        var given = answer
            .Descendants(Data + "field")
            .ToDictionary(f => (string)f.Attribute("var")!, f => (string?)f.Element(Data + "value") ?? "");
        // Siskin enables without publish-options
        var options =
            command == "register-device"
                ? ""
                : "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
                    + "<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
                    + $"<field var='secret'><value>{given["secret"]}</value></field></x>";
        var enabled = await client.AskAsync(
            "set",
            $"<enable xmlns='urn:xmpp:push:0' jid='{given["jid"]}' node='{given["node"]}'>{options}</enable>",
            to: null
        );
        Assert.True((string?)enabled.Attribute("type") == "result", enabled.ToString());
    }

    private Task SettledAsync() =>
        bed.Relay.UntilAsync(
            async () => (await bed.Relay.DeliveriesAsync(account)).All(r => (string?)r["state"] is not ("pending" or "sending")),
            "no alert is on its way",
            Token
        );

    private async Task<JsonNode> AlertAsync(string body)
    {
        JsonNode? found = null;
        await bed.Relay.UntilAsync(
            () =>
            {
                found = bed
                    .Apns.Received.Select(r => JsonNode.Parse(r.Payload)!)
                    .FirstOrDefault(p => (string?)p["aps"]!["alert"]?["body"] == body);
                return Task.FromResult(found is not null);
            },
            $"the alert '{body}' comes; there came {string.Join(", ", bed.Apns.Received.Select(r => r.Payload))}",
            Token
        );
        return found!;
    }
}
