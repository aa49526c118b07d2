using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using PushRelay.Outbox;
using PushRelay.Tests.Publishes;

namespace PushRelay.Tests.Ledger;

/// <summary>An operator's own alert: what is checked, whom it reaches, and what the phone gets.</summary>
public sealed class OwnAlertTests : PushServiceBed
{
    private static readonly string[] Muted = ["news@example.com"];

    [Fact]
    public async Task It_reaches_every_device_and_brings_its_data()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "one");
        await Relay.RegisterAsync(TestRelay.Bob, id: "two");

        var answer = await PostAsync(
            new
            {
                account = "Bob@Example.com",
                title = "Maintenance",
                body = "Tonight from 2 to 3",
                priority = "normal",
                timeToLive = "2h",
                data = new Dictionary<string, string> { ["page"] = "status" },
            }
        );

        Assert.Equal(HttpStatusCode.Accepted, answer.Status);
        Assert.Equal(2, answer.Json["items"]!.AsArray().Count);
        var rows = await Relay.WaitForRowsAsync(all => all.Count == 2 && all.TrueForAll(r => r.State == DeliveryState.Accepted));
        Assert.All(
            rows,
            row =>
            {
                Assert.Equal((EventSource.Api, EventClass.Text, "operator"), (row.Source, row.Class, row.Reason));
                Assert.Equal(TimeSpan.FromHours(2), row.ExpiresAt - row.EventAt);
            }
        );
        var request = Apple.Received[0];
        var payload = JsonNode.Parse(request.Payload)!;
        Assert.Equal("5", request.Headers["apns-priority"]);
        Assert.Equal(
            ("Maintenance", "Tonight from 2 to 3", "status"),
            ((string?)payload["aps"]!["alert"]!["title"], (string?)payload["aps"]!["alert"]!["body"], (string?)payload["data"]!["page"])
        );
    }

    [Fact]
    public async Task The_phone_confirms_it_with_what_the_alert_brought()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "one");
        await PostAsync(new { account = TestRelay.Bob, body = "hi" });
        await Relay.WaitForRowsAsync(all => all is [{ State: DeliveryState.Accepted }]);
        var receipt = (string)JsonNode.Parse(Assert.Single(Apple.Received).Payload)!["receipt"]!;
        using var nobody = Relay.NewClient(key: null);

        var opened = await nobody.PostAsJsonAsync("/v1/receipts", new { receipt, @event = "opened" }, Token);
        var unknown = await nobody.PostAsJsonAsync("/v1/receipts", new { receipt, @event = "read" }, Token);

        Assert.Equal((HttpStatusCode.NoContent, HttpStatusCode.BadRequest), (opened.StatusCode, unknown.StatusCode));
        Assert.Equal(DeliveryState.Opened, Assert.Single(await Relay.RowsAsync()).State);
    }

    [Fact]
    public async Task One_device_or_the_devices_of_one_app()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "one");
        await Relay.RegisterAsync(TestRelay.Bob, id: "two");

        var one = await PostAsync(
            new
            {
                account = TestRelay.Bob,
                body = "hi",
                device = "two",
            }
        );
        var app = await PostAsync(
            new
            {
                account = TestRelay.Bob,
                body = "hi",
                app = TestRelay.App,
            }
        );

        Assert.Equal("two", (string?)Assert.Single(one.Json["items"]!.AsArray())!["device"]);
        Assert.Equal(2, app.Json["items"]!.AsArray().Count);
    }

    [Fact]
    public async Task Nobody_there_is_a_row_that_says_so()
    {
        var answer = await PostAsync(new { account = TestRelay.Alice, body = "hi" });

        var row = Assert.Single(answer.Json["items"]!.AsArray())!;
        Assert.Equal((HttpStatusCode.Accepted, "suppressed", "no_device"), (answer.Status, (string?)row["state"], (string?)row["reason"]));
    }

    [Fact]
    public async Task Preferences_apply_and_the_same_key_is_the_same_alert()
    {
        await Relay.RegisterAsync(TestRelay.Bob, id: "one");
        using var client = Relay.NewClient();
        await client.PatchAsJsonAsync($"/v1/devices/one?account={TestRelay.Bob}", new { muted = Muted }, Token);
        client.DefaultRequestHeaders.Add("Idempotency-Key", "k1");
        var body = new
        {
            account = TestRelay.Bob,
            body = "hi",
            conversation = "news@example.com",
        };

        var first = JsonNode.Parse(await (await client.PostAsJsonAsync("/v1/alerts", body, Token)).Content.ReadAsStringAsync(Token))!;
        var again = JsonNode.Parse(await (await client.PostAsJsonAsync("/v1/alerts", body, Token)).Content.ReadAsStringAsync(Token))!;

        Assert.Equal("muted", (string?)first["items"]![0]!["reason"]);
        Assert.Equal((string?)first["items"]![0]!["id"], (string?)again["items"]![0]!["id"]);
        Assert.Single(await Relay.RowsAsync());
    }

    [Theory]
    [InlineData("""{"body":"hi"}""", 400, "account")]
    [InlineData("""{"account":"bob@example.com"}""", 400, "body")]
    [InlineData("""{"account":"bob@example.com","body":"hi","app":"unknown"}""", 400, "app")]
    [InlineData("""{"account":"bob@example.com","body":"hi","priority":"urgent"}""", 400, "priority")]
    [InlineData("""{"account":"bob@example.com","body":"hi","timeToLive":"24:00:00"}""", 400, "timeToLive")]
    [InlineData("""{"account":"bob@example.com","body":"hi","timeToLive":"1s"}""", 400, "timeToLive")]
    [InlineData("""{"account":"bob@example.com","body":"hi","data":{"a":null}}""", 400, "data")]
    [InlineData("""{"account":"bob@example.com","body":"hi","more":1}""", 400, "more")]
    [InlineData("""{"account":"bob@elsewhere.example","body":"hi"}""", 404, null)]
    [InlineData("""{"account":"bob@example.com","body":"hi","device":"unknown"}""", 404, null)]
    public async Task What_cannot_be_sent_is_refused_by_its_field(string body, int status, string? field)
    {
        using var client = Relay.NewClient();
        using var content = new StringContent(body, System.Text.Encoding.UTF8, "application/json");
        using var answer = await client.PostAsync("/v1/alerts", content, Token);

        Assert.Equal(status, (int)answer.StatusCode);
        if (field is not null)
        {
            Assert.NotNull(JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!["errors"]![field]);
        }

        Assert.Empty(await Relay.AllRowsAsync());
    }

    private async Task<(HttpStatusCode Status, JsonNode Json)> PostAsync(object body)
    {
        using var client = Relay.NewClient();
        using var answer = await client.PostAsJsonAsync("/v1/alerts", body, Token);
        return (answer.StatusCode, JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!);
    }
}
