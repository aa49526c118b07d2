using System.Net;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Outbox;

namespace PushRelay.Tests.Ledger;

/// <summary>The delivery log over a real socket.</summary>
public sealed class DeliveryApiTests : IAsyncLifetime
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

    public async ValueTask DisposeAsync()
    {
        client.Dispose();
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task A_delivery_has_exactly_the_members_of_the_contract()
    {
        var device = await relay.RegisterAsync();
        await relay.CommitMessageAsync("a very secret body", m => m with { Id = "m1", StanzaId = "77" });
        var id = (await relay.RowsAsync())[0].Id;

        var text = await client.GetStringAsync($"/v1/deliveries/{id}", Token);

        var delivery = JsonNode.Parse(text)!.AsObject();
        Assert.Equal(
            [
                "account",
                "app",
                "attempts",
                "coalescedInto",
                "count",
                "createdAt",
                "device",
                "dueAt",
                "event",
                "expiresAt",
                "id",
                "log",
                "openedAt",
                "platform",
                "reason",
                "receivedAt",
                "settledAt",
                "situation",
                "state",
            ],
            delivery.Select(m => m.Key).Order(StringComparer.Ordinal)
        );
        Assert.Equal(
            ["at", "class", "from", "id", "source", "stanzaId"],
            delivery["event"]!.AsObject().Select(m => m.Key).Order(StringComparer.Ordinal)
        );
        Assert.Equal(
            (id.ToString(), TestRelay.Bob, device.Id),
            ((string)delivery["id"]!, (string)delivery["account"]!, (string)delivery["device"]!)
        );
        var cause = delivery["event"]!;
        Assert.Equal(
            ("bridge", "text", TestRelay.Alice, "m1", "77"),
            ((string)cause["source"]!, (string)cause["class"]!, (string)cause["from"]!, (string)cause["id"]!, (string)cause["stanzaId"]!)
        );
        Assert.Equal(
            """
            {"account":"offline","ownSession":"offline","tied":false,"otherInFront":false,
            "muted":false,"mention":false,"quietHours":false,"unacked":false}
            """.ReplaceLineEndings(""),
            delivery["situation"]!.ToJsonString()
        );
        Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", (string)delivery["createdAt"]!);
        Assert.DoesNotContain("secret", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_log_is_filtered_by_account_device_state_and_time()
    {
        var device = await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        relay.Advance(TimeSpan.FromMinutes(1));
        var later = relay.Clock.GetUtcNow();
        await relay.CommitMessageAsync("2", m => m with { Account = "carol@example.com" });

        Assert.Equal(2, await CountAsync(""));
        Assert.Equal(1, await CountAsync("account=BOB@example.com"));
        Assert.Equal(1, await CountAsync($"device={device.Id}"));
        Assert.Equal(1, await CountAsync("state=suppressed"));
        Assert.Equal(1, await CountAsync($"from={later:yyyy-MM-ddTHH:mm:ssZ}"));
        Assert.Equal(1, await CountAsync($"to={later:yyyy-MM-ddTHH:mm:ssZ}"));
        Assert.Equal(0, await CountAsync("account=dave@elsewhere.example"));
    }

    [Fact]
    public async Task The_log_is_paged_newest_first_without_gap_or_repetition()
    {
        for (var i = 0; i < 7; i++)
        {
            await relay.CommitMessageAsync($"{i}");
        }

        var ids = new List<string>();
        string? cursor = null;
        do
        {
            var page = JsonNode.Parse(
                await client.GetStringAsync($"/v1/deliveries?limit=3{(cursor is null ? "" : $"&cursor={cursor}")}", Token)
            )!;
            ids.AddRange(page["items"]!.AsArray().Select(item => (string)item!["id"]!));
            cursor = (string?)page["next"];
        } while (cursor is not null);

        Assert.Equal((await relay.RowsAsync()).Select(r => r.Id.ToString()).Reverse(), ids);
    }

    [Fact]
    public async Task A_cursor_serves_the_list_and_the_caller_it_was_made_for_and_no_changed_one_does()
    {
        for (var i = 0; i < 3; i++)
        {
            await relay.CommitMessageAsync($"{i}");
        }

        var next = (string)JsonNode.Parse(await client.GetStringAsync("/v1/deliveries?limit=1", Token))!["next"]!;
        var (token, _) = await relay.IssueTokenAsync(TestRelay.Bob);
        using var bob = new HttpClient { BaseAddress = relay.Address };
        bob.DefaultRequestHeaders.Authorization = new("Bearer", token);
        var changed = (next[0] == 'A' ? 'B' : 'A') + next[1..];

        Assert.Equal(HttpStatusCode.OK, await StatusAsync(client, $"/v1/deliveries?cursor={next}"));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(client, $"/v1/deliveries?cursor={changed}"));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(client, $"/v1/devices?cursor={next}"));
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(bob, "/v1/deliveries"));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(bob, $"/v1/deliveries?cursor={next}"));

        static async Task<HttpStatusCode> StatusAsync(HttpClient from, string path)
        {
            using var answer = await from.GetAsync(new Uri(path, UriKind.Relative), Token);
            return answer.StatusCode;
        }
    }

    [Fact]
    public async Task Every_attempt_is_shown()
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        var row = (await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 })))[0];

        var log = JsonNode.Parse(await client.GetStringAsync($"/v1/deliveries/{row.Id}", Token))!["log"]!.AsArray();

        // nobody listens where this relay's alerts go: the attempt says so
        var attempt = Assert.Single(log)!;
        Assert.Equal((1, "deferred", null), ((int)attempt["number"]!, (string)attempt["outcome"]!, (int?)attempt["status"]));
        Assert.NotNull(attempt["reason"]);
    }

    [Fact]
    public async Task A_first_attempt_that_was_accepted_is_shown_as_the_row_keeps_it_and_one_of_another_network_without_the_old_name()
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        var id = (await relay.RowsAsync())[0].Id;
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }));
        await SettleAsync(id, platform: "apns");

        var attempt = Assert.Single(JsonNode.Parse(await client.GetStringAsync($"/v1/deliveries/{id}", Token))!["log"]!.AsArray())!;
        Assert.Equal(
            (1, 120, 201, "accepted", "named-by-the-network", "named-by-the-network"),
            (
                (int)attempt["number"]!,
                (int)attempt["durationMs"]!,
                (int)attempt["status"]!,
                (string)attempt["outcome"]!,
                (string)attempt["providerId"]!,
                (string)attempt["apnsId"]!
            )
        );

        await SettleAsync(id, platform: "other");
        var other = Assert.Single(JsonNode.Parse(await client.GetStringAsync($"/v1/deliveries/{id}", Token))!["log"]!.AsArray())!;
        Assert.Equal(
            ["number", "at", "durationMs", "status", "reason", "outcome", "providerId"],
            other.AsObject().Select(member => member.Key)
        );
    }

    [Fact]
    public async Task A_test_alert_is_a_delivery_whose_decision_looked_at_nothing()
    {
        var device = await relay.RegisterAsync();

        using var answer = await client.PostAsync($"/v1/devices/{device.Id}/test?account={TestRelay.Bob}", null, Token);

        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        var sent = JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!;
        Assert.Equal(("test", "test"), ((string)sent["event"]!["source"]!, (string)sent["reason"]!));
        var shown = JsonNode.Parse(await client.GetStringAsync(answer.Headers.Location!.OriginalString, Token))!;
        Assert.Null(shown["situation"]);
    }

    /// <summary>As if its first attempt had been accepted.</summary>
    private async Task SettleAsync(Guid id, string platform)
    {
        await using var db = relay.NewDb();
        await db.Set<Attempt>().Where(a => a.DeliveryId == id).ExecuteDeleteAsync(Token);
        await db.Set<Delivery>()
            .Where(d => d.Id == id)
            .ExecuteUpdateAsync(
                set =>
                    set.SetProperty(d => d.State, DeliveryState.Accepted)
                        .SetProperty(d => d.SettledAt, d => d.CreatedAt)
                        .SetProperty(d => d.Content, (byte[]?)null)
                        .SetProperty(d => d.Platform, platform)
                        .SetProperty(d => d.AnswerMs, 120)
                        .SetProperty(d => d.Status, 201)
                        .SetProperty(d => d.Code, (string?)null)
                        .SetProperty(d => d.ProviderId, "named-by-the-network"),
                Token
            );
    }

    private async Task<int> CountAsync(string query) =>
        JsonNode.Parse(await client.GetStringAsync($"/v1/deliveries?{query}", Token))!["items"]!.AsArray().Count;
}
