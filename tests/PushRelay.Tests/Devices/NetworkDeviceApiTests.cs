using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Outbox;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push;

namespace PushRelay.Tests.Devices;

/// <summary>Devices of each push network over the REST interface, as an app and a browser register them.</summary>
public sealed class NetworkDeviceApiTests : IAsyncLifetime
{
    private const string FcmToken = "fcm-token-of-bobs-phone-0123456789:APA91b";
    private const string RegistrationId = "1a0018970aa8f0d2a1b";

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-network-api-").FullName;
    private readonly WebPushSimulator webPush = new(SubscriptionService.Google);
    private readonly FcmSimulator fcm = new();
    private readonly JPushSimulator jpush = new();
    private TestRelay relay = null!;
    private HttpClient client = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        foreach (var server in (NetworkServer[])[webPush, fcm, jpush])
        {
            await server.StartAsync(Token);
        }

        relay = await TestRelay.OpenAsync(
            null,
            [
                .. RigBed.Settings(folder, webPush),
                .. RigBed.Settings(folder, fcm),
                .. RigBed.Settings(folder, jpush),
                "--Apps:0:JPush:Preview=Full",
            ]
        );
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
        client = relay.NewClient();
    }

    public async ValueTask DisposeAsync()
    {
        client.Dispose();
        await relay.DisposeAsync();
        foreach (var server in (NetworkServer[])[webPush, fcm, jpush])
        {
            await server.DisposeAsync();
        }

        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task An_app_says_what_a_browser_needs_and_the_browser_gets_its_alert()
    {
        using var anonymous = relay.NewClient(key: null);
        var app = (await anonymous.GetFromJsonAsync<JsonObject>($"/v1/apps/{TestRelay.App}", Token))!;
        using var subscription = webPush.Subscribe((string)app["webPush"]!["publicKey"]!);

        var (status, device) = await RegisterAsync("webpush", ("subscription", subscription.ToJson()));
        var again = await RegisterAsync("webpush", ("subscription", subscription.ToJson()));

        Assert.Equal(["apns", "fcm", "jpush", "webpush"], app["platforms"]!.AsArray().Select(p => (string)p!).Order());
        Assert.Equal((HttpStatusCode.Created, HttpStatusCode.OK), (status, again.Status));
        Assert.Equal((string)device["id"]!, (string)again.Device["id"]!);
        Assert.Null(device["token"]);
        var shown = device["subscription"]!.AsObject();
        Assert.Equal($"https://localhost:{webPush.Port}/…{subscription.Endpoint.AbsoluteUri[^8..]}", (string?)shown["endpoint"]);
        Assert.Single(shown);
        Assert.DoesNotContain(subscription.Subscriber.Auth, device.ToJsonString(), StringComparison.Ordinal);

        await relay.CommitMessageAsync("hello");
        await relay.WaitForRowsAsync(rows => rows.Count == 1 && rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal("hello", (string?)Assert.Single(webPush.Received).Json["body"]);
    }

    [Fact]
    public async Task An_account_gets_each_alert_on_all_its_devices()
    {
        using var subscription = webPush.Subscribe();
        await RegisterAsync("webpush", ("subscription", subscription.ToJson()));
        await RegisterAsync("fcm", ("token", FcmToken));
        await RegisterAsync("jpush", ("token", RegistrationId));

        await relay.CommitMessageAsync("hello");

        var rows = await relay.WaitForRowsAsync(rows => rows.Count == 3 && rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(["fcm", "jpush", "webpush"], rows.Select(r => r.Platform).Order());
        Assert.Equal("hello", fcm.Received[0].Data["body"]);
        Assert.Equal("hello", (string?)jpush.Received[0].Notification["android"]!["alert"]);
        Assert.Equal("hello", (string?)webPush.Received[0].Json["body"]);
    }

    [Fact]
    public async Task A_phone_may_change_its_network_under_its_own_id()
    {
        var (_, first) = await PutAsync("phone", "fcm", ("token", FcmToken));
        using var subscription = webPush.Subscribe();
        var (status, second) = await PutAsync("phone", "webpush", ("subscription", subscription.ToJson()));

        Assert.Equal(HttpStatusCode.OK, status);
        Assert.Equal(("fcm", "webpush"), ((string?)first["platform"], (string?)second["platform"]));
        await relay.CommitMessageAsync("hello");
        await relay.WaitForRowsAsync(rows => rows.Count == 1 && rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Empty(fcm.Received);
    }

    [Fact]
    public async Task A_test_alert_goes_over_the_devices_own_network()
    {
        var (_, device) = await RegisterAsync("fcm", ("token", FcmToken));

        using var answer = await client.PostAsync($"/v1/devices/{device["id"]}/test", null, Token);

        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Single(fcm.Received);
    }

    [Theory]
    [InlineData("fcm")]
    [InlineData("jpush")]
    public async Task With_keys_of_its_own_a_device_is_told_what_the_network_cannot_read(string platform)
    {
        using var installation = new PushSubscriber();
        var keys = new JsonObject { ["p256dh"] = installation.P256dh, ["auth"] = installation.Auth };

        var (_, device) = await RegisterAsync(platform, ("token", platform == "fcm" ? FcmToken : RegistrationId), ("encryption", keys));
        await relay.CommitMessageAsync("hello");
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));

        Assert.True((bool)device["encryption"]!);
        var seen = platform == "fcm" ? fcm.Received[0].Message : jpush.Received[0].Request;
        Assert.DoesNotContain("hello", seen.ToJsonString(), StringComparison.Ordinal);
        var secret = platform == "fcm" ? fcm.Received[0].Data["sealed"] : (string)jpush.Received[0].Extras("android")["sealed"]!;
        var opened = installation.Open(System.Buffers.Text.Base64Url.DecodeFromChars(secret));
        Assert.Equal("hello", (string?)JsonNode.Parse(opened)!["body"]);
    }

    [Theory]
    [InlineData("""{"platform":"fcm"}""", "token")]
    [InlineData("""{"platform":"fcm","token":"short"}""", "token")]
    [InlineData("""{"platform":"fcm","token":"$FCM","voipToken":"abababab"}""", "voipToken")]
    [InlineData("""{"platform":"fcm","token":"$FCM","environment":"production"}""", "environment")]
    [InlineData("""{"platform":"fcm","token":"$FCM","subscription":{"endpoint":"https://push.example/x"}}""", "subscription")]
    [InlineData("""{"platform":"fcm","token":"$FCM","encryption":{"p256dh":"AAAA"}}""", "encryption.auth", "encryption.p256dh")]
    [InlineData("""{"platform":"jpush","token":"not-one"}""", "token")]
    [InlineData("""{"platform":"jpush","token":"1a","environment":"moon"}""", "environment")]
    [InlineData("""{"platform":"webpush"}""", "subscription")]
    [InlineData("""{"platform":"webpush","token":"$FCM"}""", "subscription", "token")]
    [InlineData("""{"platform":"webpush","subscription":{}}""", "subscription")]
    [InlineData(
        """{"platform":"webpush","subscription":{"endpoint":"https://127.0.0.1/x","keys":{"p256dh":"x","auth":"y"},"expirationTime":-1}}""",
        "subscription.endpoint",
        "subscription.expirationTime",
        "subscription.keys.auth",
        "subscription.keys.p256dh"
    )]
    [InlineData("""{"platform":"pigeon","token":"$FCM"}""", "platform")]
    public async Task What_a_network_does_not_take_is_refused_by_its_field(string body, params string[] fields)
    {
        var json = JsonNode.Parse(body.Replace("$FCM", FcmToken, StringComparison.Ordinal))!.AsObject();
        (json["account"], json["app"]) = (TestRelay.Bob, TestRelay.App);

        using var answer = await client.PostAsJsonAsync("/v1/devices", json, Token);
        var problem = (await answer.Content.ReadFromJsonAsync<JsonObject>(Token))!;

        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal(fields, problem["errors"]!.AsObject().Select(e => e.Key).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Nothing_of_a_subscription_stands_in_the_database_in_clear()
    {
        using var subscription = webPush.Subscribe();
        await RegisterAsync("webpush", ("subscription", subscription.ToJson()));

        await using var db = relay.NewDb();
        var device = Assert.Single(db.Set<PushRelay.Devices.Device>());
        var stored = device.Tokens.ToJson();

        foreach (var secret in (string[])[subscription.Id, subscription.Subscriber.P256dh, subscription.Subscriber.Auth])
        {
            Assert.DoesNotContain(secret, stored, StringComparison.Ordinal);
            Assert.DoesNotContain(secret[..6], stored, StringComparison.Ordinal);
        }
    }

    private Task<(HttpStatusCode Status, JsonObject Device)> RegisterAsync(string platform, params (string, JsonNode)[] members) =>
        SendAsync(HttpMethod.Post, "/v1/devices", platform, members);

    private Task<(HttpStatusCode Status, JsonObject Device)> PutAsync(string id, string platform, params (string, JsonNode)[] members) =>
        SendAsync(HttpMethod.Put, $"/v1/devices/{id}", platform, members);

    private async Task<(HttpStatusCode Status, JsonObject Device)> SendAsync(
        HttpMethod method,
        string path,
        string platform,
        (string, JsonNode)[] members
    )
    {
        var body = new JsonObject
        {
            ["account"] = TestRelay.Bob,
            ["app"] = TestRelay.App,
            ["platform"] = platform,
        };
        foreach (var (name, value) in members)
        {
            body[name] = value;
        }

        using var request = new HttpRequestMessage(method, path)
        {
            Content = new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json"),
        };
        using var answer = await client.SendAsync(request, Token);
        var text = await answer.Content.ReadAsStringAsync(Token);
        Assert.True(answer.IsSuccessStatusCode, text);
        return (answer.StatusCode, JsonNode.Parse(text)!.AsObject());
    }
}
