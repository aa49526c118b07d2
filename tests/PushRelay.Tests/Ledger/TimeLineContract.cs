using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Ingest;
using PushRelay.Ledger;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Ledger;

/// <summary>An account's time line: every reason for an alert, and for none, in a sentence; its export, and what erasing leaves.</summary>
public abstract class TimeLineContract : IAsyncLifetime
{
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>What a message finds; the sentence of its decision.</summary>
    public static TheoryData<string, string> Decisions =>
        new()
        {
            { "offline", "To be alerted on phone: no session was connected." },
            { "unknown", "To be alerted on phone: nobody knew whether the account was in front." },
            { "background", "To be alerted on phone: the account was in the background." },
            { "call", "To be alerted on phone: a call rings on every device that is not in front." },
            { "foreground", "Not alerted on phone: the account was in front." },
            { "muted", "Not alerted on phone: the user has muted this conversation on the device." },
            { "stale", "Not alerted on phone: the message was older than an alert is worth." },
            { "invalid", "Not alerted on phone: the device's token is dead." },
            { "disabled", "Not alerted on phone: the server has disabled the account." },
            { "nobody", "Not alerted: the account has no device." },
        };

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync();
        relay.OpenPermits(TimeSpan.FromSeconds(30));
        relay.Get<Permits>().Close();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    private protected abstract Task<TestRelay> OpenAsync();

    [Theory]
    [MemberData(nameof(Decisions))]
    public async Task Every_decision_has_its_sentence(string situation, string sentence)
    {
        if (situation != "nobody")
        {
            await relay.RegisterAsync(id: "phone");
        }

        if (situation == "invalid")
        {
            var device = (await relay.Devices.ListAsync(TestRelay.Bob, null, 1, Token))[0];
            await relay.Devices.InvalidateAsync(device, "BadDeviceToken", null, Token);
        }

        if (situation == "muted")
        {
            await relay
                .Get<PushRelay.Devices.Registrations>()
                .ChangePreferencesAsync(
                    TestRelay.Bob,
                    "phone",
                    JsonNode.Parse($$"""{"muted":["{{TestRelay.Alice}}"]}""")!.AsObject(),
                    ExpectedRevision.Any,
                    TestRelay.Operator,
                    Token
                );
        }

        if (situation == "disabled")
        {
            await CommitAsync(new RelayEvent.AccountDisabled(TestRelay.Bob, true, relay.Clock.GetUtcNow()));
        }

        await relay.CommitMessageAsync(
            "hello",
            m =>
                situation switch
                {
                    "unknown" => m with { Presence = AccountPresence.Unknown },
                    "background" => m with { Presence = new AccountPresence(AccountState.Background, []) },
                    "foreground" => m with { Presence = new AccountPresence(AccountState.Foreground, []) },
                    "call" => m with { Class = EventClass.Call, CallId = "c1" },
                    "stale" => m with { Stamp = m.At - TimeSpan.FromDays(3) },
                    _ => m,
                }
        );

        var items = (await ExplainAsync()).Items;
        Assert.Contains(sentence, items.Where(i => i.Kind == "decision").Select(i => i.Text));
        Assert.DoesNotContain(items, i => i.Text.Contains("hello", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_way_of_an_alert_is_told_from_the_event_to_the_receipt()
    {
        await relay.RegisterAsync(id: "phone");
        await relay.CommitMessageAsync("hello", m => m with { Id = "m1" });
        relay.Advance(TimeSpan.FromSeconds(10));
        await SettleAsync(new Settlement.Accepted());
        var row = Assert.Single(await relay.RowsAsync());
        relay.Advance(TimeSpan.FromSeconds(2));
        await relay.Get<ReceiptWriter>().WriteAsync(Receipts.For(relay.MasterKey, row.Id), opened: false, null, Token);
        relay.Advance(TimeSpan.FromSeconds(2));
        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()));

        var explanation = await ExplainAsync();

        Assert.Equal(
            [
                "displayed: The account read or answered alice@example.com.",
                "receipt: Device phone says that the alert was received.",
                "settled: The alert reached the phone.",
                "attempt: apns accepted the alert after 12 ms.",
                "decision: To be alerted on phone: no session was connected.",
                "event: A message of alice@example.com came.",
                "device: Device phone was registered by tests.",
            ],
            explanation.Items.Select(i => $"{i.Kind}: {i.Text}")
        );
        Assert.Equal(explanation.Items.OrderByDescending(i => i.At), explanation.Items);
    }

    [Fact]
    public async Task It_is_read_in_parts_and_of_a_time()
    {
        await relay.RegisterAsync(id: "phone");
        for (var i = 0; i < 30; i++)
        {
            relay.Advance(TimeSpan.FromMinutes(1));
            await relay.CommitMessageAsync("hello", m => m with { Id = $"m{i}" });
        }

        var ids = new List<string?>();
        string? cursor = null;
        do
        {
            var part = await ExplainAsync(cursor, limit: "7");
            ids.AddRange(part.Items.Where(i => i.Kind == "event").Select(i => i.Id));
            cursor = part.Next;
        } while (cursor is not null);

        Assert.Equal(Enumerable.Range(0, 30).Reverse().Select(i => $"m{i}"), ids);
        var now = relay.Clock.GetUtcNow();
        var some = await relay.Get<TimeLine>().OfAsync(TestRelay.Bob, now - TimeSpan.FromMinutes(5), null, Page(null, "50"), Token);
        Assert.InRange(some!.Items.Count(i => i.Kind == "event"), 4, 6);
    }

    [Fact]
    public async Task An_account_that_never_was_has_an_empty_one_that_says_since_when()
    {
        var explanation = await ExplainAsync(account: "nobody@example.com");

        Assert.Empty(explanation.Items);
        Assert.StartsWith("Nothing is known of this time.", explanation.Text, StringComparison.Ordinal);
        Assert.Null(await relay.Get<TimeLine>().OfAsync("bob@elsewhere.example", null, null, Page(null, null), Token));
    }

    [Fact]
    public async Task An_export_has_everything_and_erasing_leaves_one_audit_record()
    {
        await relay.RegisterAsync(id: "phone");
        await relay.RegisterAsync(TestRelay.Alice, id: "other");
        await relay.IssueTokenAsync(TestRelay.Bob);
        await relay.CommitMessageAsync("hello");
        await relay.CommitMessageAsync("hello", m => m with { Account = TestRelay.Alice });
        await relay.CommitMessageAsync("hello", m => m with { From = "carol@example.com" });
        // the first reads it; a client that repeats its mark leaves nothing more
        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, "carol@example.com", relay.Clock.GetUtcNow()));
        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, "carol@example.com", relay.Clock.GetUtcNow()));
        var data = relay.Get<AccountData>();
        using var output = new MemoryStream();

        await data.ExportAsync(TestRelay.Bob, output, Token);
        await data.EraseAsync(TestRelay.Bob, TestRelay.Operator.Actor, Token);

        var export = JsonNode.Parse(Encoding.UTF8.GetString(output.ToArray()))!;
        Assert.Equal(
            (1, 1, 2, 1, "alice@example.com"),
            (
                export["devices"]!.AsArray().Count,
                export["tokens"]!.AsArray().Count,
                export["deliveries"]!.AsArray().Count,
                export["history"]!.AsArray().Count,
                (string?)export["unread"]![0]!["conversation"]
            )
        );
        await using var db = relay.NewDb();
        var left = new List<string>();
        foreach (var type in db.Model.GetEntityTypes())
        {
            await using var command = db.Database.GetDbConnection().CreateCommand();
            await db.Database.OpenConnectionAsync(Token);
            command.CommandText = $"SELECT * FROM {type.GetTableName()}";
            await using var reader = await command.ExecuteReaderAsync(Token);
            while (await reader.ReadAsync(Token))
            {
                var row = string.Join(' ', Enumerable.Range(0, reader.FieldCount).Select(i => reader.GetValue(i).ToString()));
                if (row.Contains(TestRelay.Bob, StringComparison.Ordinal))
                {
                    left.Add($"{type.GetTableName()} {row}");
                }
            }
        }

        Assert.Contains(AuditActions.AccountErased, Assert.Single(left), StringComparison.Ordinal);
        Assert.Single(await relay.RowsAsync(TestRelay.Alice));
    }

    private async Task<Explanation> ExplainAsync(string? cursor = null, string? limit = null, string account = TestRelay.Bob) =>
        (await relay.Get<TimeLine>().OfAsync(account, null, null, Page(cursor, limit), Token))!;

    private PageRequest Page(string? cursor, string? limit)
    {
        Assert.True(relay.Get<ListPages>().TryRead("explain", null, cursor, limit, out var page, out _));
        return page;
    }

    private Task CommitAsync(RelayEvent @event) =>
        relay.Get<EventIngest>().CommitAsync([new EventBatch(new StreamName(TestRelay.Server, ""), [@event], null)], term: null, Token);

    private async Task SettleAsync(Settlement settlement)
    {
        var alert = Assert.Single(
            await relay.Outbox.ClaimAsync(
                new Dictionary<Lane, int> { [TestRelay.Lane] = 10 },
                TimeSpan.FromSeconds(30),
                TimeSpan.Zero,
                Token
            )
        );
        var attempt = new Attempt
        {
            DeliveryId = alert.Head.Id,
            Number = 1,
            At = relay.Clock.GetUtcNow(),
            DurationMs = 12,
            Status = 200,
            Outcome = "accepted",
        };
        await relay.Outbox.SettleAsync([new SettledAlert(alert, settlement, attempt)], Token);
        alert.Dispose();
    }
}

public sealed class SqliteTimeLineTests : TimeLineContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync(null, "--Alerts:ReadElsewhere=None");
}

public sealed class PostgreSqlTimeLineTests(PostgreSqlServer server) : TimeLineContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken), "--Alerts:ReadElsewhere=None");
}
