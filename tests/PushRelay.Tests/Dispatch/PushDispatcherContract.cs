using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apns.Simulator;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Dispatch;

/// <summary>From a committed event to APNs and back into the ledger, over real HTTP/2 and TLS, on whichever database.</summary>
public abstract class PushDispatcherContract : IAsyncLifetime
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-dispatch-").FullName;
    private ApnsSimulator apns = null!;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        var ca = Path.Combine(folder, "ca.pem");
        await File.WriteAllTextAsync(ca, apns.CaPem, Token);
        relay = await OpenAsync(apns.Endpoint, ca);
        // the simulator judges the age of a provider token by the real time
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
        await apns.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_message_arrives_as_an_alert_with_the_ledgers_id()
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(token: token);

        await relay.CommitMessageAsync("hello", m => m with { StanzaId = "1795" });

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        var sent = Assert.Single(apns.Received);
        Assert.Equal(token, sent.DeviceToken);
        Assert.Equal(row.Id.ToString(), sent.Headers["apns-id"]);
        Assert.Equal(TestRelay.App, sent.Headers["apns-topic"]);
        Assert.Equal("alert", sent.Headers["apns-push-type"]);
        Assert.Equal("10", sent.Headers["apns-priority"]);
        Assert.Equal(row.ExpiresAt.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture), sent.Headers["apns-expiration"]);
        var payload = JsonNode.Parse(sent.Payload)!;
        Assert.Equal(22, sent.Headers["apns-collapse-id"].Length);
        Assert.Equal(22, ((string)payload["aps"]!["thread-id"]!).Length);
        Assert.NotEqual(sent.Headers["apns-collapse-id"], (string?)payload["aps"]!["thread-id"]);
        Assert.Equal(("hello", "1795"), ((string?)payload["aps"]!["alert"]!["body"], (string?)payload["id"]));
        Assert.Equal(Receipts.For(relay.MasterKey, row.Id), (string?)payload["receipt"]);
        var attempt = Assert.Single(await relay.AttemptsAsync(row.Id));
        Assert.Equal((1, 200, "accepted", row.Id.ToString()), (attempt.Number, attempt.Status!.Value, attempt.Outcome, attempt.ProviderId));
    }

    [Fact]
    public async Task A_message_has_a_collapse_id_of_its_own_and_a_conversation_a_thread()
    {
        await relay.RegisterAsync();

        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2");
        await relay.CommitMessageAsync("3", m => m with { From = "carol@example.com" });
        await relay.WaitForRowsAsync(rows => rows.Count(r => r.State == DeliveryState.Accepted) == 2);
        // the second of a conversation waits for the end of the first's window
        relay.Advance(TimeSpan.FromSeconds(3));

        await relay.WaitForRowsAsync(rows => rows.Count == 3 && rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(3, apns.Received.Select(r => r.Headers["apns-collapse-id"]).Distinct().Count());
        var threads = apns.Received.ToDictionary(
            r => (string)JsonNode.Parse(r.Payload)!["aps"]!["alert"]!["body"]!,
            r => (string?)JsonNode.Parse(r.Payload)!["aps"]!["thread-id"]
        );
        Assert.Equal(threads["1"], threads["2"]);
        Assert.NotEqual(threads["1"], threads["3"]);
    }

    [Fact]
    public async Task Messages_within_the_window_show_as_one_alert_with_the_newest_text_and_their_number()
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2");
        await relay.CommitMessageAsync("3");
        await relay.WaitForRowsAsync(rows => rows[0].State == DeliveryState.Accepted);
        relay.Advance(TimeSpan.FromSeconds(3));

        var rows = await relay.WaitForRowsAsync(rows => rows.All(r => r.SettledAt is not null));

        Assert.Equal([DeliveryState.Accepted, DeliveryState.Accepted, DeliveryState.Coalesced], rows.Select(r => r.State));
        Assert.Equal((2, rows[1].Id), (rows[1].Count, rows[2].CoalescedInto!.Value));
        Assert.Equal(2, apns.Received.Count);
        var payload = JsonNode.Parse(apns.Received[1].Payload)!;
        Assert.Equal(rows[1].Id.ToString(), apns.Received[1].Headers["apns-id"]);
        Assert.Equal(
            ("3", "alice@example.com (2)", 2, 3),
            (
                (string)payload["aps"]!["alert"]!["body"]!,
                (string)payload["aps"]!["alert"]!["title"]!,
                (int)payload["count"]!,
                (int)payload["aps"]!["badge"]!
            )
        );
        Assert.Equal(Receipts.For(relay.MasterKey, rows[1].Id), (string?)payload["receipt"]);
    }

    [Fact]
    public async Task A_503_is_tried_again_with_the_same_id_after_its_wait()
    {
        await relay.RegisterAsync();
        apns.AnswerNext(503, "ServiceUnavailable");

        await relay.CommitMessageAsync("hello");
        var waiting = Assert.Single(
            await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }))
        );
        relay.Advance(TimeSpan.FromSeconds(2));

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal(waiting.Id, row.Id);
        Assert.Single(apns.Received.Select(r => r.Headers["apns-id"]).Distinct());
        Assert.Equal([503, 200], (await relay.AttemptsAsync(row.Id)).Select(a => a.Status!.Value));
        Assert.Equal((2, 1), (row.Attempts, row.AttemptsExcused));
    }

    [Fact]
    public async Task A_device_that_is_refused_for_its_rate_too_often_ends_as_dead()
    {
        await relay.RegisterAsync();
        apns.AnswerNext(429, "TooManyRequests", times: 100);

        await relay.CommitMessageAsync("hello");
        for (var attempt = 1; attempt < 8; attempt++)
        {
            var tried = attempt;
            await relay.WaitForRowsAsync(rows => rows.Any(r => r.State == DeliveryState.Pending && r.Attempts == tried));
            relay.Advance(TimeSpan.FromMinutes(10));
        }

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Dead)));
        Assert.Equal((Reasons.AttemptsExhausted, 8), (row.Reason, row.Attempts));
    }

    [Fact]
    public async Task A_token_that_died_after_the_registration_makes_the_device_invalid()
    {
        var device = await relay.RegisterAsync();
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 410,
                Reason = "Unregistered",
                Timestamp = relay.Clock.GetUtcNow().AddMinutes(1),
            }
        );

        await relay.CommitMessageAsync("hello");

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));
        Assert.Equal("apns_Unregistered", row.Reason);
        var dead = Assert.Single(await relay.Devices.FindAsync(null, device.Id, Token));
        Assert.Equal((DeviceStatus.Invalid, "Unregistered"), (dead.Status, dead.StatusReason));
    }

    [Fact]
    public async Task A_token_that_died_before_the_registration_is_tried_again()
    {
        var device = await relay.RegisterAsync();
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 410,
                Reason = "Unregistered",
                Timestamp = device.RegisteredAt.AddMinutes(-1),
            }
        );

        await relay.CommitMessageAsync("hello");
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }));
        relay.Advance(TimeSpan.FromSeconds(2));

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal(["deferred", "accepted"], (await relay.AttemptsAsync(row.Id)).Select(a => a.Outcome));
        Assert.Equal(DeviceStatus.Active, (await relay.Devices.FindAsync(null, device.Id, Token))[0].Status);
    }

    [Fact]
    public async Task A_bad_token_makes_the_device_invalid_and_cancels_what_waits_for_it()
    {
        var device = await relay.RegisterAsync();
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 400,
                Reason = "BadDeviceToken",
                Delay = TimeSpan.FromMilliseconds(200),
            }
        );

        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2");

        var rows = await relay.WaitForRowsAsync(rows => rows.Count == 2 && rows.All(r => r.SettledAt is not null));
        Assert.Equal(["apns_BadDeviceToken", Reasons.DeviceInvalid], rows.Select(r => r.Reason));
        Assert.Equal(DeviceStatus.Invalid, (await relay.Devices.FindAsync(null, device.Id, Token))[0].Status);
    }

    [Fact]
    public async Task A_refused_notification_ends_at_once_and_the_device_stays()
    {
        var device = await relay.RegisterAsync();
        apns.AnswerNext(413, "PayloadTooLarge");

        await relay.CommitMessageAsync("hello");

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));
        Assert.Equal("apns_PayloadTooLarge", row.Reason);
        Assert.Equal(DeviceStatus.Active, (await relay.Devices.FindAsync(null, device.Id, Token))[0].Status);
    }

    [Fact]
    public async Task Wrong_credentials_hold_the_delivery_and_touch_no_device()
    {
        var device = await relay.RegisterAsync();
        apns.AnswerNext(403, "InvalidProviderToken");

        await relay.CommitMessageAsync("hello");
        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: >= 1 })));

        Assert.Equal(row.Attempts, row.AttemptsExcused);
        Assert.Equal(DeviceStatus.Active, (await relay.Devices.FindAsync(null, device.Id, Token))[0].Status);
    }

    [Theory]
    [InlineData("你好，世界。", 1)]
    [InlineData("👨‍👩‍👧‍👦", 1)]
    [InlineData("你好，世界。", 2000)]
    [InlineData("👨‍👩‍👧‍👦", 400)]
    [InlineData("plain ", 1700)]
    public async Task A_text_in_any_script_arrives_whole_or_cut_between_characters(string text, int times)
    {
        await relay.RegisterAsync();
        var body = string.Concat(Enumerable.Repeat(text, times));

        await relay.CommitMessageAsync(body);

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        var payload = Assert.Single(apns.Received).Payload;
        var shown = (string)JsonNode.Parse(payload)!["aps"]!["alert"]!["body"]!;
        Assert.InRange(Encoding.UTF8.GetByteCount(payload), 1, 4096);
        if (times == 1)
        {
            Assert.Equal(body, shown);
        }
        else
        {
            Assert.EndsWith("…", shown, StringComparison.Ordinal);
            var elements = StringInfo.ParseCombiningCharacters(body).Append(body.Length);
            Assert.StartsWith(shown[..^1], body, StringComparison.Ordinal);
            Assert.Contains(shown.Length - 1, elements);
            // the rest of the payload is under 600 bytes: the cut is no deeper than it must be
            Assert.InRange(Encoding.UTF8.GetByteCount(payload), 4096 - 30, 4096);
        }
    }

    [Fact]
    public async Task A_call_rings_over_PushKit_where_the_device_has_a_token_for_it()
    {
        var voip = TestRelay.NewToken();
        await relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob, callToken: voip, environment: "sandbox"), Token);

        await relay.CommitMessageAsync(null, m => m with { Class = EventClass.Call, CallId = "c1" });

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        var sent = Assert.Single(apns.Received);
        Assert.Equal(
            (voip, "voip", TestRelay.App + ".voip"),
            (sent.DeviceToken, sent.Headers["apns-push-type"], sent.Headers["apns-topic"])
        );
    }

    [Fact]
    public async Task A_dead_token_for_calls_leaves_the_alerts_and_the_call_comes_as_one()
    {
        var token = TestRelay.NewToken();
        var registered = await relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob, token, TestRelay.NewToken()), Token);
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 410,
                Reason = "Unregistered",
                Timestamp = relay.Clock.GetUtcNow().AddMinutes(1),
            }
        );

        await relay.CommitMessageAsync(null, m => m with { Class = EventClass.Call, CallId = "c1" });

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(["voip", "alert"], apns.Received.Select(r => r.Headers["apns-push-type"]));
        Assert.Equal(token, apns.Received[1].DeviceToken);
        Assert.Equal(
            DeviceStatus.Active,
            (await relay.Devices.FindAsync(null, Assert.IsType<DeviceResult.Done>(registered).Device.Id, Token))[0].Status
        );
    }

    [Fact]
    public async Task Names_longer_than_any_screen_do_not_keep_an_alert_back()
    {
        await relay.RegisterAsync();

        await relay.CommitMessageAsync(
            new string('x', 8000),
            m => m with { From = $"{new string('a', 1000)}@{new string('b', 60)}.example", StanzaId = new string('长', 512) }
        );

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.InRange(Encoding.UTF8.GetByteCount(Assert.Single(apns.Received).Payload), 1, 4096);
    }

    [Fact]
    public async Task A_stop_that_cannot_wait_hands_back_and_the_attempt_is_not_counted()
    {
        await relay.RegisterAsync();
        apns.AnswerNext(new ScriptRule { Status = 200, Delay = TimeSpan.FromMinutes(10) });
        await relay.CommitMessageAsync("hello");
        await apns.WaitForAsync(1, Token);

        var stop = relay.Get<IEnumerable<Microsoft.Extensions.Hosting.IHostedService>>().OfType<PushDispatcher>().Single().StopAsync(Token);
        while (!stop.IsCompleted)
        {
            relay.Clock.Advance(TimeSpan.FromSeconds(1));
            await Task.WhenAny(stop, Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Token));
        }

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Pending)));
        Assert.Equal(0, row.Attempts);
    }

    [Fact]
    public async Task What_a_dead_node_held_is_sent_when_its_lease_is_over()
    {
        await relay.RegisterAsync();
        await using (var db = relay.NewDb())
        {
            // a claim that nobody will ever settle
            await relay.CommitMessageAsync("hello", m => m with { Class = EventClass.Text });
            await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
            await db.Set<Delivery>()
                .ExecuteUpdateAsync(
                    set =>
                        set.SetProperty(d => d.State, DeliveryState.Sending)
                            .SetProperty(d => d.SettledAt, (DateTimeOffset?)null)
                            .SetProperty(d => d.Lease, Guid.NewGuid())
                            .SetProperty(d => d.LeaseUntil, relay.Clock.GetUtcNow().AddSeconds(30))
                            .SetProperty(d => d.Attempts, 2),
                    Token
                );
        }

        relay.Advance(TimeSpan.FromSeconds(31));
        relay.Advance(TimeSpan.FromSeconds(1));

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal(3, row.Attempts);
        Assert.Equal(2, apns.Received.Count);
    }

    [Fact]
    public async Task A_device_that_went_meanwhile_is_not_tried()
    {
        var device = await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello", m => m with { At = m.At });
        await relay.WaitForRowsAsync(rows => rows.All(r => r.SettledAt is not null));
        await using (var db = relay.NewDb())
        {
            // at once: the dispatcher looks by itself too
            await using var transaction = await db.Database.BeginTransactionAsync(Token);
            await db.Set<Delivery>()
                .ExecuteUpdateAsync(
                    set =>
                        set.SetProperty(d => d.State, DeliveryState.Pending)
                            .SetProperty(d => d.SettledAt, (DateTimeOffset?)null)
                            .SetProperty(d => d.Attempts, 0),
                    Token
                );
            await db.Set<Device>().Where(d => d.Key == device.Key).ExecuteDeleteAsync(Token);
            await transaction.CommitAsync(Token);
        }

        // what another process did is seen within two seconds
        relay.Advance(TimeSpan.FromSeconds(3));

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Cancelled)));
        Assert.Equal(Reasons.DeviceRemoved, row.Reason);
        Assert.Single(apns.Received);
    }

    [Fact]
    public async Task An_APNs_that_cannot_be_reached_costs_no_attempts_and_no_loop()
    {
        await using var lonely = await OpenAsync(new Uri("https://127.0.0.1:1"), null);
        await lonely.ServeAsync();
        await lonely.RegisterAsync();

        await lonely.CommitMessageAsync("hello");
        await lonely.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }));
        for (var i = 0; i < 20; i++)
        {
            lonely.Get<WorkSignal>().Wake();
            await Task.Yield();
        }

        var row = Assert.Single(await lonely.RowsAsync());
        Assert.Equal((DeliveryState.Pending, 1, 1), (row.State, row.Attempts, row.AttemptsExcused));
        Assert.Equal("deferred", Assert.Single(await lonely.AttemptsAsync(row.Id)).Outcome);
    }

    [Fact]
    public async Task A_stop_waits_for_what_is_being_sent()
    {
        await relay.RegisterAsync();
        apns.AnswerNext(new ScriptRule { Status = 200, Delay = TimeSpan.FromMilliseconds(500) });
        await relay.CommitMessageAsync("hello");
        await apns.WaitForAsync(1, Token);

        await relay.Get<IEnumerable<Microsoft.Extensions.Hosting.IHostedService>>().OfType<PushDispatcher>().Single().StopAsync(Token);

        Assert.Equal(DeliveryState.Accepted, Assert.Single(await relay.RowsAsync()).State);
    }

    private protected abstract Task<string?> NewDatabaseAsync();

    private async Task<TestRelay> OpenAsync(Uri endpoint, string? ca) =>
        await TestRelay.OpenAsync(
            await NewDatabaseAsync(),
            $"--Apps:0:Apns:Endpoint={endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:SandboxEndpoint={endpoint.GetLeftPart(UriPartial.Authority)}",
            ca is null ? "--Apps:0:Alert:Sound=default" : $"--Apps:0:Apns:TrustedCertificateFile={ca}"
        );
}

public sealed class SqlitePushDispatcherTests : PushDispatcherContract
{
    private protected override Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlPushDispatcherTests(PostgreSqlServer server) : PushDispatcherContract
{
    private protected override async Task<string?> NewDatabaseAsync() =>
        await server.NewDatabaseAsync(TestContext.Current.CancellationToken);
}
