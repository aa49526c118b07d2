using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

public sealed class MainJobOnProsodyTests() : MainJobTests("Prosody");

public sealed class MainJobOnEjabberdTests() : MainJobTests("ejabberd");

/// <summary>The main job, with nothing faked but Apple: a real server with the module, real clients, the relay as its own
/// process.</summary>
public abstract class MainJobTests(string kind) : IAsyncLifetime
{
    private const string Bob = "bob@" + XmppServer.Host;
    private const string Alice = "alice@" + XmppServer.Host;

    private readonly string token = Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32));
    private ApnsSimulator apns = null!;
    private XmppServer server = null!;
    private RelayProcess relay = null!;
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
            ["--Serilog:MinimumLevel:Override:PushRelay.Dispatch=Debug"]
        );
        alice = await XmppClient.LoginAsync(Alice + "/desk", server.C2sPort, streamManagement: false, Token);
        await relay.RegisterAsync(Bob, token);
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await alice.DisposeAsync();
        await relay.DisposeAsync();
        await server.DisposeAsync();
        await apns.DisposeAsync();
    }

    [Fact]
    public async Task In_front_no_alert_but_a_row_that_says_why()
    {
        await using var bob = await LoginAsync();

        await alice.SendAsync(Bob, "hello", "m1");

        var row = await relay.WaitForAsync(Bob, "m1", "suppressed");
        Assert.Equal("foreground", (string?)row["reason"]);
        Assert.Equal("hello", await bob.ReceiveAsync(Token));
        // a later alert proves that none came for the first
        await bob.LogoutAsync();
        await alice.SendAsync(Bob, "later", "m2");
        await relay.WaitForAsync(Bob, "m2", "accepted");
        Assert.Equal("later", Body(Assert.Single(apns.Received)));
    }

    [Fact]
    public async Task Inactive_with_the_link_alive_an_alert_within_a_second()
    {
        // the first alert after a start also opens the connection to APNs; another conversation, whose window is its own
        await using var carol = await XmppClient.LoginAsync(
            $"carol@{XmppServer.Host}/desk",
            server.C2sPort,
            streamManagement: false,
            Token
        );
        await carol.SendAsync(Bob, "first", "m0");
        await relay.WaitForAsync(Bob, "m0", "accepted");
        await using var bob = await LoginAsync();
        await bob.InactiveAsync();
        var sent = TimeProvider.System.GetTimestamp();

        await alice.SendAsync(Bob, "hello", "m1");
        var alert = await apns.WaitForAsync(2, Token);

        Assert.InRange(TimeProvider.System.GetElapsedTime(sent), TimeSpan.Zero, TimeSpan.FromSeconds(1));
        Assert.Equal((token, "hello"), (alert.DeviceToken, Body(alert)));
        Assert.Equal("background", (string?)(await relay.WaitForAsync(Bob, "m1", "accepted"))["reason"]);
        await bob.ActiveAsync();
        await alice.SendAsync(Bob, "again in front", "m2");
        await relay.WaitForAsync(Bob, "m2", "suppressed");
    }

    [Fact]
    public async Task Hibernating_an_alert()
    {
        await using var bob = await LoginAsync(streamManagement: true);
        await bob.DropAsync();

        await alice.SendAsync(Bob, "hello", "m1");

        // unacked, where the message was quicker than the news of the cut
        Assert.Contains((string?)(await relay.WaitForAsync(Bob, "m1", "accepted"))["reason"], (string[])["background", "unacked"]);
        Assert.Equal("hello", Body(Assert.Single(apns.Received)));
    }

    [Fact]
    public async Task In_front_with_a_link_that_is_dead_an_alert_once_the_server_knows()
    {
        var bob = await LoginAsync(streamManagement: true);
        await bob.FreezeAsync(Token);
        await alice.SendAsync(Bob, "hello", "m1");
        Assert.Equal("foreground", (string?)(await relay.WaitForAsync(Bob, "m1", "suppressed"))["reason"]);

        await bob.DisposeAsync();

        Assert.Equal("unacked", (string?)(await relay.WaitForAsync(Bob, "m1", "accepted"))["reason"]);
        Assert.Equal("hello", Body(Assert.Single(apns.Received)));
    }

    [Fact]
    public async Task Offline_an_alert()
    {
        var bob = await LoginAsync();
        await bob.LogoutAsync();
        await bob.DisposeAsync();

        await alice.SendAsync(Bob, "hello", "m1");

        var row = await relay.WaitForAsync(Bob, "m1", "accepted");
        Assert.Equal(("offline", Alice), ((string?)row["reason"], (string?)row["event"]!["from"]));
        var alert = Assert.Single(apns.Received);
        Assert.Equal((string?)row["id"], alert.Headers["apns-id"]);
    }

    [Theory]
    [InlineData("你好，世界。", 1)]
    [InlineData("👨‍👩‍👧‍👦 family", 1)]
    [InlineData("plain text ", 910)]
    public async Task Text_title_thread_and_collapse_id_are_right_for(string text, int times)
    {
        var body = string.Concat(Enumerable.Repeat(text, times));

        await alice.SendAsync(Bob, body, "m1");
        await relay.WaitForAsync(Bob, "m1", "accepted");

        var alert = Assert.Single(apns.Received);
        var payload = JsonNode.Parse(alert.Payload)!;
        Assert.Equal(Alice, (string?)payload["aps"]!["alert"]!["title"]);
        // of the message, and of the conversation
        Assert.Equal((22, 22), (alert.Headers["apns-collapse-id"].Length, ((string)payload["aps"]!["thread-id"]!).Length));
        Assert.NotEqual(alert.Headers["apns-collapse-id"], (string?)payload["aps"]!["thread-id"]);
        Assert.Equal((Bob, Alice, "chat"), ((string?)payload["account"], (string?)payload["from"], (string?)payload["type"]));
        Assert.InRange(Encoding.UTF8.GetByteCount(alert.Payload), 1, 4096);
        if (times == 1)
        {
            Assert.Equal(body, Body(alert));
        }
        else
        {
            Assert.StartsWith(Body(alert)[..^1], body, StringComparison.Ordinal);
            Assert.EndsWith("…", Body(alert), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task What_was_pending_when_the_relay_was_killed_arrives_after_its_restart()
    {
        const int Messages = 30;
        apns.AnswerNext(503, "ServiceUnavailable", times: 100_000);
        for (var i = 0; i < Messages; i++)
        {
            await alice.SendAsync(Bob, $"message {i}", $"m{i}");
        }

        await relay.UntilAsync(async () => (await relay.DeliveriesAsync(Bob)).Length == Messages, "all are in the ledger", Token);
        await relay.KillAsync();
        apns.ClearScript();
        apns.Clear();

        await relay.StartAsync(Token);

        await relay.UntilAsync(
            async () => (await relay.DeliveriesAsync(Bob)).All(r => (string?)r["state"] is "accepted" or "coalesced"),
            "all are sent",
            Token
        );
        var rows = await relay.DeliveriesAsync(Bob);
        Assert.Equal(Messages, rows.Length);
        // one conversation: what waited together went out together, the newest text last
        var heads = rows.Where(r => (string?)r["state"] == "accepted").ToList();
        Assert.Equal(Messages, heads.Sum(r => (int)r["count"]!));
        var accepted = apns.Received.Where(r => r.Status == 200).ToList();
        Assert.Equal(heads.Select(r => (string?)r["id"]).Order(), accepted.Select(r => r.Headers["apns-id"]).Distinct().Order());
        Assert.Equal($"message {Messages - 1}", Body(accepted[^1]));
    }

    [Fact]
    public async Task What_came_while_the_relay_was_away_arrives_after_its_restart()
    {
        await relay.KillAsync();
        await alice.SendAsync(Bob, "nobody home", "m1");

        await relay.StartAsync(Token);

        await relay.WaitForAsync(Bob, "m1", "accepted");
        Assert.Equal("nobody home", Body(Assert.Single(apns.Received)));
    }

    [Fact]
    public async Task SIGTERM_ends_it_in_order_within_ten_seconds()
    {
        var asked = TimeProvider.System.GetTimestamp();

        Assert.Equal(0, await relay.TerminateAsync(Token));

        Assert.InRange(TimeProvider.System.GetElapsedTime(asked), TimeSpan.Zero, TimeSpan.FromSeconds(10));
    }

    [Fact]
    public async Task The_log_has_no_token_no_text_and_no_name()
    {
        await alice.SendAsync(Bob, "a very secret body", "m1");
        await relay.WaitForAsync(Bob, "m1", "accepted");

        Assert.Contains("was accepted", relay.Log, StringComparison.Ordinal);
        Assert.All(
            (string[])[token, "a very secret body", Bob, Alice],
            word => Assert.DoesNotContain(word, relay.Log, StringComparison.Ordinal)
        );
    }

    private static string Body(ReceivedNotification alert) => (string)JsonNode.Parse(alert.Payload)!["aps"]!["alert"]!["body"]!;

    private Task<XmppClient> LoginAsync(bool streamManagement = false) =>
        XmppClient.LoginAsync(Bob + "/phone", server.C2sPort, streamManagement, Token);
}
