using System.Net;
using System.Text;
using System.Text.Json;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

public sealed class ControlPortTests
{
    [Fact]
    public async Task What_came_in_can_be_read_filtered_and_forgotten()
    {
        await using var bed = await ApnsBed.StartAsync();
        using var control = new HttpClient { BaseAddress = bed.Simulator.ControlEndpoint };
        await bed.SendAsync(ApnsBed.Alert(1) with { CollapseId = "c" });
        await bed.SendAsync(ApnsBed.Alert(2));

        var one = await GetAsync(control, $"/notifications?token={ApnsBed.Token(1).ToUpperInvariant()}");
        var all = await GetAsync(control, "/notifications");
        var deleted = await control.DeleteAsync(new Uri("/notifications", UriKind.Relative), TestContext.Current.CancellationToken);
        var none = await GetAsync(control, "/notifications");

        var item = Assert.Single(one.GetProperty("items").EnumerateArray());
        Assert.Equal(ApnsBed.Token(1), item.GetProperty("deviceToken").GetString());
        Assert.Equal("c", item.GetProperty("headers").GetProperty("apns-collapse-id").GetString());
        Assert.Equal("hello", item.GetProperty("payload").GetProperty("aps").GetProperty("alert").GetProperty("body").GetString());
        Assert.Equal(200, item.GetProperty("status").GetInt32());
        Assert.Equal(2, all.GetProperty("items").GetArrayLength());
        Assert.Equal(HttpStatusCode.NoContent, deleted.StatusCode);
        Assert.Empty(none.GetProperty("items").EnumerateArray());
    }

    [Fact]
    public async Task A_script_is_posted_shown_used_up_and_cleared()
    {
        await using var bed = await ApnsBed.StartAsync();
        using var control = new HttpClient { BaseAddress = bed.Simulator.ControlEndpoint };

        var posted = await PostAsync(
            control,
            $$"""
            {"rules":[{"status":503,"skip":1,"retryAfter":"7","delay":1},{"token":"{{ApnsBed.Token(
                9
            )}}","status":410,"timestamp":"2026-11-23T01:00:00Z","times":2}]}
            """
        );
        var responses = new List<ApnsResponse>();
        foreach (var number in new[] { 1, 2, 3, 9 })
        {
            responses.Add(await bed.SendAsync(ApnsBed.Alert(number)));
        }

        var left = await GetAsync(control, "/script");

        Assert.Equal(HttpStatusCode.NoContent, posted.StatusCode);
        Assert.Equal([200, 503, 200, 410], responses.Select(response => response.Status ?? 0));
        Assert.Equal(TimeSpan.FromSeconds(7), responses[1].RetryAfter);
        Assert.Equal(DateTimeOffset.Parse("2026-11-23T01:00:00Z", null), responses[3].InvalidSince);
        Assert.Equal(1, Assert.Single(left.GetProperty("rules").EnumerateArray()).GetProperty("times").GetInt32());
        await control.DeleteAsync(new Uri("/script", UriKind.Relative), TestContext.Current.CancellationToken);
        Assert.Empty(bed.Simulator.Rules);
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("7")]
    [InlineData("[null]")]
    [InlineData("{\"statsu\":503}")]
    [InlineData("{\"status\":99}")]
    [InlineData("{\"times\":0}")]
    [InlineData("[{\"status\":503},{\"status\":\"x\"}]")]
    [InlineData("{\"delay\":\"soon\"}")]
    public async Task A_broken_script_is_refused_whole(string body)
    {
        await using var simulator = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions(), TestContext.Current.CancellationToken);
        using var control = new HttpClient { BaseAddress = simulator.ControlEndpoint };

        var response = await PostAsync(control, body);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        Assert.Empty(simulator.Rules);
    }

    [Fact]
    public async Task The_authority_and_the_health_are_served()
    {
        await using var simulator = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions(), TestContext.Current.CancellationToken);
        using var control = new HttpClient { BaseAddress = simulator.ControlEndpoint };

        Assert.Equal(
            simulator.CaPem,
            await control.GetStringAsync(new Uri("/ca.pem", UriKind.Relative), TestContext.Current.CancellationToken)
        );
        Assert.Equal("ok", (await GetAsync(control, "/health")).GetProperty("status").GetString());
    }

    [Theory]
    [InlineData("0.0.0.0", "127.0.0.1")]
    [InlineData("::1", "[::1]")]
    public async Task Bound_to_another_address_it_says_where_it_is_reached(string bound, string host)
    {
        var address = IPAddress.Parse(bound);
        await using var bed = await ApnsBed.StartAsync(simulated =>
            simulated with
            {
                Address = address,
                ControlAddress = address,
                HostNames = ["apns-sim"],
            }
        );
        using var control = new HttpClient { BaseAddress = bed.Simulator.ControlEndpoint };

        Assert.Equal((host, host), (bed.Simulator.Endpoint.Host, bed.Simulator.ControlEndpoint.Host));
        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
        Assert.Equal(1, (await GetAsync(control, "/health")).GetProperty("received").GetInt32());
    }

    [Fact]
    public async Task Faults_phones_and_connections_are_ordered_from_outside()
    {
        await using var bed = await ApnsBed.StartAsync();
        using var control = new HttpClient { BaseAddress = bed.Simulator.ControlEndpoint };
        var device = new Uri($"/devices/{ApnsBed.Token()}", UriKind.Relative);
        using var offline = new StringContent("""{"topic":"com.example.chat","online":false}""");
        using var nonsense = new StringContent("""{"online":"maybe"}""");

        Assert.Equal(HttpStatusCode.NotFound, (await control.GetAsync(device, TestContext.Current.CancellationToken)).StatusCode);
        Assert.Equal(HttpStatusCode.NoContent, (await control.PutAsync(device, offline, TestContext.Current.CancellationToken)).StatusCode);
        Assert.Equal(
            HttpStatusCode.BadRequest,
            (await control.PutAsync(device, nonsense, TestContext.Current.CancellationToken)).StatusCode
        );
        Assert.Equal(HttpStatusCode.NoContent, (await PostAsync(control, """{"fault":"refuse","skip":1}""")).StatusCode);
        await bed.SendAsync();
        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
        var phone = await GetAsync(control, device.ToString());
        Assert.Equal((0, 1), (phone.GetProperty("screen").GetArrayLength(), phone.GetProperty("stored").GetArrayLength()));

        Assert.Equal(HttpStatusCode.NoContent, (await PostAsync(control, "", "/connections/goAway")).StatusCode);
        Assert.Equal(HttpStatusCode.BadRequest, (await PostAsync(control, "", "/connections/stall")).StatusCode);
        Assert.Equal(
            HttpStatusCode.NoContent,
            (await control.PutAsync(new Uri("/streams/10", UriKind.Relative), null, TestContext.Current.CancellationToken)).StatusCode
        );
        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
        Assert.Equal(2, (await GetAsync(control, "/health")).GetProperty("connectionsSeen").GetInt32());
    }

    private static async Task<JsonElement> GetAsync(HttpClient control, string path)
    {
        using var json = JsonDocument.Parse(
            await control.GetStringAsync(new Uri(path, UriKind.Relative), TestContext.Current.CancellationToken)
        );
        return json.RootElement.Clone();
    }

    private static async Task<HttpResponseMessage> PostAsync(HttpClient control, string body, string path = "/script")
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        return await control.PostAsync(new Uri(path, UriKind.Relative), content, TestContext.Current.CancellationToken);
    }
}
