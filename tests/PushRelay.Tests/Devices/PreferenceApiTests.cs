using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Outbox;

namespace PushRelay.Tests.Devices;

/// <summary>Preferences by merge patch, what they do to alerts, and conditional requests.</summary>
public sealed class PreferenceApiTests : IAsyncLifetime
{
    private TestRelay relay = null!;
    private HttpClient client = null!;
    private string device = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();
        client = relay.NewClient();
        device = (await relay.RegisterAsync(id: "phone")).Id;
    }

    public async ValueTask DisposeAsync()
    {
        client.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task A_patch_changes_what_it_names_null_resets_and_an_array_replaces_whole()
    {
        var first = await PatchAsync(
            """
            {"preview":"sender","muted":["Room@Conference.Example.com","a@b.example"],
             "quietHours":{"from":"22:00","to":"07:00","timeZone":"Asia/Shanghai"}}
            """
        );
        var second = await PatchAsync("""{"muted":["x@y.example"],"quietHours":{"to":"08:30"}}""");
        var third = await PatchAsync("""{"preview":null,"quietHours":null}""");

        Assert.Equal("""["room@conference.example.com","a@b.example"]""", first["muted"]!.ToJsonString());
        Assert.Equal("""["x@y.example"]""", second["muted"]!.ToJsonString());
        Assert.Equal("sender", (string?)second["preview"]);
        Assert.Equal(
            """{"from":"22:00","to":"08:30","timeZone":"Asia/Shanghai","alerts":"silent","calls":false}""",
            second["quietHours"]!.ToJsonString()
        );
        Assert.Null(third["preview"]);
        Assert.Null(third["quietHours"]);
        Assert.NotNull(third["muted"]);
    }

    [Fact]
    public async Task A_registration_keeps_the_preferences()
    {
        await PatchAsync("""{"muted":["x@y.example"]}""");

        await relay.RegisterAsync(id: "phone");

        Assert.Equal(
            """["x@y.example"]""",
            JsonNode.Parse(await client.GetStringAsync("/v1/devices/phone", Token))!["muted"]!.ToJsonString()
        );
    }

    [Theory]
    [InlineData("""{"preview":"most"}""", "preview")]
    [InlineData("""{"preview":1}""", "preview")]
    [InlineData("""{"muted":"room@x.example"}""", "muted")]
    [InlineData("""{"muted":["b.example/phone"]}""", "muted[0]")]
    [InlineData("""{"muted":["a@b.example",7]}""", "muted[1]")]
    [InlineData("""{"quietHours":{"from":"22:00","to":"7","timeZone":"Asia/Shanghai"}}""", "quietHours.to")]
    [InlineData("""{"quietHours":{"from":"22:00","to":"22:00","timeZone":"Asia/Shanghai"}}""", "quietHours.to")]
    [InlineData("""{"quietHours":{"from":"22:00","to":"07:00"}}""", "quietHours.timeZone")]
    [InlineData("""{"quietHours":{"from":"22:00","to":"07:00","timeZone":"Mars/Olympus"}}""", "quietHours.timeZone")]
    [InlineData("""{"quietHours":{"from":"22:00","to":"07:00","timeZone":"Asia/Shanghai","zone":1}}""", "quietHours.zone")]
    [InlineData("""{"quietHours":"night"}""", "quietHours")]
    [InlineData("""{"token":"aa"}""", "token")]
    [InlineData("""{"status":"active"}""", "status")]
    [InlineData("""{"preview":"none","preview":"full"}""", "preview")]
    [InlineData("""{"pre\ud800view":null}""", "$")]
    [InlineData("""{"muted":["\ud800@b.example"]}""", "$")]
    [InlineData("""[]""", "$")]
    public async Task A_bad_patch_is_refused_with_the_field_named_and_nothing_stored(string patch, string field)
    {
        using var answer = await SendAsync(patch);

        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        var problem = JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!;
        Assert.Contains(field, problem["errors"]!.AsObject().Select(e => e.Key));
        Assert.Null(Assert.Single(await relay.Devices.ListAsync((string?)null, null, 10, Token)).Preferences);
    }

    [Theory]
    [InlineData("application/merge-patch+json", 200)]
    [InlineData("application/json", 200)]
    [InlineData("application/json-patch+json", 415)]
    public async Task A_patch_comes_as_merge_patch_or_as_json(string type, int status)
    {
        using var answer = await SendAsync("{}", type);

        Assert.Equal(status, (int)answer.StatusCode);
    }

    [Fact]
    public async Task A_patch_that_changes_nothing_leaves_no_trace()
    {
        await PatchAsync("""{"muted":["x@y.example"]}""");
        var before = (await relay.Get<AuditTrail>().ListAsync((string?)null, null, 100, Token)).Count;

        await PatchAsync("""{"muted":["x@y.example"]}""");
        await PatchAsync("""{"preview":null}""");

        Assert.Equal(before, (await relay.Get<AuditTrail>().ListAsync((string?)null, null, 100, Token)).Count);
    }

    [Fact]
    public async Task A_muted_conversation_is_withheld_and_another_is_not()
    {
        await PatchAsync($$"""{"muted":["{{TestRelay.Alice}}"]}""");

        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2", m => m with { From = "carol@example.com" });

        Assert.Equal([Reasons.Muted, Reasons.Offline], (await relay.RowsAsync()).Select(r => r.Reason));
    }

    [Theory]
    // preferences, a message that does not name the account, one that does, a private message, a chat
    [InlineData("""{"mentionsOnly":["room@rooms.example.com"]}""", "not_mentioned", "offline", "offline", "offline")]
    [InlineData("""{"mentionsOnly":["other@rooms.example.com"]}""", "offline", "offline", "offline", "offline")]
    [InlineData("""{"groups":"mentions"}""", "not_mentioned", "offline", "offline", "offline")]
    [InlineData("""{"groups":"none"}""", "muted", "muted", "offline", "offline")]
    [InlineData("""{"groups":"none","mentionsOnly":["room@rooms.example.com"]}""", "not_mentioned", "offline", "offline", "offline")]
    [InlineData("""{"groups":"all","muted":["room@rooms.example.com"]}""", "muted", "muted", "offline", "offline")]
    [InlineData("""{"muted":["room@rooms.example.com/Rose"]}""", "offline", "offline", "muted", "offline")]
    public async Task What_a_room_may_say(string preferences, string unnamed, string named, string whispered, string chat)
    {
        await PatchAsync(preferences);
        const string Room = "room@rooms.example.com";

        await relay.CommitMessageAsync("1", m => m with { From = Room, Type = "groupchat" });
        await relay.CommitMessageAsync("2", m => m with { From = Room, Type = "groupchat", Mention = true });
        await relay.CommitMessageAsync("3", m => m with { From = Room + "/Rose" });
        await relay.CommitMessageAsync("4");

        Assert.Equal([unnamed, named, whispered, chat], (await relay.RowsAsync()).Select(r => r.Reason));
    }

    [Theory]
    [InlineData("""{"alerts":"silent","calls":false}""", true, true)]
    [InlineData("""{}""", true, true)]
    [InlineData("""{"calls":true}""", true, false)]
    public async Task Quiet_hours_take_the_sound_away(string more, bool message, bool call)
    {
        var hours = JsonNode.Parse("""{"from":"19:30","to":"07:00","timeZone":"Asia/Shanghai"}""")!.AsObject();
        foreach (var (name, value) in JsonNode.Parse(more)!.AsObject())
        {
            hours[name] = value!.DeepClone();
        }

        await PatchAsync(new JsonObject { ["quietHours"] = hours }.ToJsonString());

        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync(null, m => m with { Class = EventClass.Call, CallId = "c" });

        var rows = await relay.RowsAsync();
        Assert.Equal(["offline", "call"], rows.Select(r => r.Reason));
        Assert.Equal([message, call], rows.Select(r => AlertContent.Open(relay.MasterKey, r).Silent));
    }

    [Fact]
    public async Task Quiet_hours_without_alerts_withhold_by_the_clock_of_their_zone()
    {
        // 12:00 UTC is 20:00 in Shanghai
        await PatchAsync("""{"quietHours":{"from":"20:30","to":"07:00","timeZone":"Asia/Shanghai","alerts":"none"}}""");

        await relay.CommitMessageAsync("1");
        relay.Advance(TimeSpan.FromMinutes(31));
        await relay.CommitMessageAsync("2");

        Assert.Equal([Reasons.Offline, Reasons.QuietHours], (await relay.RowsAsync()).Select(r => r.Reason));
    }

    [Theory]
    [InlineData("2026-03-28T20:59:00Z", false)]
    [InlineData("2026-03-28T21:00:00Z", true)]
    [InlineData("2026-03-29T04:59:00Z", true)]
    [InlineData("2026-03-29T05:00:00Z", false)]
    [InlineData("2026-03-29T20:00:00Z", true)]
    public void Quiet_hours_follow_summer_time(string at, bool quiet) =>
        Assert.Equal(
            quiet,
            new QuietHours(new TimeOnly(22, 0), new TimeOnly(7, 0), "Europe/Berlin").Contains(
                DateTimeOffset.Parse(at, CultureInfo.InvariantCulture)
            )
        );

    [Fact]
    public async Task A_change_of_what_is_no_longer_there_as_expected_is_refused()
    {
        var tag = (await client.GetAsync("/v1/devices/phone", Token)).Headers.ETag!.ToString();
        await PatchAsync("""{"preview":"none"}""");

        Assert.Equal(412, (int)(await SendAsync("""{"preview":"full"}""", ifMatch: tag)).StatusCode);
        Assert.Equal(412, (int)(await SendAsync("""{"preview":"full"}""", ifMatch: "nonsense, \"x")).StatusCode);
        using var delete = new HttpRequestMessage(HttpMethod.Delete, "/v1/devices/phone");
        delete.Headers.TryAddWithoutValidation("If-Match", tag);
        Assert.Equal(412, (int)(await client.SendAsync(delete, Token)).StatusCode);
        Assert.Equal(200, (int)(await SendAsync("""{"preview":"full"}""", ifMatch: "*")).StatusCode);
    }

    [Fact]
    public async Task If_None_Match_makes_a_registration_that_replaces_nothing()
    {
        Assert.Equal(412, (int)(await PutAsync("phone")).StatusCode);
        Assert.Equal(201, (int)(await PutAsync("tablet")).StatusCode);
    }

    private async Task<JsonNode> PatchAsync(string patch)
    {
        using var answer = await SendAsync(patch);
        return JsonNode.Parse(await answer.EnsureSuccessStatusCode().Content.ReadAsStringAsync(Token))!;
    }

    private async Task<HttpResponseMessage> SendAsync(string patch, string type = "application/merge-patch+json", string? ifMatch = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Patch, $"/v1/devices/{device}")
        {
            Content = new StringContent(patch, Encoding.UTF8, type),
        };
        if (ifMatch is not null)
        {
            request.Headers.TryAddWithoutValidation("If-Match", ifMatch);
        }

        return await client.SendAsync(request, Token);
    }

    private async Task<HttpResponseMessage> PutAsync(string id)
    {
        using var request = new HttpRequestMessage(HttpMethod.Put, $"/v1/devices/{id}")
        {
            Content = JsonContent.Create(
                new
                {
                    account = TestRelay.Bob,
                    app = TestRelay.App,
                    platform = "apns",
                    token = TestRelay.NewToken(),
                }
            ),
        };
        request.Headers.TryAddWithoutValidation("If-None-Match", "*");
        return await client.SendAsync(request, Token);
    }
}
