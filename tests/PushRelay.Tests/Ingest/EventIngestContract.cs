using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Audit;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Ingest;

/// <summary>What becomes of events, on whichever database.</summary>
public abstract class EventIngestContract : IAsyncLifetime
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");

    private TestRelay relay = null!;
    private long seq;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private EventIngest Ingest => relay.Get<EventIngest>();

    public async ValueTask InitializeAsync() => relay = await OpenAsync();

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task A_message_makes_one_row_per_device_and_moves_the_position()
    {
        var phone = await relay.RegisterAsync();
        var tablet = await relay.RegisterAsync();

        await CommitAsync(Message("hello"));

        var rows = await relay.RowsAsync();
        Assert.Equal([phone.Key, tablet.Key], rows.Select(r => r.DeviceKey));
        Assert.All(
            rows,
            r => Assert.Equal((DeliveryState.Pending, Reasons.Offline, TestRelay.Alice, 1), (r.State, r.Reason, r.Sender!, r.Badge))
        );
        Assert.Equal(rows[0].OrderingKey, rows[1].OrderingKey);
        Assert.Equal("hello", AlertContent.Open(relay.MasterKey, rows[0]).Body);
        Assert.Equal(new StreamPoint("e", 1), await Ingest.PositionAsync(Stream, Token));
    }

    [Fact]
    public async Task The_body_is_not_in_the_database_in_clear()
    {
        await relay.RegisterAsync();

        await CommitAsync(Message("a very secret body"));

        var content = Assert.Single(await relay.RowsAsync()).Content!;
        Assert.DoesNotContain("secret", System.Text.Encoding.UTF8.GetString(content), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_stanza_that_comes_again_changes_nothing()
    {
        await relay.RegisterAsync();
        var batch = new EventBatch(Stream, [Message("hello") with { Key = "e:1:1" }], new StreamPoint("e", 1));

        await Ingest.CommitAsync([batch], null, Token);
        await Ingest.CommitAsync([batch], null, Token);

        Assert.Single(await relay.RowsAsync());
    }

    [Fact]
    public async Task A_new_epoch_begins_at_its_own_number()
    {
        await Ingest.CommitAsync([new EventBatch(Stream, [], new StreamPoint("old", 900))], null, Token);
        await relay.RegisterAsync();

        await Ingest.CommitAsync([new EventBatch(Stream, [Message("hello")], new StreamPoint("new", 3))], null, Token);

        Assert.Single(await relay.RowsAsync());
        Assert.Equal(new StreamPoint("new", 3), await Ingest.PositionAsync(Stream, Token));
    }

    [Fact]
    public async Task An_account_without_a_device_gets_one_row_without_the_sender()
    {
        await CommitAsync(Message("hello"));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Suppressed, Reasons.NoDevice), (row.State, row.Reason));
        Assert.Null(row.Sender);
        Assert.Null(row.Conversation);
        Assert.Null(row.Device);
        Assert.Null(row.Content);
    }

    [Fact]
    public async Task What_is_withheld_keeps_its_reason_and_no_text()
    {
        await relay.RegisterAsync();

        await CommitAsync(Message("hello", InFront("phone")));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Suppressed, Reasons.Foreground), (row.State, row.Reason));
        Assert.Null(row.Content);
        Assert.NotNull(row.SettledAt);
    }

    [Fact]
    public async Task A_tied_device_waits_while_another_is_in_front_and_reading_there_cancels()
    {
        await relay.RegisterAsync(resource: "phone");
        await CommitAsync(Message("hello", InFront("desk")));
        var waiting = Assert.Single(await relay.RowsAsync());
        Assert.Equal(
            (DeliveryState.Pending, Reasons.OtherDeviceForeground, TimeSpan.FromSeconds(30)),
            (waiting.State, waiting.Reason, waiting.DueAt - waiting.CreatedAt)
        );

        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Cancelled, Reasons.ReadElsewhere), (row.State, row.Reason));
    }

    [Fact]
    public async Task Reading_one_conversation_leaves_the_others()
    {
        await relay.RegisterAsync();

        await CommitAsync(
            Message("from alice"),
            Message("from carol") with
            {
                From = "carol@example.com",
            },
            new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow())
        );

        Assert.Equal([DeliveryState.Cancelled, DeliveryState.Pending], (await relay.RowsAsync()).Select(r => r.State));
    }

    [Fact]
    public async Task A_session_that_comes_to_front_cancels_for_its_own_device_and_for_devices_without_a_resource()
    {
        var phone = await relay.RegisterAsync(resource: "phone");
        var tablet = await relay.RegisterAsync(resource: "tablet");
        var untied = await relay.RegisterAsync();
        await CommitAsync(Message("hello"));

        await CommitAsync(Changed(["phone"], leftForeground: false));

        var rows = (await relay.RowsAsync()).ToDictionary(r => r.DeviceKey);
        Assert.Equal((DeliveryState.Cancelled, Reasons.Foreground), (rows[phone.Key].State, rows[phone.Key].Reason));
        Assert.Equal((DeliveryState.Cancelled, Reasons.Foreground), (rows[untied.Key].State, rows[untied.Key].Reason));
        Assert.Equal(DeliveryState.Pending, rows[tablet.Key].State);
    }

    [Fact]
    public async Task The_end_of_a_call_makes_no_row_and_cancels_what_is_pending_of_it()
    {
        await relay.RegisterAsync();
        await CommitAsync(
            Message(null) with
            {
                Class = EventClass.Call,
                CallId = "c1",
            },
            Message(null) with
            {
                Class = EventClass.Call,
                CallId = "c2",
            }
        );

        await CommitAsync(Message(null) with { Class = EventClass.CallEnded, CallId = "c1" });

        var rows = await relay.RowsAsync();
        Assert.Equal(
            [(DeliveryState.Cancelled, Reasons.CallEnded), (DeliveryState.Pending, Reasons.Call)],
            rows.Select(r => (r.State, r.Reason))
        );
        Assert.NotEqual(rows[0].OrderingKey, rows[1].OrderingKey);
        Assert.Equal(TimeSpan.FromSeconds(30), rows[1].ExpiresAt - rows[1].EventAt);
    }

    [Fact]
    public async Task Nobody_but_the_caller_and_the_account_itself_ends_a_call()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("a text"), Message(null) with { Class = EventClass.Call, CallId = "c1" });

        await CommitAsync(
            Message(null) with
            {
                Class = EventClass.CallEnded,
                CallId = null,
                From = "mallory@example.com",
            },
            Message(null) with
            {
                Class = EventClass.CallEnded,
                CallId = "c1",
                From = "mallory@example.com",
            }
        );
        Assert.All(await relay.RowsAsync(), r => Assert.Equal(DeliveryState.Pending, r.State));

        await CommitAsync(Message(null) with { Class = EventClass.CallEnded, CallId = "c1", From = TestRelay.Bob });
        Assert.Equal([DeliveryState.Pending, DeliveryState.Cancelled], (await relay.RowsAsync()).Select(r => r.State));
    }

    [Fact]
    public async Task A_message_that_is_due_takes_the_waiting_ones_of_its_conversation_with_it()
    {
        await relay.RegisterAsync(resource: "phone");
        await CommitAsync(Message("while the desktop is in front", InFront("desk")));

        await CommitAsync(Message("after it left"));

        Assert.Equal(2, Assert.Single(await ClaimAsync()).Rows.Count);
        Assert.All(await relay.RowsAsync(), r => Assert.True(r.DueAt <= r.CreatedAt + TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public async Task Who_writes_to_an_account_without_a_device_is_not_counted_either()
    {
        await CommitAsync(Message("hello"));

        await using var db = relay.NewDb();
        Assert.Empty(db.Set<UnreadCount>().ToList());
    }

    [Fact]
    public async Task A_count_that_came_to_nothing_is_gone()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("1"));

        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()));

        await using var db = relay.NewDb();
        Assert.Empty(db.Set<UnreadCount>().ToList());
    }

    [Fact]
    public async Task A_snapshot_in_which_very_many_come_to_the_front_is_taken()
    {
        var many = Enumerable
            .Range(0, 40_000)
            .Select(i =>
                (RelayEvent)
                    new RelayEvent.PresenceChanged(new PresenceChange($"u{i}@example.com", ["phone"], false), relay.Clock.GetUtcNow())
            )
            .ToList();

        await Ingest.CommitAsync([new EventBatch(Stream, many, new StreamPoint("e", 1))], null, Token);

        Assert.Equal(new StreamPoint("e", 1), await Ingest.PositionAsync(Stream, Token));
    }

    [Fact]
    public async Task An_epoch_that_comes_back_repeats_nothing_and_stops_nothing()
    {
        await relay.RegisterAsync();
        await Ingest.CommitAsync([new EventBatch(Stream, [Message("1") with { Key = "e1:1:1" }], new StreamPoint("e1", 1))], null, Token);
        await Ingest.CommitAsync([new EventBatch(Stream, [], new StreamPoint("e2", 1))], null, Token);

        await Ingest.CommitAsync(
            [
                new EventBatch(Stream, [Message("1") with { Key = "e1:1:1" }], new StreamPoint("e1", 1)),
                new EventBatch(Stream, [Message("2") with { Key = "e1:2:1" }], new StreamPoint("e1", 2)),
            ],
            null,
            Token
        );

        Assert.Equal(["e1:1:1", "e1:2:1"], (await relay.RowsAsync()).Select(r => r.EventKey));
        Assert.Equal(new StreamPoint("e1", 2), await Ingest.PositionAsync(Stream, Token));
    }

    [Fact]
    public async Task An_event_that_can_never_be_stored_is_passed_over_and_the_others_are_not()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("0"));
        await using (var db = relay.NewDb())
        {
            // the database itself refuses one event
            await db.Database.ExecuteSqlRawAsync(
                db.IsSqlite
                    ? "CREATE TRIGGER refuse BEFORE INSERT ON deliveries WHEN NEW.message_id = 'bad' BEGIN SELECT RAISE(ABORT, "
                        + "'refused'); END"
                    : "ALTER TABLE deliveries ADD CONSTRAINT refuse CHECK (message_id <> 'bad')",
                Token
            );
        }

        await CommitAsync(Message("1") with { Id = "good" }, Message("2") with { Id = "bad" }, Message("3") with { Id = "fine" });

        Assert.Equal([null, "good", "fine"], (await relay.RowsAsync()).Select(r => r.MessageId));
        Assert.Equal(new StreamPoint("e", 2), await Ingest.PositionAsync(Stream, Token));
    }

    [Fact]
    public async Task The_badge_counts_over_conversations_until_they_are_read_or_the_foreground_is_left()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("1"), Message("2"), Message("3") with { From = "carol@example.com" });
        Assert.Equal([1, 2, 3], (await relay.RowsAsync()).Select(r => r.Badge));

        await CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()), Message("4"));
        Assert.Equal(2, (await relay.RowsAsync())[^1].Badge);

        await CommitAsync(Changed([], leftForeground: true), Message("5"));
        Assert.Equal(1, (await relay.RowsAsync())[^1].Badge);
    }

    [Fact]
    public async Task Unacked_alerts_only_the_device_from_which_the_message_was_withheld()
    {
        var phone = await relay.RegisterAsync();
        await CommitAsync(Message("hello", InFront("phone")) with { StanzaId = "77" });
        var late = await relay.RegisterAsync();

        await CommitAsync(Message("hello", Background()) with { StanzaId = "77", Unacked = true });
        await CommitAsync(Message("hello", Background()) with { StanzaId = "77", Unacked = true });

        var rows = await relay.RowsAsync();
        Assert.Equal([(phone.Key, Reasons.Foreground), (phone.Key, Reasons.Unacked)], rows.Select(r => (r.DeviceKey, r.Reason)));
        Assert.DoesNotContain(rows, r => r.DeviceKey == late.Key);
        Assert.Equal(1, rows[1].Badge);
    }

    [Fact]
    public async Task Unacked_finds_the_message_by_sender_and_id_where_there_is_no_archive()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("hello", InFront("phone")) with { Id = "m1" }, Message("hello", InFront("phone")) with { Id = "m2" });

        await CommitAsync(Message("hello", Background()) with { Id = "m1", Unacked = true });

        Assert.Equal("m1", Assert.Single(await relay.RowsAsync(), r => r.Reason == Reasons.Unacked).MessageId);
    }

    [Fact]
    public async Task An_invalid_device_gets_a_row_that_says_so()
    {
        var device = await relay.RegisterAsync();
        await relay.Devices.InvalidateAsync(device, "Unregistered", null, Token);

        await CommitAsync(Message("hello"));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Suppressed, Reasons.DeviceInvalid), (row.State, row.Reason));
    }

    [Fact]
    public async Task A_removed_account_loses_its_devices_and_what_is_pending()
    {
        await relay.RegisterAsync();
        await relay.IssueTokenAsync(TestRelay.Bob);
        await relay.IssueTokenAsync(TestRelay.Alice);
        await CommitAsync(Message("hello"), new RelayEvent.AccountRemoved(TestRelay.Bob, relay.Clock.GetUtcNow()), Message("too late"));

        var rows = await relay.RowsAsync();
        Assert.Equal(
            [(DeliveryState.Cancelled, Reasons.AccountRemoved), (DeliveryState.Suppressed, Reasons.NoDevice)],
            rows.Select(r => (r.State, r.Reason))
        );
        Assert.Empty(await relay.Devices.ListAsync(TestRelay.Bob, null, 10, Token));
        // who takes the name next does not share it
        Assert.Equal(TestRelay.Alice, Assert.Single(await relay.Get<AccountTokens>().ListAsync(null, null, 10, Token)).Account);
    }

    [Fact]
    public async Task An_event_older_than_its_time_to_live_is_kept_but_never_sent()
    {
        await relay.RegisterAsync();
        await CommitAsync(
            Message("fresh"),
            Message(null) with
            {
                Class = EventClass.Call,
                CallId = "c1",
                At = relay.Clock.GetUtcNow() - TimeSpan.FromMinutes(1),
                From = "carol@example.com",
            }
        );

        Assert.Equal(TestRelay.Alice, Assert.Single(await ClaimAsync()).Head.Sender);
        Assert.Equal(2, (await relay.RowsAsync()).Count);
    }

    [Fact]
    public async Task The_first_message_of_a_conversation_is_due_at_once_and_those_within_the_window_at_its_end()
    {
        await relay.RegisterAsync();

        await CommitAsync(Message("1"), Message("2"));
        await CommitAsync(Message("3"));
        await CommitAsync(Message("another") with { From = "carol@example.com" });

        var rows = await relay.RowsAsync();
        var began = rows[0].CreatedAt;
        Assert.Equal([TimeSpan.Zero, TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(2)], rows.Take(3).Select(r => Rounded(r.DueAt - began)));
        Assert.Equal(TimeSpan.Zero, rows[3].DueAt - rows[3].CreatedAt);
        relay.Advance(TimeSpan.FromSeconds(3));
        Assert.Equal(3, (await ClaimAsync()).Single(a => a.Head.Sender == TestRelay.Alice).Rows.Count);
    }

    [Fact]
    public async Task A_window_begins_anew_with_the_alert_that_ended_the_last()
    {
        await relay.RegisterAsync();
        await CommitAsync(Message("1"), Message("2"));
        relay.Advance(TimeSpan.FromSeconds(3));
        await CommitAsync(Message("3"));

        relay.Advance(TimeSpan.FromSeconds(10));
        await CommitAsync(Message("4"));

        var rows = await relay.RowsAsync();
        Assert.Equal(TimeSpan.FromSeconds(2), Rounded(rows[2].DueAt - rows[1].DueAt));
        Assert.Equal(TimeSpan.Zero, rows[3].DueAt - rows[3].CreatedAt);
    }

    [Fact]
    public async Task A_device_gets_ten_alerts_at_once_and_then_one_in_three_seconds()
    {
        await relay.RegisterAsync();
        await relay.RegisterAsync("carol@example.com");

        await CommitAsync([.. Enumerable.Range(0, 13).Select(i => Message("flood") with { From = $"s{i}@example.com" })]);
        await CommitAsync(Message("to another") with { Account = "carol@example.com" });

        var rows = await relay.RowsAsync();
        Assert.Equal([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 6, 9], rows.Select(r => (int)Math.Round((r.DueAt - r.CreatedAt).TotalSeconds)));
        Assert.Equal(
            TimeSpan.Zero,
            Assert.Single(await relay.RowsAsync("carol@example.com")) is var other ? other.DueAt - other.CreatedAt : default
        );
    }

    [Fact]
    public async Task A_flood_from_very_many_senders_puts_an_alert_off_by_two_minutes_at_most()
    {
        await relay.RegisterAsync();

        await CommitAsync([.. Enumerable.Range(0, 70).Select(i => Message("flood") with { From = $"s{i}@example.com" })]);
        await CommitAsync(Message("of a friend"));

        Assert.Equal(120, (await relay.RowsAsync()).Max(r => (int)Math.Round((r.DueAt - r.CreatedAt).TotalSeconds)));
    }

    [Fact]
    public async Task When_it_was_is_clamped_by_the_database_s_clock()
    {
        await relay.RegisterAsync();
        var now = await relay.NowAsync();

        await CommitAsync(
            Message(null) with
            {
                Class = EventClass.Call,
                CallId = "c1",
                At = DateTimeOffset.MaxValue,
            },
            Message(null) with
            {
                Class = EventClass.Call,
                CallId = "c2",
                At = DateTimeOffset.UnixEpoch,
            }
        );

        var rows = await relay.RowsAsync();
        Assert.All(rows, r => Assert.InRange(r.CreatedAt, now, now.AddMinutes(1)));
        Assert.Equal([TimeSpan.Zero, TimeSpan.FromMinutes(-15)], rows.Select(r => r.EventAt - r.CreatedAt));
        Assert.All(rows, r => Assert.Equal(TimeSpan.FromSeconds(30), r.ExpiresAt - r.EventAt));
    }

    [Fact]
    public async Task A_call_does_not_wait_for_any_window()
    {
        await relay.RegisterAsync();

        await CommitAsync([.. Enumerable.Range(0, 12).Select(i => Message(null) with { Class = EventClass.Call, CallId = $"c{i}" })]);

        Assert.All(await relay.RowsAsync(), r => Assert.Equal(r.CreatedAt, r.DueAt));
    }

    [Fact]
    public async Task A_commit_that_failed_has_planned_nothing()
    {
        await relay.RegisterAsync();
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            Ingest.CommitAsync([new EventBatch(Stream, [Message("1")], new StreamPoint("e", 1))], null, cancelled.Token)
        );

        await CommitAsync(Message("1"));

        Assert.Equal(TimeSpan.Zero, Assert.Single(await relay.RowsAsync()) is var row ? row.DueAt - row.CreatedAt : default);
    }

    [Fact]
    public async Task A_message_that_is_read_within_the_same_stanza_is_never_sent()
    {
        await relay.RegisterAsync();
        var permits = relay.OpenPermits(TimeSpan.FromSeconds(30));

        await CommitAsync(Message("hello"), new RelayEvent.Displayed(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Cancelled, Reasons.ReadElsewhere), (row.State, row.Reason));
        Assert.Null(row.Content);
        Assert.False(relay.Get<ReadyQueue>().Reader.TryRead(out _));
        Assert.Equal(0, permits.InFlight);
    }

    private Task<IReadOnlyList<ClaimedAlert>> ClaimAsync() =>
        relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [TestRelay.Lane] = 10 }, TimeSpan.FromSeconds(30), TimeSpan.Zero, Token);

    // PostgreSQL's own clock goes on between two commits
    private static TimeSpan Rounded(TimeSpan time) => TimeSpan.FromSeconds(Math.Round(time.TotalSeconds));

    private protected abstract Task<TestRelay> OpenAsync();

    [Fact]
    public async Task An_event_for_one_device_leaves_the_others_of_the_account_alone()
    {
        var phone = await relay.RegisterAsync();
        await relay.RegisterAsync();

        await CommitAsync(Message("hello") with { OnlyDevice = phone.Key });

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((phone.Key, DeliveryState.Pending, 1), (row.DeviceKey, row.State, row.Badge));
    }

    [Fact]
    public async Task An_event_for_a_device_that_is_gone_alerts_none_and_does_not_count()
    {
        var phone = await relay.RegisterAsync();
        await relay.RegisterAsync();
        Assert.True(await relay.Devices.RemoveAsync(phone, new Actor("tests", null), Token));

        await CommitAsync(Message("hello") with { OnlyDevice = phone.Key }, Message("to all"));

        var rows = await relay.RowsAsync();
        Assert.Equal(
            [(DeliveryState.Suppressed, Reasons.NoDevice), (DeliveryState.Pending, Reasons.Offline)],
            rows.Select(r => (r.State, r.Reason))
        );
        Assert.Null(rows[0].Sender);
        Assert.Equal(1, rows[1].Badge);
    }

    [Theory]
    [InlineData(null, "offline", """{"account":"offline","ownSession":"offline"}""")]
    [InlineData(null, "phone", """{"account":"foreground","ownSession":"foreground"}""")]
    [InlineData("phone", "phone", """{"account":"foreground","ownSession":"foreground","tied":true}""")]
    [InlineData("phone", "desk", """{"account":"foreground","ownSession":"offline","tied":true,"otherInFront":true}""")]
    [InlineData("phone", "offline", """{"account":"offline","ownSession":"offline","tied":true}""")]
    [InlineData("phone", "unknown", """{"account":"unknown","ownSession":"unknown","tied":true}""")]
    [InlineData("phone", "background", """{"account":"background","ownSession":"background","tied":true}""")]
    public async Task A_row_keeps_what_its_decision_looked_at(string? resource, string presence, string situation)
    {
        await relay.RegisterAsync(resource: resource);

        await CommitAsync(
            Message(
                "hello",
                presence switch
                {
                    "offline" => new AccountPresence(AccountState.Offline, []),
                    "unknown" => AccountPresence.Unknown,
                    "background" => Background(),
                    _ => InFront(presence),
                }
            )
        );

        Assert.Equal(situation, Assert.Single(await relay.RowsAsync()).Situation);
    }

    private static AccountPresence InFront(string resource) =>
        new(AccountState.Foreground, [new Session("s1", resource, SessionState.Active, true, 0, null, DateTimeOffset.UnixEpoch)]);

    private static AccountPresence Background() =>
        new(AccountState.Background, [new Session("s1", "phone", SessionState.Hibernating, true, 0, null, DateTimeOffset.UnixEpoch)]);

    private RelayEvent.PresenceChanged Changed(string[] cameToFront, bool leftForeground) =>
        new(new PresenceChange(TestRelay.Bob, [.. cameToFront], leftForeground), relay.Clock.GetUtcNow());

    private RelayEvent.Message Message(string? body, AccountPresence? presence = null) =>
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

    private Task CommitAsync(params RelayEvent[] events) =>
        Ingest.CommitAsync([new EventBatch(Stream, events, new StreamPoint("e", ++seq))], null, Token);
}

public sealed class SqliteEventIngestTests : EventIngestContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlEventIngestTests(PostgreSqlServer server) : EventIngestContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
