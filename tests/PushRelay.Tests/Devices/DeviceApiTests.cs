using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;

namespace PushRelay.Tests.Devices;

/// <summary>The REST interface over a real socket: what is taken, and how each bad input is refused.</summary>
public sealed class DeviceApiTests : IAsyncLifetime
{
    private static readonly string DeviceToken = new('a', 64);

    private TestRelay relay = null!;
    private HttpClient client = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();
        client = relay.NewClient();
    }

    public async ValueTask DisposeAsync()
    {
        client.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task A_registration_answers_201_first_and_200_after_with_a_location()
    {
        using var first = await PostAsync(Registration());
        using var second = await PostAsync(Registration());

        Assert.Equal([HttpStatusCode.Created, HttpStatusCode.OK], [first.StatusCode, second.StatusCode]);
        var device = await JsonAsync(first);
        Assert.Equal($"/v1/devices/{device["id"]}", first.Headers.Location!.ToString());
        Assert.Equal(first.Headers.Location, second.Headers.Location);
        Assert.Equal("aaaa…aaaa", (string?)device["token"]);
        Assert.Equal("active", (string?)device["status"]);
        Assert.Equal("production", (string?)device["environment"]);
        Assert.Equal("push.example.com", (string?)device["push"]!["jid"]);
        Assert.Equal(32, ((string)device["push"]!["node"]!).Length);
        Assert.DoesNotContain(DeviceToken, await second.Content.ReadAsStringAsync(Token), StringComparison.Ordinal);
        Assert.Equal((string?)device["push"]!["secret"], (string?)(await JsonAsync(second))["push"]!["secret"]);
    }

    [Fact]
    public async Task A_device_is_shown_listed_and_removed()
    {
        using var created = await PostAsync(Registration());
        var location = created.Headers.Location!;

        Assert.Equal(DeviceToken[..4], ((string)(await JsonAsync(await client.GetAsync(location, Token)))["token"]!)[..4]);
        Assert.Single(
            (await JsonAsync(await client.GetAsync($"/v1/devices?account={Uri.EscapeDataString("BOB@Example.com")}", Token)))[
                "items"
            ]!.AsArray()
        );
        Assert.Empty((await JsonAsync(await client.GetAsync("/v1/devices?account=carol@example.com", Token)))["items"]!.AsArray());
        Assert.Equal(HttpStatusCode.NoContent, (await client.DeleteAsync(location, Token)).StatusCode);
        await AssertProblemAsync(await client.DeleteAsync(location, Token), 404, "not_found");
        await AssertProblemAsync(await client.GetAsync(location, Token), 404, "not_found");
        await AssertProblemAsync(
            await client.PatchAsync(location, new StringContent("{}", Encoding.UTF8, "application/json"), Token),
            404,
            "not_found"
        );
    }

    [Fact]
    public async Task An_installation_replaces_its_token_in_place()
    {
        using var first = await PutAsync("phone-1", Registration());
        using var second = await PutAsync("phone-1", Registration(token: new string('b', 64)));

        Assert.Equal([HttpStatusCode.Created, HttpStatusCode.OK], [first.StatusCode, second.StatusCode]);
        Assert.Equal(("phone-1", "bbbb…bbbb"), ((string)(await JsonAsync(second))["id"]!, (string)(await JsonAsync(second))["token"]!));
        Assert.Single((await JsonAsync(await client.GetAsync("/v1/devices", Token)))["items"]!.AsArray());
    }

    [Fact]
    public async Task A_token_is_taken_as_NSData_describes_it()
    {
        using var answer = await PostAsync(Registration(token: "<" + string.Join(' ', Enumerable.Repeat("AABBCCDD", 8)) + ">"));

        Assert.Equal("aabb…ccdd", (string?)(await JsonAsync(answer))["token"]);
    }

    [Fact]
    public async Task An_id_that_two_accounts_use_asks_for_the_account()
    {
        await PutAsync("phone", Registration());
        await PutAsync("phone", Registration(account: "carol@example.com", token: new string('b', 64)));

        await AssertProblemAsync(await client.GetAsync("/v1/devices/phone", Token), 400, "validation", "account");
        Assert.Equal(HttpStatusCode.OK, (await client.GetAsync("/v1/devices/phone?account=carol@example.com", Token)).StatusCode);
        await AssertProblemAsync(await client.GetAsync("/v1/devices/phone?account=dave@example.com", Token), 404, "not_found");
    }

    [Fact]
    public async Task A_list_is_paged_newest_first()
    {
        for (var i = 0; i < 5; i++)
        {
            await PutAsync($"d{i}", Registration(token: $"{i}{new string('c', 63)}"));
        }

        var ids = new List<string>();
        string? cursor = null;
        do
        {
            var page = await JsonAsync(await client.GetAsync($"/v1/devices?limit=2{(cursor is null ? "" : $"&cursor={cursor}")}", Token));
            ids.AddRange(page["items"]!.AsArray().Select(item => (string)item!["id"]!));
            cursor = (string?)page["next"];
        } while (cursor is not null);

        Assert.Equal(["d4", "d3", "d2", "d1", "d0"], ids);
    }

    [Theory]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns"}""", "token")]
    [InlineData("""{"app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""{"account":"bob@example.com","platform":"apns","token":"$"}""", "app")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","token":"$"}""", "platform")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"fcm","token":"$"}""", "platform")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"abc"}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$z"}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":""}""", "token")]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"q6urq6urq6urq6urq6urq6urq6ur"""
            + """q6urq6urq6urq6urq6urq6urq6urq6urq6ur"}""",
        "token"
    )]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$a"}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$$$$$$$"}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":7}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":["$"]}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","token":"$"}""", "token")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","colour":"red"}""", "colour")]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","id":"mine"}""", "id")]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","environment":"prod"}""",
        "environment"
    )]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","voipToken":"short"}""",
        "voipToken"
    )]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","resource":""}""", "resource")]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","resource":"a\u0000b"}""",
        "resource"
    )]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","resource":"a\u202eb"}""",
        "resource"
    )]
    [InlineData("""{"account":"b\u200bob@example.com","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""{"account":"bob\ue000@example.com","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","timeZone":"../../../etc/passwd"}""",
        "timeZone"
    )]
    [InlineData(
        """{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","timeZone":"Mars/Olympus"}""",
        "timeZone"
    )]
    [InlineData("""{"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"$","exclusive":"no"}""", "exclusive")]
    [InlineData("""{"account":"bob@elsewhere.example","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""{"account":"bob@example.com/phone","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""{"account":"example.com","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""{"account":"","app":"com.example.chat","platform":"apns","token":"$"}""", "account")]
    [InlineData("""[]""", "$")]
    [InlineData("""null""", "$")]
    [InlineData("""{"account":""", "$")]
    [InlineData("", "$")]
    public async Task A_bad_registration_is_refused_with_the_field_named_and_nothing_stored(string body, string field)
    {
        using var answer = await PostAsync(body.Replace("$", DeviceToken, StringComparison.Ordinal));

        await AssertProblemAsync(answer, 400, "validation", field);
        Assert.Empty(await relay.Devices.ListAsync((string?)null, null, 10, Token));
    }

    [Fact]
    public async Task An_app_that_is_not_configured_is_refused_without_naming_those_that_are()
    {
        using var answer = await PostAsync(Registration().Replace("com.example.chat", "com.example.other", StringComparison.Ordinal));

        var problem = await AssertProblemAsync(answer, 400, "unknown_app", "app");
        Assert.DoesNotContain("com.example.chat", problem.ToJsonString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("-phone")]
    [InlineData(".")]
    [InlineData("a b")]
    [InlineData("a%2Fb")]
    [InlineData("%C3%A4")]
    public async Task An_installation_id_outside_its_alphabet_is_refused(string id)
    {
        using var answer = await PutAsync(id, Registration());

        Assert.Contains(
            answer.StatusCode,
            (HttpStatusCode[])[HttpStatusCode.BadRequest, HttpStatusCode.NotFound, HttpStatusCode.MethodNotAllowed]
        );
        Assert.Empty(await relay.Devices.ListAsync((string?)null, null, 10, Token));
    }

    [Fact]
    public async Task A_body_over_16_KiB_is_refused()
    {
        using var answer = await PostAsync(Registration() + new string(' ', 17 * 1024));

        await AssertProblemAsync(answer, 413, "too_large");
    }

    [Fact]
    public async Task A_body_over_16_KiB_in_chunks_is_refused()
    {
        using var content = new StreamContent(new MemoryStream(Encoding.UTF8.GetBytes(Registration() + new string(' ', 17 * 1024))));
        content.Headers.ContentType = new("application/json");
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/devices") { Content = content };
        request.Headers.TransferEncodingChunked = true;

        using var answer = await client.SendAsync(request, Token);

        await AssertProblemAsync(answer, 413, "too_large");
    }

    [Theory]
    [InlineData("text/plain")]
    [InlineData("application/xml")]
    [InlineData("application/json; charset=utf-16")]
    [InlineData(null)]
    public async Task Another_content_type_is_refused(string? type)
    {
        using var content = new ByteArrayContent(Encoding.UTF8.GetBytes(Registration()));
        content.Headers.ContentType = type is null ? null : MediaTypeHeaderValue.Parse(type);

        using var answer = await client.PostAsync("/v1/devices", content, Token);

        await AssertProblemAsync(answer, 415, "unsupported_media_type");
    }

    [Theory]
    [InlineData("limit=0", "validation", "limit")]
    [InlineData("limit=201", "validation", "limit")]
    [InlineData("limit=-1", "validation", "limit")]
    [InlineData("limit=99999999999999999999", "validation", "limit")]
    [InlineData("limit=ten", "validation", "limit")]
    [InlineData("cursor=abc", "bad_cursor", "cursor")]
    [InlineData("cursor=%27%20OR%201%3D1--", "bad_cursor", "cursor")]
    [InlineData("state=gone", "validation", "state")]
    [InlineData("state=1", "validation", "state")]
    [InlineData("from=yesterday", "validation", "from")]
    [InlineData("from=10:30", "validation", "from")]
    [InlineData("from=1/2/2026", "validation", "from")]
    [InlineData("from=2026-01-01", "validation", "from")]
    [InlineData("to=2026-13-01", "validation", "to")]
    public async Task A_bad_query_is_refused_with_the_field_named(string query, string code, string field) =>
        await AssertProblemAsync(await client.GetAsync($"/v1/deliveries?{query}", Token), 400, code, field);

    [Theory]
    [InlineData(null)]
    [InlineData("Bearer")]
    [InlineData("Bearer wrong")]
    [InlineData("Basic b3BzOnNlY3JldA==")]
    [InlineData("an operator's key for tests")]
    public async Task Without_a_good_key_nothing_is_told(string? authorization)
    {
        using var stranger = relay.NewClient(key: null);
        if (authorization is not null)
        {
            stranger.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", authorization);
        }

        foreach (
            var path in (string[])["/v1/devices", "/v1/devices/x", "/v1/deliveries", $"/v1/deliveries/{Guid.NewGuid()}", "/v1/unknown"]
        )
        {
            using var answer = await stranger.GetAsync(path, Token);

            await AssertProblemAsync(answer, 401, "unauthorized");
            Assert.Equal("Bearer", answer.Headers.WwwAuthenticate.Single().Scheme);
        }
    }

    [Fact]
    public async Task Two_credentials_are_none()
    {
        using var stranger = relay.NewClient(key: null);
        stranger.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", [$"Bearer {TestRelay.OperatorKey}", "Bearer other"]);

        await AssertProblemAsync(await stranger.GetAsync("/v1/devices", Token), 401, "unauthorized");
    }

    [Fact]
    public async Task What_is_not_there_and_what_is_not_allowed_are_problems_too()
    {
        await AssertProblemAsync(await client.GetAsync("/v2/devices", Token), 404, "not_found");
        await AssertProblemAsync(await client.GetAsync("/v1/deliveries/not-an-id", Token), 404, "not_found");
        Assert.Empty((await JsonAsync(await client.GetAsync("/v1/deliveries?device=%00", Token)))["items"]!.AsArray());
        await AssertProblemAsync(
            await client.GetAsync("/v1/devices?account=nobody@elsewhere.example&limit=0", Token),
            400,
            "validation",
            "limit"
        );
        await AssertProblemAsync(await client.GetAsync($"/v1/deliveries/{Guid.NewGuid()}", Token), 404, "not_found");
        using var patch = new StringContent("{}", Encoding.UTF8, "application/json");
        var refused = await client.PatchAsync("/v1/devices", patch, Token);
        await AssertProblemAsync(refused, 405, "method_not_allowed");
    }

    [Fact]
    public async Task Health_is_open_and_says_that_the_link_is_down()
    {
        using var stranger = relay.NewClient(key: null);

        Assert.Equal(HttpStatusCode.OK, (await stranger.GetAsync("/health/live", Token)).StatusCode);
        var ready = await stranger.GetAsync("/health/ready", Token);
        Assert.Equal(HttpStatusCode.OK, ready.StatusCode);
        var health = await JsonAsync(ready);
        Assert.Equal("degraded", (string?)health["status"]);
        Assert.Contains("push.example.com", (string?)health["checks"]!["xmpp"]!["detail"], StringComparison.Ordinal);
    }

    private static string Registration(string account = "Bob@Example.COM", string? token = null) =>
        $$"""{"account":"{{account}}","app":"com.example.chat","platform":"apns","token":"{{token ?? DeviceToken}}"}""";

    private Task<HttpResponseMessage> PostAsync(string body) =>
        client.PostAsync("/v1/devices", new StringContent(body, Encoding.UTF8, "application/json"), Token);

    private Task<HttpResponseMessage> PutAsync(string id, string body) =>
        client.PutAsync($"/v1/devices/{id}", new StringContent(body, Encoding.UTF8, "application/json"), Token);

    private static async Task<JsonNode> JsonAsync(HttpResponseMessage answer) =>
        JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!;

    private static async Task<JsonNode> AssertProblemAsync(HttpResponseMessage answer, int status, string code, string? field = null)
    {
        var text = await answer.Content.ReadAsStringAsync(Token);
        Assert.True((int)answer.StatusCode == status, $"{(int)answer.StatusCode}: {text}");
        Assert.Equal("application/problem+json", answer.Content.Headers.ContentType?.MediaType);
        var problem = JsonNode.Parse(text)!;
        Assert.Equal(
            (code, $"urn:pushrelay:problem:{code}", status),
            ((string?)problem["code"], (string?)problem["type"], (int?)problem["status"])
        );
        Assert.False(string.IsNullOrEmpty((string?)problem["traceId"]));
        Assert.False(string.IsNullOrEmpty((string?)problem["title"]));
        if (field is not null)
        {
            Assert.Contains(field, problem["errors"]!.AsObject().Select(e => e.Key));
        }

        return problem;
    }
}
