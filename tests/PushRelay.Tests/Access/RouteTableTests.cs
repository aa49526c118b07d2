using System.Buffers.Text;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Routing;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Outbox;

namespace PushRelay.Tests.Access;

/// <summary>
/// Every route with every credential. The table is complete by construction: a route of the program that has no row fails, and so does a
/// row without a route.
/// </summary>
public sealed partial class RouteTableTests(RouteTableTests.Bed bed) : IClassFixture<RouteTableTests.Bed>
{
    private const string BobsRegistration = """{"account":"$BOB","app":"com.example.chat","platform":"apns","token":"$TOKEN"}""";

    /// <summary>
    /// Route; body; then the status for nobody, a stranger's bad credential, Bob's own token, Alice's token (on what is Bob's), an
    /// operator.
    /// </summary>
    /// <remarks>Other credentials stand for one of these: see <see cref="Credentials"/>.</remarks>
    private static readonly Row[] Table =
    [
        new("GET /health/live", null, 200, 200, 200, 200, 200),
        new("GET /health/ready", null, 200, 200, 200, 200, 200),
        new("GET /openapi/{documentName:regex(^v1$)}.json", null, 200, 200, 200, 200, 200),
        new("GET /docs", null, 200, 200, 200, 200, 200),
        new("GET /metrics", null, 401, 401, 403, 403, 200),
        new("GET /v1/apps/{app}", null, 200, 200, 200, 200, 200),
        new("POST /v1/devices", BobsRegistration, 401, 401, 201, 404, 201),
        new("PUT /v1/devices/{deviceId}", BobsRegistration, 401, 401, 200, 404, 200),
        new("GET /v1/devices", null, 401, 401, 200, 200, 200),
        new("GET /v1/devices/{deviceId}", null, 401, 401, 200, 404, 200),
        new("PATCH /v1/devices/{deviceId}", """{"preview":"none"}""", 401, 401, 200, 404, 200),
        new("POST /v1/devices/{deviceId}/test", null, 401, 401, 202, 404, 202),
        new("DELETE /v1/devices/{deviceId}", null, 401, 401, 204, 404, 204),
        new("GET /v1/deliveries", null, 401, 401, 200, 200, 200),
        new("GET /v1/deliveries/{id}", null, 401, 401, 200, 404, 200),
        new("POST /v1/deliveries/{id}/retry", null, 401, 401, 403, 403, 409),
        new("POST /v1/tokens", """{"account":"$BOB"}""", 401, 401, 403, 403, 201),
        new("POST /v1/tokens/renew", null, 401, 401, 201, 201, 403) { OfJwt = 403 },
        new("GET /v1/tokens", null, 401, 401, 200, 200, 200),
        new("DELETE /v1/tokens/{id}", null, 401, 401, 204, 404, 204),
        new("GET /v1/accounts/{account}", null, 401, 401, 403, 403, 200),
        new("POST /push_appserver/v1/register", null, 401, 401, 415, 415, 415),
        new("POST /unregister-device/{domain}", null, 415, 415, 415, 415, 415),
        new("POST /rest/push/unregister-device/{domain}", null, 415, 415, 415, 415, 415),
        new("POST /v1/receipts", """{"receipt":"x","event":"received"}""", 400, 400, 400, 400, 400),
        new("POST /v1/alerts", """{"account":"$BOB","body":"hello"}""", 401, 401, 403, 403, 202),
        new("GET /v1/accounts/{account}/explain", null, 401, 401, 403, 403, 200),
        new("GET /v1/accounts/{account}/export", null, 401, 401, 403, 403, 200),
        new("DELETE /v1/accounts/{account}", null, 401, 401, 403, 403, 204),
        new("GET /v1/conditions", null, 401, 401, 403, 403, 200),
        new("GET /v1/apps", null, 401, 401, 403, 403, 200),
        new("POST /v1/apps/{app}/resume", null, 401, 401, 403, 403, 202),
        new("GET /v1/audit", null, 401, 401, 403, 403, 200),
    ];

    private static readonly string[] Columns = ["none", "bad", "own", "foreign", "operator"];

    /// <summary>Each credential that can be presented, and whose column tells what it gets.</summary>
    private static readonly Dictionary<string, string> Credentials = new()
    {
        ["none"] = "none",
        ["an operator's key in the URL"] = "none",
        ["bad"] = "bad",
        ["expired"] = "bad",
        ["revoked"] = "bad",
        ["an operator's key cut short"] = "bad",
        ["an operator's key as Basic"] = "bad",
        ["two"] = "bad",
        ["own"] = "own",
        ["own JWT"] = "own",
        ["foreign"] = "foreign",
        ["foreign JWT"] = "foreign",
        ["expired JWT"] = "bad",
        ["forged JWT"] = "bad",
        ["JWT of an account that is not served"] = "bad",
        ["operator"] = "operator",
    };

    private readonly TestRelay relay = bed.Relay;

    // of this test alone: the relay is shared
    private readonly string bob = $"bob-{Guid.NewGuid():N}@example.com";
    private readonly string phone = $"phone-{Guid.NewGuid():N}";
    private readonly string alice = $"alice-{Guid.NewGuid():N}@example.com";

    public static TheoryData<string, string> Cases =>
        [.. Table.SelectMany(row => Credentials.Keys.Select(credential => (row.Route, credential)))];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Every_route_of_the_program_has_a_row_and_every_row_a_route()
    {
        var routes = relay
            .Get<EndpointDataSource>()
            .Endpoints.OfType<RouteEndpoint>()
            .SelectMany(e =>
                (e.Metadata.GetMetadata<IHttpMethodMetadata>()?.HttpMethods ?? ["GET"]).Select(method =>
                    $"{method} /{e.RoutePattern.RawText!.Trim('/')}"
                )
            )
            .Distinct()
            .Order(StringComparer.Ordinal);

        Assert.Equal(Table.Select(row => row.Route).Order(StringComparer.Ordinal), routes);
    }

    [Fact]
    public async Task A_viewer_reads_every_route_of_the_operator_and_changes_nothing()
    {
        using var client = relay.NewClient(Bed.ViewerKey);
        foreach (var row in Table.Where(r => r.Statuses[0] == 401))
        {
            var (method, path) = (row.Route.Split(' ')[0], row.Route.Split(' ')[1]);
            using var request = new HttpRequestMessage(
                new HttpMethod(method),
                path.Replace("{account}", bob, StringComparison.Ordinal).Replace("{app}", TestRelay.App, StringComparison.Ordinal)
            );
            using var answer = await client.SendAsync(request, Token);

            Assert.True(
                method == "GET" ? (int)answer.StatusCode is 200 or 404 : answer.StatusCode == HttpStatusCode.Forbidden,
                $"{row.Route}: {answer.StatusCode}"
            );
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_route_answers_each_credential_as_the_table_says(string route, string credential)
    {
        var row = Table.Single(r => r.Route == route);
        var column = Credentials[credential];
        var isJwt = credential.EndsWith("JWT", StringComparison.Ordinal) && column is "own" or "foreign";
        var expected = isJwt && row.OfJwt is { } ofJwt ? ofJwt : row.Statuses[Array.IndexOf(Columns, column)];
        await relay.RegisterAsync(bob, id: phone);
        await relay.CommitMessageAsync("hello", m => m with { Account = bob });
        var delivery = (await relay.RowsAsync(bob))[0].Id;
        var spare = await relay.IssueTokenAsync(bob);
        using var client = relay.NewClient(key: null);
        client.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", await PresentAsync(credential));
        var space = route.IndexOf(' ', StringComparison.Ordinal);
        var path = route[(space + 1)..]
            .Replace("{documentName:regex(^v1$)}", "v1", StringComparison.Ordinal)
            .Replace("{app}", TestRelay.App, StringComparison.Ordinal)
            .Replace("{account}", bob, StringComparison.Ordinal)
            .Replace("{deviceId}", phone, StringComparison.Ordinal)
            .Replace(
                "{id}",
                (route.Contains("tokens", StringComparison.Ordinal) ? spare.Kept.Id : delivery).ToString("D"),
                StringComparison.Ordinal
            );
        path += credential == "an operator's key in the URL" ? $"?access_token={Uri.EscapeDataString(TestRelay.OperatorKey)}" : "";
        using var request = new HttpRequestMessage(new HttpMethod(route[..space]), path);
        request.Content = row.Body is null
            ? null
            : new StringContent(
                row.Body.Replace("$TOKEN", TestRelay.NewToken(), StringComparison.Ordinal).Replace("$BOB", bob, StringComparison.Ordinal),
                Encoding.UTF8,
                "application/json"
            );

        using var answer = await client.SendAsync(request, Token);

        var text = await answer.Content.ReadAsStringAsync(Token);
        Assert.True(
            expected == (int)answer.StatusCode,
            $"{route} with {credential}: {(int)answer.StatusCode} instead of {expected}: {text}"
        );
        Assert.True(answer.Headers.CacheControl?.NoStore, "no Cache-Control: no-store");
        Assert.Equal("nosniff", answer.Headers.GetValues("X-Content-Type-Options").Single());
        Assert.Equal("DENY", answer.Headers.GetValues("X-Frame-Options").Single());
        Assert.Contains("frame-ancestors 'none'", answer.Headers.GetValues("Content-Security-Policy").Single(), StringComparison.Ordinal);
        Assert.NotEmpty(answer.Headers.GetValues("X-Request-Id").Single());
        if (column == "foreign" && expected == 200 && path.StartsWith("/v1/", StringComparison.Ordinal))
        {
            Assert.DoesNotContain(bob, text, StringComparison.Ordinal);
        }

        if (credential == "operator" && row.Route == "GET /v1/devices")
        {
            Assert.Contains(bob, text, StringComparison.Ordinal);
        }

        if (expected >= 400)
        {
            // nothing changed
            Assert.Contains((await relay.RowsAsync(bob))[0].State, (DeliveryState[])[DeliveryState.Pending, DeliveryState.Sending]);
            var device = Assert.Single(await relay.Devices.ListAsync(bob, null, 10, Token));
            Assert.Null(device.Preferences);
        }
    }

    /// <summary>The values of the header; none for nobody.</summary>
    private async Task<IEnumerable<string>> PresentAsync(string credential)
    {
        var now = relay.Clock.GetUtcNow().ToUnixTimeSeconds();
        switch (credential)
        {
            case "none" or "an operator's key in the URL":
                return [];
            case "expired":
                var (expired, row) = await relay.IssueTokenAsync(bob);
                await using (var db = relay.NewDb())
                {
                    var past = relay.Clock.GetUtcNow().AddSeconds(-1);
                    await db.Set<AccountToken>()
                        .Where(t => t.Id == row.Id)
                        .ExecuteUpdateAsync(set => set.SetProperty(t => t.ExpiresAt, past), Token);
                }

                return [$"Bearer {expired}"];
            case "revoked":
                var (revoked, kept) = await relay.IssueTokenAsync(bob);
                using (var operators = relay.NewClient())
                {
                    Assert.Equal(HttpStatusCode.NoContent, (await operators.DeleteAsync($"/v1/tokens/{kept.Id}", Token)).StatusCode);
                }

                return [$"Bearer {revoked}"];
            case "two":
                return [$"Bearer {(await relay.IssueTokenAsync(bob)).Token}", $"Bearer {TestRelay.OperatorKey}"];
            case "an operator's key as Basic":
                return [$"Basic {Convert.ToBase64String(Encoding.UTF8.GetBytes($"tests:{TestRelay.OperatorKey}"))}"];
            default:
                return
                [
                    "Bearer "
                        + credential switch
                        {
                            "bad" => "pra_" + new string('A', 43),
                            "an operator's key cut short" => TestRelay.OperatorKey[..^1],
                            "own" => (await relay.IssueTokenAsync(bob)).Token,
                            "foreign" => (await relay.IssueTokenAsync(alice)).Token,
                            "own JWT" => Jwt(Bed.JwtKey, bob, now + 600),
                            "foreign JWT" => Jwt(Bed.JwtKey, alice, now + 600),
                            "expired JWT" => Jwt(Bed.JwtKey, bob, now - 600),
                            "forged JWT" => Jwt(Bed.JwtKey + "!", bob, now + 600),
                            "JWT of an account that is not served" => Jwt(Bed.JwtKey, "bob@elsewhere.example", now + 600),
                            "operator" => TestRelay.OperatorKey,
                            _ => throw new ArgumentException(credential),
                        },
                ];
        }
    }

    private static string Jwt(string key, string account, long until)
    {
        var signing =
            Base64Url.EncodeToString("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"u8)
            + "."
            + Base64Url.EncodeToString(
                Encoding.UTF8.GetBytes($$"""{"iss":"https://id.example.com","aud":"pushrelay","sub":"{{account}}","exp":{{until}}}""")
            );
        return $"{signing}.{Base64Url.EncodeToString(HMACSHA256.HashData(Encoding.UTF8.GetBytes(key), Encoding.UTF8.GetBytes(signing)))}";
    }

    [Theory]
    [InlineData("GET", "/v1/devices?account=BOB")]
    [InlineData("GET", "/v1/deliveries?account=BOB")]
    [InlineData("GET", "/v1/deliveries?device=phone")]
    [InlineData("GET", "/v1/tokens?account=BOB")]
    [InlineData("GET", "/v1/devices/phone?account=BOB")]
    [InlineData("DELETE", "/v1/devices/phone?account=BOB")]
    [InlineData("PATCH", "/v1/devices/phone?account=BOB")]
    [InlineData("POST", "/v1/devices/phone/test?account=BOB")]
    public async Task Naming_another_account_shows_nothing_of_it(string method, string path)
    {
        await relay.RegisterAsync(bob, id: phone);
        await relay.CommitMessageAsync("hello", m => m with { Account = bob });
        using var stranger = relay.NewClient((await relay.IssueTokenAsync(alice)).Token);
        using var request = new HttpRequestMessage(
            new HttpMethod(method),
            path.Replace("BOB", Uri.EscapeDataString(bob), StringComparison.Ordinal).Replace("phone", phone, StringComparison.Ordinal)
        );
        request.Content = method == "PATCH" ? new StringContent("{}", Encoding.UTF8, "application/json") : null;

        using var answer = await stranger.SendAsync(request, Token);

        var text = await answer.Content.ReadAsStringAsync(Token);
        Assert.DoesNotContain(bob, text, StringComparison.Ordinal);
        Assert.Equal(
            path.Contains("phone", StringComparison.Ordinal) && !path.Contains("deliveries", StringComparison.Ordinal)
                ? HttpStatusCode.NotFound
                : HttpStatusCode.OK,
            answer.StatusCode
        );
    }

    [Fact]
    public async Task The_description_has_every_route_with_a_typed_answer_an_example_and_its_refusals()
    {
        using var client = relay.NewClient(key: null);
        var document = System.Text.Json.Nodes.JsonNode.Parse(await client.GetStringAsync("/openapi/v1.json", Token))!;

        Assert.StartsWith("3.1", (string?)document["openapi"], StringComparison.Ordinal);
        foreach (var row in Table.Where(r => r.Route.Contains(" /v1/", StringComparison.Ordinal)))
        {
            var (method, path) = (row.Route.Split(' ')[0].ToLowerInvariant(), row.Route.Split(' ')[1]);
            var operation = document["paths"]![path]?[method];
            Assert.True(operation is not null, row.Route);
            Assert.False(string.IsNullOrEmpty((string?)operation["summary"]), row.Route);
            var answers = operation["responses"]!.AsObject();
            var (status, good) = answers.First(a => a.Key.StartsWith('2'));
            Assert.True(status == "204" || good!["content"]!["application/json"]!["schema"] is not null, row.Route);
            Assert.True(status == "204" || good!["content"]!["application/json"]!["example"] is not null, $"{row.Route} has no example");
            Assert.All((string[])["401", "404", "429"], refusal => Assert.True(answers.ContainsKey(refusal), $"{row.Route} {refusal}"));
            Assert.True(
                row.Body is null || operation["requestBody"]?["content"]?.AsObject().First().Value!["example"] is not null,
                $"{row.Route} has no example request"
            );
        }

        Assert.NotNull(document["components"]!["securitySchemes"]!["bearer"]);
    }

    [Fact]
    public async Task The_page_takes_nothing_from_elsewhere()
    {
        using var client = relay.NewClient(key: null);
        using var answer = await client.GetAsync("/docs", Token);

        var page = await answer.Content.ReadAsStringAsync(Token);
        Assert.DoesNotMatch(Elsewhere(), page);
        Assert.Matches("script-src 'sha256-", answer.Headers.GetValues("Content-Security-Policy").Single());
    }

    [GeneratedRegex("(src|href)=\"https?:")]
    private static partial Regex Elsewhere();

    /// <summary>One relay for all of the table.</summary>
    public sealed class Bed : IAsyncLifetime
    {
        internal const string JwtKey = "what is shared with the identity provider, long enough";

        internal const string ViewerKey = "a viewer's key, long enough";

        internal TestRelay Relay { get; private set; } = null!;

        public async ValueTask InitializeAsync()
        {
            Relay = await TestRelay.OpenAsync(
                null,
                $"--Api:Jwt:SigningKey={JwtKey}",
                "--Api:OperatorKeys:1:Name=viewer",
                $"--Api:OperatorKeys:1:Key={ViewerKey}",
                "--Api:OperatorKeys:1:Role=Viewer",
                "--Api:RateLimits:AnonymousPerSecond=0",
                "--Api:RateLimits:FailuresPerMinute=0"
            );
            await Relay.ServeAsync();
        }

        public ValueTask DisposeAsync() => Relay.DisposeAsync();
    }

    private sealed record Row(string Route, string? Body, params int[] Statuses)
    {
        /// <summary>Where a JWT gets something else than the account's token.</summary>
        public int? OfJwt { get; init; }
    }
}
