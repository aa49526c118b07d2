using System.Net.Http.Json;
using System.Text.Json.Nodes;
using PushRelay.Apns;
using PushRelay.Devices;
using PushRelay.Push.Apns;

namespace PushRelay.Tests.Devices;

/// <summary>What a registration forgives, and what it warns of.</summary>
public sealed class KindRegistrationTests : IAsyncLifetime
{
    private TestRelay relay = null!;
    private HttpClient client = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();
        client = relay.NewClient();
    }

    public ValueTask DisposeAsync()
    {
        client.Dispose();
        return relay.DisposeAsync();
    }

    [Theory]
    [InlineData("Asia/Calcutta", "Asia/Kolkata")]
    [InlineData("Europe/Kiev", "Europe/Kyiv")]
    [InlineData("Asia/Shanghai", "Asia/Shanghai")]
    [InlineData("US/Pacific", "America/Los_Angeles")]
    public async Task An_old_name_of_a_time_zone_is_the_present_one(string given, string kept)
    {
        var device = await PutAsync("phone", new { timeZone = given });

        Assert.Equal(kept, (string?)device["timeZone"]);
    }

    [Fact]
    public async Task A_second_device_with_the_same_resource_is_warned_of()
    {
        var first = await PutAsync("one", new { resource = "phone" });
        var second = await PutAsync("two", new { resource = "phone" });
        var third = await PutAsync("three", new { resource = "tablet" });

        Assert.Null(first["warnings"]);
        Assert.Contains("Device one", (string)Assert.Single(second["warnings"]!.AsArray())!, StringComparison.Ordinal);
        Assert.Null(third["warnings"]);
        // a device that is shown later has no warnings: they were the registration's
        Assert.Null(JsonNode.Parse(await client.GetStringAsync($"/v1/devices/two?account={TestRelay.Bob}", Token))!["warnings"]);
    }

    [Fact]
    public async Task A_token_that_was_another_devices_is_warned_of_and_audited()
    {
        var token = TestRelay.NewToken();
        await PutAsync("old", new { token });
        await PutAsync("carols", new { token, account = "carol@example.com" });
        var again = await PutAsync("new", new { token });
        var replaced = await PutAsync("newer", new { token });

        var warning = (string)Assert.Single(again["warnings"]!.AsArray())!;
        Assert.Contains("another account", warning, StringComparison.Ordinal);
        Assert.DoesNotContain("carol", warning, StringComparison.Ordinal);
        // the same phone with another installation id keeps its device
        Assert.Null(replaced["warnings"]);
        var audit = JsonNode.Parse(await client.GetStringAsync("/v1/audit", Token))!["items"]!.AsArray();
        Assert.Equal(2, audit.Count(i => (string?)i!["action"] == "device.moved"));
    }

    [Fact]
    public async Task A_device_that_does_not_register_for_half_a_year_is_invalid_until_it_does()
    {
        // not one that serves: each second of its timers would pass
        await using var idle = await TestRelay.OpenAsync();
        await idle.RegisterAsync(id: "old");
        idle.Advance(TimeSpan.FromDays(100));
        await idle.RegisterAsync(id: "young");
        idle.Advance(TimeSpan.FromDays(81));

        Assert.Equal(1, await idle.Devices.InvalidateOldAsync(TimeSpan.FromDays(180), 10, Token));

        var devices = await idle.Devices.ListAsync(TestRelay.Bob, null, 10, Token);
        Assert.Equal(
            [("old", DeviceStatus.Invalid, "not_renewed"), ("young", DeviceStatus.Active, null)],
            devices.OrderBy(d => d.Id, StringComparer.Ordinal).Select(d => (d.Id, d.Status, d.StatusReason))
        );
        Assert.Equal(0, await idle.Devices.InvalidateOldAsync(TimeSpan.FromDays(180), 10, Token));
    }

    [Theory]
    [InlineData(null, null, null, null)]
    [InlineData("https://127.0.0.1:2197", null, "https://127.0.0.1:2197/", null)]
    [InlineData("https://127.0.0.1:2197", "https://127.0.0.1:2198", "https://127.0.0.1:2197/", "https://127.0.0.1:2198/")]
    [InlineData("https://api.push.apple.com:2197", null, "https://api.push.apple.com:2197/", "https://api.sandbox.push.apple.com:2197/")]
    public void Each_environment_has_its_own_endpoint(string? endpoint, string? sandboxEndpoint, string? production, string? sandbox)
    {
        var options = new ApnsOptions { Endpoint = endpoint, SandboxEndpoint = sandboxEndpoint };

        Assert.Equal(production, options.EndpointOf(ApnsEnvironment.Production)?.AbsoluteUri);
        Assert.Equal(sandbox, options.EndpointOf(ApnsEnvironment.Sandbox)?.AbsoluteUri);
    }

    private async Task<JsonNode> PutAsync(string id, object more)
    {
        var body = JsonNode.Parse(System.Text.Json.JsonSerializer.Serialize(more))!.AsObject();
        (body["app"], body["platform"]) = (TestRelay.App, "apns");
        body.TryAdd("account", TestRelay.Bob);
        body.TryAdd("token", TestRelay.NewToken());
        using var answer = await client.PutAsJsonAsync($"/v1/devices/{id}", body, Token);
        return JsonNode.Parse(await answer.EnsureSuccessStatusCode().Content.ReadAsStringAsync(Token))!;
    }
}
