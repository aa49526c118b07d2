using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Audit;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Access;

/// <summary>Account tokens and limits over a real socket, on whichever database.</summary>
public abstract class CredentialContract : IAsyncLifetime
{
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync("--Api:AccountTokens:Max=3", "--Api:AccountTokens:Lifetime=00:20:00", "--Retention:Audit=1.00:00:00");
        await relay.ServeAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    private protected TestRelay Relay => relay;

    private protected abstract Task<TestRelay> OpenAsync(params string[] settings);

    [Fact]
    public async Task A_token_acts_on_its_account_until_it_expires()
    {
        var (token, kept) = await relay.IssueTokenAsync(TestRelay.Bob);
        using var bob = relay.NewClient(token);

        Assert.StartsWith("pra_", token, StringComparison.Ordinal);
        Assert.Equal(TimeSpan.FromMinutes(20), kept.ExpiresAt - kept.CreatedAt);
        Assert.Equal(HttpStatusCode.OK, (await bob.GetAsync("/v1/devices", Token)).StatusCode);
        relay.Advance(TimeSpan.FromMinutes(20));
        Assert.Equal(HttpStatusCode.Unauthorized, (await bob.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Fact]
    public async Task The_database_does_not_hold_the_token()
    {
        var (token, _) = await relay.IssueTokenAsync(TestRelay.Bob);

        await using var db = relay.NewDb();
        var kept = await db.Set<AccountToken>().SingleAsync(Token);
        Assert.Equal(System.Security.Cryptography.SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(token)), kept.Hash);
        // what is in the database opens nothing
        using var thief = relay.NewClient("pra_" + Convert.ToHexStringLower(kept.Hash));
        Assert.Equal(HttpStatusCode.Unauthorized, (await thief.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Fact]
    public async Task One_more_token_than_an_account_may_have_takes_the_place_of_the_oldest()
    {
        var first = await relay.IssueTokenAsync(TestRelay.Bob);
        for (var i = 0; i < 3; i++)
        {
            await relay.IssueTokenAsync(TestRelay.Bob);
        }

        Assert.Equal(3, (await relay.Get<AccountTokens>().ListAsync(TestRelay.Bob, null, 10, Token)).Count);
        Assert.Null(await relay.Get<AccountTokens>().FindAsync(first.Token, Token));
    }

    [Fact]
    public async Task A_renewed_token_ends_soon_and_the_new_one_holds()
    {
        var (token, _) = await relay.IssueTokenAsync(TestRelay.Bob);
        using var old = relay.NewClient(token);

        using var answer = await old.PostAsync("/v1/tokens/renew", null, Token);

        var renewed = JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!;
        using var fresh = relay.NewClient((string)renewed["token"]!);
        Assert.Equal(HttpStatusCode.OK, (await old.GetAsync("/v1/devices", Token)).StatusCode);
        relay.Advance(TimeSpan.FromMinutes(10));
        Assert.Equal(HttpStatusCode.Unauthorized, (await old.GetAsync("/v1/devices", Token)).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await fresh.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Fact]
    public async Task A_token_that_is_revoked_ends_at_once_and_lists_do_not_show_it()
    {
        var (token, kept) = await relay.IssueTokenAsync(TestRelay.Bob);
        using var bob = relay.NewClient(token);
        var listed = JsonNode.Parse(await bob.GetStringAsync("/v1/tokens", Token))!["items"]!.AsArray();
        Assert.Equal((kept.Id.ToString(), true), ((string)listed[0]!["id"]!, (bool)listed[0]!["current"]!));
        Assert.DoesNotContain("pra_", listed.ToJsonString(), StringComparison.Ordinal);

        using var operators = relay.NewClient();
        Assert.Equal(HttpStatusCode.NoContent, (await operators.DeleteAsync($"/v1/tokens/{kept.Id}", Token)).StatusCode);

        Assert.Equal(HttpStatusCode.Unauthorized, (await bob.GetAsync("/v1/devices", Token)).StatusCode);
        Assert.Equal(HttpStatusCode.NotFound, (await operators.DeleteAsync($"/v1/tokens/{kept.Id}", Token)).StatusCode);
    }

    [Fact]
    public async Task Bad_credentials_from_one_address_are_soon_refused_with_a_wait_and_good_ones_are_not()
    {
        using var thief = relay.NewClient("pra_" + new string('A', 43));
        var answers = new List<HttpResponseMessage>();
        for (var i = 0; i < 31; i++)
        {
            answers.Add(await thief.GetAsync("/v1/devices", Token));
        }

        Assert.All(answers.Take(30), answer => Assert.Equal(HttpStatusCode.Unauthorized, answer.StatusCode));
        Assert.Equal(HttpStatusCode.TooManyRequests, answers[30].StatusCode);
        Assert.InRange(answers[30].Headers.RetryAfter!.Delta!.Value, TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(1));
        Assert.Equal("application/problem+json", answers[30].Content.Headers.ContentType!.MediaType);
        using var operators = relay.NewClient();
        Assert.Equal(HttpStatusCode.OK, (await operators.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Fact]
    public async Task An_account_is_slowed_down_and_another_is_not()
    {
        using var bob = relay.NewClient((await relay.IssueTokenAsync(TestRelay.Bob)).Token);
        using var alice = relay.NewClient((await relay.IssueTokenAsync(TestRelay.Alice)).Token);
        var statuses = new List<HttpStatusCode>();
        for (var i = 0; i < 60; i++)
        {
            statuses.Add((await bob.GetAsync("/v1/devices", Token)).StatusCode);
        }

        Assert.All(statuses.Take(50), status => Assert.Equal(HttpStatusCode.OK, status));
        Assert.Equal(10, statuses.Count(status => status == HttpStatusCode.TooManyRequests));
        Assert.Equal(HttpStatusCode.OK, (await alice.GetAsync("/v1/devices", Token)).StatusCode);
        relay.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(HttpStatusCode.OK, (await bob.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Fact]
    public async Task Test_alerts_and_registrations_of_an_account_have_a_limit_of_their_own()
    {
        await relay.RegisterAsync(id: "phone");
        using var bob = relay.NewClient((await relay.IssueTokenAsync(TestRelay.Bob)).Token);

        var tests = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => bob.PostAsync("/v1/devices/phone/test", null, Token)));
        relay.Advance(TimeSpan.FromMinutes(1));
        var registrations = await Task.WhenAll(
            Enumerable
                .Range(0, 32)
                .Select(_ =>
                    bob.PutAsJsonAsync(
                        "/v1/devices/phone",
                        new
                        {
                            app = TestRelay.App,
                            platform = "apns",
                            token = TestRelay.NewToken(),
                        },
                        Token
                    )
                )
        );

        Assert.Equal(2, tests.Count(t => t.StatusCode == HttpStatusCode.TooManyRequests));
        Assert.Equal(2, registrations.Count(t => t.StatusCode == HttpStatusCode.TooManyRequests));
    }

    [Fact]
    public async Task A_test_alert_goes_through_the_outbox_and_the_same_idempotency_key_makes_one()
    {
        await relay.RegisterAsync(id: "phone");
        using var client = relay.NewClient();

        var answers = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => TestAsync(client, "once")));
        var other = await TestAsync(client, "twice");

        var ids = answers.Select(a => (string)a["id"]!).Distinct().ToList();
        Assert.Single(ids);
        Assert.NotEqual(ids[0], (string)other["id"]!);
        Assert.Equal(("test", "test", "phone"), ((string)other["event"]!["source"]!, (string)other["reason"]!, (string)other["device"]!));
        Assert.Equal(2, (await relay.RowsAsync()).Count);

        static async Task<JsonNode> TestAsync(HttpClient client, string key)
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/devices/phone/test");
            request.Headers.Add("Idempotency-Key", key);
            using var answer = await client.SendAsync(request, Token);
            Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
            return JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!;
        }
    }

    [Fact]
    public async Task An_idempotency_key_that_comes_again_with_another_body_is_refused()
    {
        using var client = relay.NewClient();
        var first = new
        {
            account = TestRelay.Bob,
            app = TestRelay.App,
            platform = "apns",
            token = TestRelay.NewToken(),
        };

        Assert.Equal(201, await PostAsync(first));
        Assert.Equal(200, await PostAsync(first));
        Assert.Equal(422, await PostAsync(first with { token = TestRelay.NewToken() }));
        Assert.Single(await relay.Devices.ListAsync((string?)null, null, 10, Token));

        async Task<int> PostAsync(object body)
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/devices") { Content = JsonContent.Create(body) };
            request.Headers.Add("Idempotency-Key", "k1");
            return (int)(await client.SendAsync(request, Token)).StatusCode;
        }
    }

    [Fact]
    public async Task Every_change_leaves_one_audit_record_with_who_what_from_where_and_no_secret()
    {
        using var client = relay.NewClient();
        var device = new
        {
            account = TestRelay.Bob,
            app = TestRelay.App,
            platform = "apns",
            token = TestRelay.NewToken(),
        };
        await client.PutAsJsonAsync("/v1/devices/phone", device, Token);
        await client.PatchAsJsonAsync("/v1/devices/phone", new { preview = "none" }, Token);
        await client.PostAsync("/v1/devices/phone/test", null, Token);
        await client.PutAsJsonAsync("/v1/devices/phone", device with { account = TestRelay.Alice }, Token);
        await client.DeleteAsync("/v1/devices/phone", Token);
        var issued = JsonNode.Parse(
            await (await client.PostAsJsonAsync("/v1/tokens", new { account = TestRelay.Bob }, Token)).Content.ReadAsStringAsync(Token)
        )!;
        await client.DeleteAsync($"/v1/tokens/{(string)issued["id"]!}", Token);

        var text = await client.GetStringAsync("/v1/audit", Token);

        var records = JsonNode.Parse(text)!["items"]!
            .AsArray()
            .Where(r => (string?)r!["actor"] == "tests")
            .Reverse()
            .Select(r => $"{r!["action"]} {r["account"]} {r["result"]} {r["address"]}");
        Assert.Equal(
            [
                "device.registered bob@example.com done 127.0.0.1",
                "device.changed bob@example.com done 127.0.0.1",
                "device.tested bob@example.com done 127.0.0.1",
                "device.moved bob@example.com done 127.0.0.1",
                "device.registered alice@example.com done 127.0.0.1",
                "device.removed alice@example.com done 127.0.0.1",
                "token.issued bob@example.com done 127.0.0.1",
                "token.revoked bob@example.com done 127.0.0.1",
            ],
            records
        );
        Assert.DoesNotContain(device.token, text, StringComparison.Ordinal);
        Assert.DoesNotContain((string)issued["token"]!, text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_has_expired_is_forgotten()
    {
        await relay.IssueTokenAsync(TestRelay.Bob);
        await using var db = relay.NewDb();
        var before = await relay.NowAsync() - TimeSpan.FromHours(25);
        await db.Set<AccountToken>().ExecuteUpdateAsync(set => set.SetProperty(t => t.ExpiresAt, before), Token);
        relay.Advance(TimeSpan.FromHours(25));

        await relay.Get<AccessUpkeep>().RunOnceAsync(Token);

        Assert.Equal(0, await db.Set<AccountToken>().CountAsync(Token));
        Assert.Equal(0, await db.Set<AuditRecord>().CountAsync(r => r.Action == AuditActions.TokenIssued, Token));
    }
}

public sealed class SqliteCredentialTests : CredentialContract
{
    private protected override Task<TestRelay> OpenAsync(params string[] settings) => TestRelay.OpenAsync(null, settings);
}

public sealed class PostgreSqlCredentialTests(PostgreSqlServer server) : CredentialContract
{
    private string database = "";

    [Fact]
    public async Task A_token_that_one_node_revokes_ends_at_once_on_the_other()
    {
        await using var other = await TestRelay.OpenAsync(database, $"--Storage:MasterKeyFile={Relay.Folder}/master.key");
        await other.ServeAsync();
        var (token, kept) = await Relay.IssueTokenAsync(TestRelay.Bob);
        using var bob = other.NewClient(token);
        Assert.Equal(HttpStatusCode.OK, (await bob.GetAsync("/v1/devices", TestContext.Current.CancellationToken)).StatusCode);
        using var operators = Relay.NewClient();
        await operators.DeleteAsync($"/v1/tokens/{kept.Id}", TestContext.Current.CancellationToken);

        Assert.Equal(HttpStatusCode.Unauthorized, (await bob.GetAsync("/v1/devices", TestContext.Current.CancellationToken)).StatusCode);
    }

    private protected override async Task<TestRelay> OpenAsync(params string[] settings) =>
        await TestRelay.OpenAsync(database = await server.NewDatabaseAsync(TestContext.Current.CancellationToken), settings);
}
