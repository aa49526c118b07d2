using System.Net;
using System.Text.Json.Nodes;
using PushRelay.Presence;

namespace PushRelay.Tests.Ledger;

/// <summary><c>GET /v1/accounts/{account}</c>.</summary>
public sealed class AccountApiTests : IAsyncLifetime
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");

    private TestRelay relay = null!;
    private HttpClient client = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();
        client = relay.NewClient();
        // from here on the link is this node's, though its server does not listen
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<PresenceCopy>().Holds(TestRelay.Server)), () => "The link is nobody's.");
    }

    public async ValueTask DisposeAsync()
    {
        client.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task An_account_has_its_state_sessions_unread_and_devices()
    {
        var device = await relay.RegisterAsync();
        await relay.CommitMessageAsync("one");
        await relay.CommitMessageAsync("two");
        var since = DateTimeOffset.FromUnixTimeMilliseconds(1_795_388_077_957);
        relay
            .Get<PresenceTracker>()
            .Replace(
                Stream,
                [
                    (TestRelay.Bob, new Session("s1", "phone", SessionState.Inactive, true, 5, "away", since)),
                    (TestRelay.Bob, new Session("s2", "desk", SessionState.Hibernating, false, 0, null, since.AddSeconds(1))),
                ]
            );

        var account = await GetAsync("bob@example.com");

        Assert.Equal(
            ("bob@example.com", "background", 2),
            ((string?)account["account"], (string?)account["state"], (int)account["unread"]!)
        );
        Assert.Equal(
            """
            [{"resource":"phone","state":"inactive","available":true,"priority":5,"show":"away","since":"2026-11-22T22:54:37.957Z"},
            {"resource":"desk","state":"hibernating","available":false,"priority":0,"show":null,"since":"2026-11-22T22:54:38.957Z"}]
            """.ReplaceLineEndings(""),
            account["sessions"]!.ToJsonString()
        );
        var shown = await client.GetStringAsync($"/v1/devices/{device.Id}", Token);
        Assert.Equal(JsonNode.Parse(shown)!.ToJsonString(), Assert.Single(account["devices"]!.AsArray())!.ToJsonString());
        Assert.Equal(["account", "state", "unread", "sessions", "devices"], account.AsObject().Select(member => member.Key));
    }

    [Theory]
    [InlineData("bob%40example.com")]
    [InlineData("BOB@Example.COM")]
    [InlineData("bob@example.com.")]
    [InlineData("%EF%BC%A2ob@example.com")]
    public async Task However_it_is_spelt_it_is_the_same_account(string spelling)
    {
        relay.Get<PresenceTracker>().Replace(Stream, []);

        var account = await GetAsync(spelling);

        Assert.Equal(("bob@example.com", "offline"), ((string?)account["account"], (string?)account["state"]));
        Assert.Empty(account["sessions"]!.AsArray());
    }

    [Theory]
    [InlineData("bob@elsewhere.example")]
    [InlineData("bob@example.com%2Fphone")]
    [InlineData("example.com")]
    [InlineData("@")]
    public async Task What_is_no_account_of_ours_is_not_found(string account)
    {
        using var answer = await client.GetAsync($"/v1/accounts/{account}", Token);

        Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
        Assert.Equal("not_found", (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!["code"]);
    }

    [Fact]
    public async Task Without_a_snapshot_the_state_is_unknown_and_without_a_credential_there_is_none()
    {
        Assert.Equal("unknown", (string?)(await GetAsync(TestRelay.Bob))["state"]);

        using var stranger = relay.NewClient(key: null);
        using var answer = await stranger.GetAsync("/v1/accounts/bob@example.com", Token);
        Assert.Equal(HttpStatusCode.Unauthorized, answer.StatusCode);
    }

    private async Task<JsonNode> GetAsync(string account) => JsonNode.Parse(await client.GetStringAsync($"/v1/accounts/{account}", Token))!;
}
