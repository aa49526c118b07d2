using System.Text.Json.Nodes;
using PushRelay.Cli;
using PushRelay.Outbox;
using PushRelay.Tests.Publishes;

namespace PushRelay.Tests.Cli;

/// <summary>The commands of an operator's day, beside a relay that runs on the same database.</summary>
public sealed class LedgerCommandTests : PushServiceBed
{
    [Fact]
    public async Task Devices_are_listed_shown_and_removed()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "phone");
        await Relay.RegisterAsync(TestRelay.Alice, id: "other");

        var table = await RunAsync("devices", "list");
        var json = await RunAsync("devices", "list", "--account", TestRelay.Bob, "--status", "active", "--json");
        var shown = await RunAsync("devices", "show", "phone");
        var refused = await RunAsync("devices", "remove", "phone");
        var removed = await RunAsync("devices", "remove", "phone", "--yes");

        Assert.Equal((0, 3), (table.Code, table.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length));
        Assert.Equal("phone", (string?)Assert.Single(JsonNode.Parse(json.Output)!["items"]!.AsArray())!["id"]);
        Assert.Equal(TestRelay.Bob, (string?)JsonNode.Parse(shown.Output)!["account"]);
        Assert.Equal((1, true), (refused.Code, refused.Errors.Contains("--yes", StringComparison.Ordinal)));
        Assert.Equal(0, removed.Code);
        Assert.Equal(
            (1, 2, 2),
            (
                (await RunAsync("devices", "show", "phone")).Code,
                (await RunAsync("devices", "list", "--status", "x")).Code,
                (await RunAsync("devices", "list", "--limit", "0")).Code
            )
        );
    }

    [Fact]
    public async Task An_alert_is_sent_its_delivery_listed_and_its_story_told()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "phone");

        var sent = await RunAsync("send", TestRelay.Bob, "--title", "Hello", "--body", "from the command line");
        var rows = await WaitAsync();
        var listed = await RunAsync("deliveries", "list", "--account", TestRelay.Bob, "--reason", "operator", "--json");
        var story = await RunAsync("explain", TestRelay.Bob);
        var retried = await RunAsync("deliveries", "retry", rows[0].Id.ToString("D"));

        Assert.Equal((0, true), (sent.Code, sent.Output.Contains("operator", StringComparison.Ordinal)));
        Assert.Equal("accepted", (string?)JsonNode.Parse(listed.Output)!["items"]![0]!["state"]);
        Assert.Equal(0, story.Code);
        Assert.Contains("An operator sent an alert.", story.Output, StringComparison.Ordinal);
        Assert.Contains("apns accepted the alert", story.Output, StringComparison.Ordinal);
        Assert.Equal(1, retried.Code);
        Assert.Equal(1, (await RunAsync("explain", "bob@elsewhere.example")).Code);
        Assert.Equal(2, (await RunAsync("send", TestRelay.Bob)).Code);
    }

    [Fact]
    public async Task A_test_push_waits_and_says_what_became_of_it()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "phone");
        using var stop = new CancellationTokenSource();
        var advancing = AdvanceAsync(stop.Token);

        var good = await RunAsync("test-push", "phone");
        Apple.AnswerNext(400, "BadDeviceToken");
        var bad = await RunAsync("test-push", "phone");
        await stop.CancelAsync();
        await advancing;

        Assert.Equal((0, true), (good.Code, good.Output.Contains("apns accepted the alert", StringComparison.Ordinal)));
        Assert.Equal(1, bad.Code);
        Assert.Equal(1, (await RunAsync("test-push", "unknown")).Code);
    }

    [Fact]
    public async Task Tokens_and_accounts_are_shown_exported_and_erased()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "phone");

        var issued = await RunAsync("tokens", "issue", TestRelay.Bob);
        var listed = JsonNode.Parse((await RunAsync("tokens", "list", "--account", TestRelay.Bob, "--json")).Output)!["items"]![0]!;
        var shown = await RunAsync("accounts", "show", TestRelay.Bob, "--json");
        var exported = await RunAsync("accounts", "export", TestRelay.Bob);
        var revoked = await RunAsync("tokens", "revoke", (string)listed["id"]!, "--yes");
        var erased = await RunAsync("accounts", "erase", TestRelay.Bob, "--yes");

        Assert.StartsWith("pra_", issued.Output, StringComparison.Ordinal);
        Assert.Equal("unknown", (string?)JsonNode.Parse(shown.Output)!["state"]);
        Assert.Single(JsonNode.Parse(exported.Output)!["devices"]!.AsArray());
        Assert.Equal((0, 0), (revoked.Code, erased.Code));
        Assert.Empty(await Relay.Devices.ListAsync(TestRelay.Bob, null, 10, Token));
    }

    private async Task<List<Delivery>> WaitAsync()
    {
        var rows = await Relay.WaitForRowsAsync(all =>
        {
            // another process wrote them: the dispatcher finds them when it next looks
            Relay.Advance(TimeSpan.FromMilliseconds(100));
            return all is [{ State: DeliveryState.Accepted }];
        });
        return rows;
    }

    private async Task AdvanceAsync(CancellationToken stop)
    {
        while (!stop.IsCancellationRequested)
        {
            Relay.Advance(TimeSpan.FromMilliseconds(100));
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, CancellationToken.None);
        }
    }

    private async Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments)
    {
        using var output = new StringWriter();
        using var errors = new StringWriter();
        var code = await RelayCommands.RunAsync([.. arguments, .. Relay.Arguments], errors, output);
        return (code, output.ToString().Trim(), errors.ToString());
    }
}
