using System.Net;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using PushRelay.Access;
using PushRelay.Apns.Simulator;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Dispatch;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Telemetry;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Outbox;

/// <summary>Failovers, machines that stand still, rows of another version, and events that meet in the wrong moment.</summary>
public sealed class HardTimesTests(PostgreSqlServer server)
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);

    // PostgreSQL is to end a transaction whose process stands still after 10 seconds
    private static readonly TimeSpan StandsStill = TimeSpan.FromSeconds(20);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_node_that_stands_still_within_a_settlement_does_not_keep_the_other_leases_from_ending()
    {
        await using var relay = await PostgreSqlAsync();
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2", m => m with { From = "carol@example.com" });
        var claimed = await ClaimAsync(relay);
        Assert.Equal(2, claimed.Count);

        // the other node: its statement has run, its commit never comes (the machine lost its power, its network, or is paused)
        await using var paused = relay.NewDb();
        await using var transaction = await paused.Database.BeginTransactionAsync(Token);
        await OutboxSql
            .Of(paused)
            .SettleAsync(
                paused,
                [.. Transitions.Of(new SettledAlert(claimed[0], new Settlement.Accepted(), null))],
                [],
                relay.Get<DatabaseClock>(),
                Token
            );

        relay.Advance(TimeSpan.FromSeconds(31));

        Assert.True(
            await EndsAsync(end => relay.Get<OutboxUpkeep>().ReleaseExpiredAsync(8, end)),
            "no lease of any row can end while one transaction stands still"
        );
        Assert.Contains(await relay.RowsAsync(), r => r.State == DeliveryState.Pending);
    }

    [Fact]
    public async Task A_node_that_stands_still_within_a_claim_does_not_hold_up_the_events_of_the_link()
    {
        await using var relay = await PostgreSqlAsync();
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");

        await using var paused = relay.NewDb();
        await using var transaction = await paused.Database.BeginTransactionAsync(Token);
        var now = await relay.NowAsync();
        Assert.Single(
            await OutboxSql
                .Of(paused)
                .ClaimAsync(paused, new Dictionary<Lane, int> { [TestRelay.Lane] = 10 }, Guid.NewGuid(), Lease, TimeSpan.Zero, now, Token)
        );

        var read = new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow());
        Assert.True(
            await EndsAsync(end =>
                relay.Get<EventIngest>().CommitAsync([new EventBatch(Stream, [read], new StreamPoint("e", 1))], null, end)
            ),
            "the link's events wait for a transaction that stands still"
        );
    }

    [Fact]
    public async Task A_database_that_takes_no_writes_for_a_moment_costs_no_event()
    {
        await using var relay = await PostgreSqlAsync();
        await relay.RegisterAsync();
        await using var db = relay.NewDb();
        var name = db.Database.GetDbConnection().Database;
        await SetReadOnlyAsync(db, name, "on");
        // a failover: the old primary is a standby until the name points to the new one, here at the moment of the first refusal
        var ingest = NewIngest(relay, new AtFirstWord(() => SetReadOnlyAsync(db, name, "off").GetAwaiter().GetResult()));

        var refused = await Record.ExceptionAsync(() =>
            ingest.CommitAsync([new EventBatch(Stream, [Message(relay, "hello")], new StreamPoint("e", 1))], null, Token)
        );

        // either it is stored, or it is not acknowledged
        var position = await ingest.PositionAsync(Stream, Token);
        Assert.True(refused is not null || (await relay.RowsAsync()).Count == 1, $"acknowledged up to {position?.Seq}, and no row");
    }

    [Fact]
    public async Task What_a_node_whose_clock_is_behind_adds_comes_after_what_was_there()
    {
        await using var relay = await PostgreSqlAsync();
        await relay.RegisterAsync();
        // this node's clock, and not the database's
        relay.Clock.Advance(TimeSpan.FromHours(1));
        await relay.CommitMessageAsync("first");

        await NewIngest(relay, relay.Get<ILogger<EventIngest>>())
            .CommitAsync([new EventBatch(Stream, [Message(relay, "second")], new StreamPoint("e", 2))], null, Token);

        var rows = await relay.RowsAsync();
        Assert.Equal(
            rows.OrderBy(r => r.CreatedAt).Select(r => r.Id),
            rows.OrderBy(r => r.Id.ToString("N"), StringComparer.Ordinal).Select(r => r.Id)
        );
        Assert.Equal(2, rows.Count);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Unacked_alerts_a_device_whose_alert_was_cancelled_because_it_came_to_the_front(bool postgreSql)
    {
        await using var relay = postgreSql ? await PostgreSqlAsync() : await TestRelay.OpenAsync();
        await relay.RegisterAsync(resource: "phone");
        var ingest = relay.Get<EventIngest>();
        await CommitAsync(ingest, 1, Message(relay, "hello", InFront("desktop")) with { StanzaId = "1795" });
        await CommitAsync(ingest, 2, Changed(relay, "phone"));
        Assert.Equal(
            (DeliveryState.Cancelled, Reasons.Foreground),
            Assert.Single(await relay.RowsAsync()) is var row ? (row.State, row.Reason) : default
        );

        // its socket was dead: the server says again what the phone never acknowledged
        await CommitAsync(ingest, 3, Message(relay, "hello") with { StanzaId = "1795", Unacked = true });

        Assert.Contains(await relay.RowsAsync(), r => r.State == DeliveryState.Pending);
    }

    [Fact]
    public async Task A_message_that_waits_for_its_window_does_not_wait_for_an_older_ones_grace()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.RegisterAsync(resource: "phone");
        var ingest = relay.Get<EventIngest>();
        await CommitAsync(ingest, 1, Message(relay, "1"));
        await relay.Outbox.SettleAsync([new SettledAlert(Assert.Single(await ClaimAsync(relay)), new Settlement.Accepted(), null)], Token);
        await CommitAsync(ingest, 2, Message(relay, "2", InFront("desktop")));
        await CommitAsync(ingest, 3, Message(relay, "3"));

        relay.Advance(TimeSpan.FromSeconds(5));

        Assert.Equal(2, (await ClaimAsync(relay)).SingleOrDefault()?.Rows.Count ?? 0);
    }

    [Fact]
    public async Task A_call_that_ended_while_its_alert_was_tried_is_not_tried_again()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.RegisterAsync();
        var ingest = relay.Get<EventIngest>();
        await CommitAsync(ingest, 1, Message(relay, null) with { Class = EventClass.Call, CallId = "c1" });
        var ringing = Assert.Single(await ClaimAsync(relay));
        await CommitAsync(ingest, 2, Message(relay, null) with { Class = EventClass.CallEnded, CallId = "c1" });
        await relay.Outbox.SettleAsync(
            [new SettledAlert(ringing, new Settlement.Retry(TimeSpan.FromSeconds(1), Excused: true), null)],
            Token
        );

        relay.Advance(TimeSpan.FromSeconds(2));

        Assert.Empty(await ClaimAsync(relay));
    }

    [Fact]
    public async Task A_call_that_waited_here_past_its_time_to_live_is_not_sent()
    {
        await using var apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        await using var relay = await ServedAsync(apns, "--Dispatch:Concurrency=1", "--Alerts:CallTimeToLive=00:00:10");
        await relay.ServeAsync();
        await relay.RegisterAsync();
        apns.AnswerNext(new ScriptRule { Status = 200, Delay = TimeSpan.FromHours(1) });
        await relay.CommitMessageAsync("hangs");
        await apns.WaitForAsync(1, Token);
        await relay.CommitMessageAsync(null, m => m with { Class = EventClass.Call, CallId = "c1", From = "carol@example.com" });

        // the first request is given up, and its place is free
        relay.Advance(TimeSpan.FromSeconds(15));

        var rows = await relay.WaitForRowsAsync(rows =>
        {
            // time stands still: what was handed back is swept by hand
            relay.Get<Housekeeping>().SweepAsync(Token).GetAwaiter().GetResult();
            return rows.Any(r => r.Class == EventClass.Call && r.SettledAt is not null);
        });
        Assert.Equal(DeliveryState.Expired, rows.Single(r => r.Class == EventClass.Call).State);
        Assert.Single(apns.Received);
    }

    [Fact]
    public async Task What_a_process_that_died_on_SQLite_had_in_flight_goes_out_at_the_next_start_even_if_the_clock_was_set_back()
    {
        await using var apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        await using var relay = await ServedAsync(apns);
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello");
        Assert.Single(await ClaimAsync(relay));
        await using (var db = relay.NewDb())
        {
            // the clock was an hour ahead when it was claimed
            await db.Set<Delivery>()
                .ExecuteUpdateAsync(set => set.SetProperty(d => d.LeaseUntil, relay.Clock.GetUtcNow().AddHours(1)), Token);
        }

        await relay.ServeAsync();

        // time stands still: no lease ends
        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal(2, row.Attempts);
    }

    [Fact]
    public async Task A_process_that_dies_after_each_start_does_not_use_up_its_attempts_at_once()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello");
        var lease = TimeSpan.FromSeconds(30);
        Assert.Single(await ClaimAsync(relay));
        await relay.Get<OutboxUpkeep>().RecoverAfterCrashAsync(8, lease, Token);
        Assert.Single(await ClaimAsync(relay));

        await relay.Get<OutboxUpkeep>().RecoverAfterCrashAsync(8, lease, Token);

        Assert.Empty(await ClaimAsync(relay));
        relay.Advance(lease);
        Assert.Equal(1, await relay.Get<OutboxUpkeep>().ReleaseExpiredAsync(8, Token));
        Assert.Equal(3, Assert.Single(await ClaimAsync(relay)).Head.Attempts);
    }

    [Fact]
    public async Task A_device_whose_row_cannot_be_read_holds_up_no_other()
    {
        await using var apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        await using var relay = await ServedAsync(apns);
        var bad = await relay.RegisterAsync();
        await relay.RegisterAsync("carol@example.com");
        await relay.CommitMessageAsync("to bob");
        await relay.CommitMessageAsync("to carol", m => m with { Account = "carol@example.com" });
        await using (var db = relay.NewDb())
        {
            // as a newer version of a rolling upgrade may have written it
            await db.Database.ExecuteSqlAsync(
                $$"""UPDATE devices SET preferences = '{"Preview":"Brief"}' WHERE key = {{bad.Key}}""",
                Token
            );
        }

        relay.Advance(TimeSpan.FromSeconds(3));
        await relay.ServeAsync();

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted), "carol@example.com");
    }

    [Fact]
    public async Task An_event_for_a_device_whose_row_cannot_be_read_is_not_lost()
    {
        await using var relay = await TestRelay.OpenAsync();
        var bad = await relay.RegisterAsync();
        await using (var db = relay.NewDb())
        {
            await db.Database.ExecuteSqlAsync(
                $$"""UPDATE devices SET preferences = '{"Preview":"Brief"}' WHERE key = {{bad.Key}}""",
                Token
            );
        }

        relay.Advance(TimeSpan.FromSeconds(3));
        var refused = await Record.ExceptionAsync(() => CommitAsync(relay.Get<EventIngest>(), 1, Message(relay, "hello")));

        Assert.True(refused is not null || (await relay.RowsAsync()).Count == 1, "acknowledged, and no row");
    }

    [Fact]
    public async Task What_a_dead_token_ended_is_sent_again_once_the_device_has_registered_and_lives_as_long_as_a_new_one()
    {
        await using var apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        apns.AnswerNext(400, "BadDeviceToken");
        await using var relay = await ServedAsync(apns);
        var device = await relay.RegisterAsync();
        await relay.ServeAsync();
        using var client = relay.NewClient();
        await relay.CommitMessageAsync("hello");
        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));

        using var early = await client.PostAsync($"/v1/deliveries/{row.Id}/retry", null, Token);
        Assert.Equal(HttpStatusCode.Conflict, early.StatusCode);
        Assert.Contains("invalid", await early.Content.ReadAsStringAsync(Token), StringComparison.Ordinal);
        await relay.RegisterAsync(id: device.Id);
        using var again = await client.PostAsync($"/v1/deliveries/{row.Id}/retry", null, Token);
        Assert.Equal(HttpStatusCode.Accepted, again.StatusCode);

        row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal((2, TimeSpan.FromDays(1)), (row.Attempts, row.ExpiresAt - row.DueAt));
        await client.DeleteAsync($"/v1/devices/{device.Id}", Token);
        using var late = await client.PostAsync($"/v1/deliveries/{row.Id}/retry", null, Token);
        Assert.Contains("removed", await late.Content.ReadAsStringAsync(Token), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_delivery_that_an_operator_sends_again_is_not_pruned_in_that_moment()
    {
        await using var relay = await PostgreSqlAsync();
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("1");
        await relay.Outbox.SettleAsync([new SettledAlert(Assert.Single(await ClaimAsync(relay)), new Settlement.Dead(), null)], Token);
        var dead = Assert.Single(await relay.RowsAsync());
        await using var @operator = relay.NewDb();
        await using var transaction = await @operator.Database.BeginTransactionAsync(Token);
        Assert.True(await relay.Outbox.RetryAsync(@operator, dead, TimeSpan.FromDays(1), Token));

        await using var keeper = relay.NewDb();
        var pruned = OutboxUpkeep.PruneAsync(keeper, await relay.NowAsync() + TimeSpan.FromHours(1), 100, Token);
        await TestRelay.UntilAsync(async () => await WaitersAsync(relay) > 0, () => "nobody waits");
        await transaction.CommitAsync(Token);
        await pruned;

        Assert.Equal(DeliveryState.Pending, Assert.Single(await relay.RowsAsync()).State);
    }

    private static async Task<int> WaitersAsync(TestRelay relay)
    {
        await using var db = relay.NewDb();
        return await db.Database.SqlQuery<int>($"SELECT count(*)::int AS \"Value\" FROM pg_locks WHERE NOT granted").SingleAsync(Token);
    }

    private static async Task<bool> EndsAsync(Func<CancellationToken, Task> work)
    {
        using var limit = new CancellationTokenSource(StandsStill, TimeProvider.System);
        try
        {
            await work(limit.Token);
            return true;
        }
        catch (Exception) when (limit.IsCancellationRequested)
        {
            return false;
        }
    }

    private static async Task SetReadOnlyAsync(RelayDb db, string name, string value)
    {
        var connection = (NpgsqlConnection)db.Database.GetDbConnection();
        await using var admin = new NpgsqlConnection(
            new NpgsqlConnectionStringBuilder(connection.ConnectionString) { Database = "postgres", Pooling = false }.ConnectionString
        );
        await admin.OpenAsync(Token);
        await using var command = new NpgsqlCommand($"ALTER DATABASE {name} SET default_transaction_read_only = {value}", admin);
        await command.ExecuteNonQueryAsync(Token);
        // the setting is a new connection's
        NpgsqlConnection.ClearPool(connection);
    }

    private static Task<IReadOnlyList<ClaimedAlert>> ClaimAsync(TestRelay relay) =>
        relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [TestRelay.Lane] = 10 }, Lease, TimeSpan.Zero, Token);

    private static Task CommitAsync(EventIngest ingest, long seq, RelayEvent @event) =>
        ingest.CommitAsync([new EventBatch(Stream, [@event], new StreamPoint("e", seq))], null, Token);

    private static AccountPresence InFront(string resource) =>
        new(AccountState.Foreground, [new Session("s1", resource, SessionState.Active, true, 0, null, DateTimeOffset.UnixEpoch)]);

    /// <summary>As another process has it: only the database is shared.</summary>
    private static EventIngest NewIngest(TestRelay relay, ILogger<EventIngest> logger) =>
        new(
            relay.Get<IDbContextFactory<RelayDb>>(),
            relay.Outbox,
            relay.Get<ReadyQueue>(),
            relay.Devices,
            relay.Get<AccountTokens>(),
            new DeliveryFactory(relay.MasterKey, new IdSequence(), relay.Get<IOptions<AlertsOptions>>()),
            relay.Get<PushNetworks>(),
            relay.Get<ReadPushes>(),
            relay.Get<DatabaseClock>(),
            relay.Get<LeaseTable>(),
            relay.Get<WriteGate>(),
            relay.Get<AppCatalog>(),
            relay.Get<EndedCount>(),
            relay.Get<RelayMetrics>(),
            relay.Get<IOptions<AlertsOptions>>(),
            relay.Clock,
            logger
        );

    private static RelayEvent.PresenceChanged Changed(TestRelay relay, string cameToFront) =>
        new(new PresenceChange(TestRelay.Bob, [cameToFront], LeftForeground: false), relay.Clock.GetUtcNow());

    private static RelayEvent.Message Message(TestRelay relay, string? body, AccountPresence? presence = null) =>
        new(TestRelay.Bob, relay.Clock.GetUtcNow())
        {
            Key = Guid.NewGuid().ToString(),
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            From = TestRelay.Alice,
            Type = "chat",
            Content = new AlertContent { Body = body },
            Presence = presence ?? new AccountPresence(AccountState.Offline, []),
        };

    private static async Task<TestRelay> ServedAsync(ApnsSimulator apns, params string[] settings)
    {
        var ca = Path.Combine(Directory.CreateTempSubdirectory("pushrelay-hard-").FullName, "ca.pem");
        await File.WriteAllTextAsync(ca, apns.CaPem, Token);
        var relay = await TestRelay.OpenAsync(
            null,
            [
                $"--Apps:0:Apns:Endpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
                $"--Apps:0:Apns:SandboxEndpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
                $"--Apps:0:Apns:TrustedCertificateFile={ca}",
                .. settings,
            ]
        );
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        return relay;
    }

    private async Task<TestRelay> PostgreSqlAsync() => await TestRelay.OpenAsync(await server.NewDatabaseAsync(Token));

    private sealed class AtFirstWord(Action act) : ILogger<EventIngest>
    {
        private bool done;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(
            LogLevel logLevel,
            EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter
        )
        {
            if (!done)
            {
                done = true;
                act();
            }
        }
    }
}
