using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using System.Xml.Linq;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

public sealed class OwnershipOnProsodyTests() : OwnershipTests("Prosody");

public sealed class OwnershipOnEjabberdTests() : OwnershipTests("ejabberd");

/// <summary>Two accounts of a real server, each with the token it got over its own stream: neither reaches what is the other's.</summary>
public abstract class OwnershipTests(string kind) : IAsyncLifetime
{
    private const string Bob = "bob@" + XmppServer.Host;
    private const string Alice = "alice@" + XmppServer.Host;

    private static readonly XNamespace Data = "jabber:x:data";
    private static readonly XNamespace Stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";

    private ApnsSimulator apns = null!;
    private XmppServer server = null!;
    private RelayProcess relay = null!;
    private XmppClient bob = null!;
    private XmppClient alice = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [RelayProcess.App] }, Token);
        server = await XmppServer.OfKindAsync(kind, Token);
        relay = await RelayProcess.StartAsync(
            apns,
            server.ComponentPort,
            XmppServer.Host,
            XmppServer.Component,
            Token,
            "--Serilog:MinimumLevel:Default=Verbose",
            "--Serilog:MinimumLevel:Override:Microsoft=Verbose"
        );
        bob = await XmppClient.LoginAsync(Bob + "/phone", server.C2sPort, streamManagement: false, Token);
        alice = await XmppClient.LoginAsync(Alice + "/desk", server.C2sPort, streamManagement: false, Token);
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await alice.DisposeAsync();
        await bob.DisposeAsync();
        await relay.DisposeAsync();
        await server.DisposeAsync();
        await apns.DisposeAsync();
    }

    [Fact]
    public async Task No_route_shows_changes_or_removes_another_accounts_device()
    {
        using var bobs = Client(await TokenAsync(bob));
        using var alices = Client(await TokenAsync(alice));
        using var registered = await bobs.PutAsync("/v1/devices/bobs-phone", Json(Registration(Bob)), Token);
        Assert.Equal(201, (int)registered.StatusCode);
        using var tested = await bobs.PostAsync("/v1/devices/bobs-phone/test", null, Token);
        var delivery = (string)(await tested.Content.ReadFromJsonAsync<JsonNode>(Token))!["id"]!;
        await relay.UntilAsync(
            async () => (string?)(await GetAsync(bobs, $"/v1/deliveries/{delivery}"))["state"] == "accepted",
            "the test alert is settled",
            Token
        );
        var token = (string)(await GetAsync(bobs, "/v1/tokens"))["items"]![0]!["id"]!;
        var before = (await GetAsync(bobs, "/v1/devices/bobs-phone")).ToJsonString();
        var description = await GetAsync(alices, "/openapi/v1.json");

        var tried = 0;
        // a receipt is its own credential, whoever brings it
        foreach (
            var (path, methods) in description["paths"]!
                .AsObject()
                .Where(p => p.Key.StartsWith("/v1/", StringComparison.Ordinal) && p.Key != "/v1/receipts")
        )
        {
            foreach (var (method, _) in methods!.AsObject())
            {
                var url = path.Replace("{deviceId}", "bobs-phone", StringComparison.Ordinal)
                    .Replace("{account}", Uri.EscapeDataString(Bob), StringComparison.Ordinal)
                    .Replace("{id}", path.Contains("/tokens/", StringComparison.Ordinal) ? token : delivery, StringComparison.Ordinal);
                foreach (var query in (string[])["", $"?account={Uri.EscapeDataString(Bob)}"])
                {
                    using var request = new HttpRequestMessage(new HttpMethod(method.ToUpperInvariant()), url + query)
                    {
                        Content = BodyFor(method, path),
                    };
                    using var answer = await alices.SendAsync(request, Token);
                    var text = await answer.Content.ReadAsStringAsync(Token);
                    Assert.True(
                        (int)answer.StatusCode is 200 or 201 or 403 or 404,
                        $"{method} {url}{query}: {(int)answer.StatusCode} {text}"
                    );
                    Assert.DoesNotContain("bob", text, StringComparison.Ordinal);
                    tried++;
                }
            }
        }

        // lists, and the renewal of her own token, are all that she was answered
        Assert.InRange(tried, 30, 200);
        Assert.Equal(before, (await GetAsync(bobs, "/v1/devices/bobs-phone")).ToJsonString());
        Assert.Equal(token, (string?)(await GetAsync(bobs, "/v1/tokens"))["items"]![0]!["id"]);
        Assert.Single(apns.Received);
    }

    [Fact]
    public async Task No_command_gives_shows_or_revokes_another_accounts_token()
    {
        var secret = await TokenAsync(bob);
        using var bobs = Client(secret);
        var id = (string)(await GetAsync(bobs, "/v1/tokens"))["items"]![0]!["id"]!;

        var listed = await CommandAsync(alice, "pushrelay:tokens");
        Assert.Equal("result", (string?)listed.Attribute("type"));
        Assert.DoesNotContain(id, listed.ToString(), StringComparison.Ordinal);
        var revoked = await CommandAsync(
            alice,
            "pushrelay:revoke",
            $"<x xmlns='jabber:x:data' type='submit'><field var='id'><value>{id}</value></field></x>"
        );
        Assert.NotNull(revoked.Descendants(Stanzas + "item-not-found").SingleOrDefault());
        // a field that names somebody else is no more than a field nobody asked for
        var hers = await CommandAsync(
            alice,
            "pushrelay:token",
            $"<x xmlns='jabber:x:data' type='submit'><field var='account'><value>{Bob}</value></field><field "
                + $"var='jid'><value>{Bob}</value></field></x>"
        );
        using var alices = Client(Value(hers, "token"));
        Assert.Equal(Alice, (string?)(await GetAsync(alices, "/v1/tokens"))["items"]![0]!["account"]);

        Assert.Equal(id, (string?)(await GetAsync(bobs, "/v1/tokens"))["items"]![0]!["id"]);
        Assert.Equal(
            "result",
            (string?)
                (
                    await CommandAsync(
                        bob,
                        "pushrelay:revoke",
                        $"<x xmlns='jabber:x:data' type='submit'><field var='id'><value>{id}</value></field></x>"
                    )
                ).Attribute("type")
        );
        using var refused = await bobs.GetAsync("/v1/devices", Token);
        Assert.Equal(401, (int)refused.StatusCode);
    }

    [Fact]
    public async Task A_flood_of_requests_of_one_account_is_told_to_wait_and_costs_another_account_nothing()
    {
        const string Version = "<query xmlns='jabber:iq:version'/>";
        XElement answer;
        var answered = 0;
        while ((string?)(answer = await bob.AskAsync(XmppServer.Component, "get", Version)).Attribute("type") == "result")
        {
            Assert.InRange(++answered, 1, 500);
        }

        Assert.InRange(answered, 50, 500);
        Assert.NotNull(answer.Descendants(Stanzas + "resource-constraint").SingleOrDefault());
        Assert.Equal("wait", (string?)answer.Elements().Single(e => e.Name.LocalName == "error").Attribute("type"));
        Assert.Equal("result", (string?)(await alice.AskAsync(XmppServer.Component, "get", Version)).Attribute("type"));
    }

    [Fact]
    public async Task No_secret_is_in_the_log_at_any_level_nor_in_the_database_nor_in_any_answer()
    {
        const string Body = "a canary that sings to nobody";
        var secret = await TokenAsync(bob);
        using var bobs = Client(secret);
        var registration = Registration(Bob);
        var pushToken = (string)JsonNode.Parse(registration)!["token"]!;
        using var registered = await bobs.PutAsync("/v1/devices/bobs-phone", Json(registration), Token);
        var answers = new List<string> { await registered.Content.ReadAsStringAsync(Token) };
        apns.AnswerNext(503, "ServiceUnavailable", times: 1);
        await bob.LogoutAsync();
        await alice.SendAsync(Bob, Body, "m1");
        await relay.WaitForAsync(Bob, "m1", "accepted");
        foreach (
            var path in (string[])
                [
                    "/v1/devices",
                    "/v1/deliveries",
                    "/v1/tokens",
                    "/v1/audit",
                    $"/v1/accounts/{Uri.EscapeDataString(Bob)}",
                    "/v1/devices/none",
                ]
        )
        {
            using var answer = await relay.Client.GetAsync(path, Token);
            answers.Add(await answer.Content.ReadAsStringAsync(Token));
        }

        var signingKey = (await File.ReadAllLinesAsync(Path.Combine(relay.Folder, "key.p8"), Token))[1];
        var masterKey = (await File.ReadAllTextAsync(Path.Combine(relay.Folder, "data", "master.key"), Token)).Trim();
        string[] canaries = [secret, pushToken, Body, signingKey, masterKey, RelayProcess.Key];
        Assert.Contains("was accepted", relay.Log, StringComparison.Ordinal);
        Assert.All(canaries, canary => Assert.DoesNotContain(canary, relay.Log, StringComparison.OrdinalIgnoreCase));
        Assert.All(canaries, canary => Assert.DoesNotContain(answers, text => text.Contains(canary, StringComparison.OrdinalIgnoreCase)));
        await relay.TerminateAsync(Token);
        var files = Directory.GetFiles(relay.Folder, "pushrelay.db*", SearchOption.AllDirectories);
        Assert.NotEmpty(files);
        foreach (var file in files)
        {
            var bytes = Encoding.Latin1.GetString(await File.ReadAllBytesAsync(file, Token));
            Assert.All(canaries, canary => Assert.DoesNotContain(canary, bytes, StringComparison.OrdinalIgnoreCase));
        }
    }

    private static StringContent? BodyFor(string method, string path) =>
        (method, path) switch
        {
            ("post", "/v1/devices") or ("put", _) => Json(Registration(Bob)),
            ("patch", _) => Json("""{"preview":"none"}"""),
            ("post", "/v1/tokens") => Json($$"""{"account":"{{Bob}}"}"""),
            _ => null,
        };

    private static string Registration(string account) =>
        $$"""
            {"account":"{{account}}","app":"{{RelayProcess.App}}","platform":"apns",
             "token":"{{Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32))}}"}
            """;

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static async Task<JsonNode> GetAsync(HttpClient client, string path) => (await client.GetFromJsonAsync<JsonNode>(path, Token))!;

    private static async Task<string> TokenAsync(XmppClient client) => Value(await CommandAsync(client, "pushrelay:token"), "token");

    private static string Value(XElement answer, string field) =>
        answer.Descendants(Data + "field").Single(f => (string?)f.Attribute("var") == field).Element(Data + "value")!.Value;

    private static Task<XElement> CommandAsync(XmppClient client, string node, string form = "") =>
        client.AskAsync(
            XmppServer.Component,
            "set",
            $"<command xmlns='http://jabber.org/protocol/commands' node='{node}' action='execute'>{form}</command>"
        );

    private HttpClient Client(string token)
    {
        var client = new HttpClient { BaseAddress = relay.Client.BaseAddress };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        return client;
    }
}
