using Microsoft.EntityFrameworkCore;
using PushRelay.Dispatch;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Ingest;

/// <summary>What corrections, withdrawals and the ends of calls do to the alert of their message, by the state it is in.</summary>
public abstract class FollowUpContract : IAsyncLifetime
{
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync();
        relay.OpenPermits(TimeSpan.FromSeconds(30));
        // only the claims give permits: what waits can be looked at
        relay.Get<Permits>().Close();
        await relay.RegisterAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    private protected abstract Task<TestRelay> OpenAsync();

    [Fact]
    public async Task A_correction_of_what_waits_changes_its_text_and_makes_no_row()
    {
        await MessageAsync("a1", "hallo");

        await MessageAsync("a2", "hello", m => m with { Replaces = "a1" });

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Pending, "hello", 1), (row.State, Text(row), row.Badge));
        await MessageAsync("a3", "next", m => m with { From = "carol@example.com" });
        Assert.Equal(2, (await relay.RowsAsync())[1].Badge);
    }

    [Fact]
    public async Task A_correction_of_what_was_shown_takes_its_place_without_a_sound()
    {
        await MessageAsync("a1", "hallo");
        var first = await SendAsync(new Settlement.Accepted());

        await MessageAsync("a2", "hello", m => m with { Replaces = "a1" });

        var row = (await relay.RowsAsync())[1];
        Assert.Equal((DeliveryState.Pending, "update", "hello", 1), (row.State, row.Reason, Text(row), row.Badge));
        var second = await SendAsync(new Settlement.Accepted());
        Assert.Equal((true, PushKind.Message, "hello", 1), (second.Update, second.Kind, second.Body, second.Count));
        Assert.Equal(first.CollapseId, second.CollapseId);
        Assert.NotEqual(first.Id, second.Id);
        Assert.NotEqual(first.CollapseId, first.ThreadId);
    }

    [Fact]
    public async Task A_bot_that_edits_all_the_time_makes_one_sound_and_one_alert()
    {
        await MessageAsync("a1", "0 %");
        await SendAsync(new Settlement.Accepted());
        for (var i = 1; i <= 50; i++)
        {
            await MessageAsync($"a1-{i}", $"{i} %", m => m with { Replaces = "a1" });
        }

        var last = await SendAsync(new Settlement.Accepted());

        Assert.Equal((true, "50 %"), (last.Update, last.Body));
        Assert.DoesNotContain(await relay.RowsAsync(), r => r.State == DeliveryState.Pending);
        await MessageAsync("b", "x", m => m with { From = "carol@example.com" });
        Assert.Equal(2, (await relay.RowsAsync())[^1].Badge);
    }

    [Fact]
    public async Task What_was_withheld_is_not_corrected_and_what_is_not_known_alerts()
    {
        await MessageAsync("a1", "hallo", m => m with { Presence = InFront });

        await MessageAsync("a2", "hello", m => m with { Replaces = "a1" });
        Assert.Single(await relay.RowsAsync());

        await MessageAsync("a3", "hello", m => m with { Replaces = "never seen" });
        Assert.Equal(Reasons.Offline, (await relay.RowsAsync())[1].Reason);
    }

    [Theory]
    [InlineData("mallory@example.com", "chat", null)]
    [InlineData("room@rooms.example.com", "groupchat", "Mallory")]
    public async Task Nobody_else_can_correct_or_withdraw_it(string from, string type, string? nick)
    {
        var original = type == "chat" ? TestRelay.Alice : from;
        await MessageAsync(
            "a1",
            "hello",
            m =>
                m with
                {
                    From = original,
                    Type = type,
                    Content = new() { Body = "hello", Nick = nick is null ? null : "Rose" },
                }
        );

        await MessageAsync(
            "a2",
            "evil",
            m =>
                m with
                {
                    From = from,
                    Type = type,
                    Replaces = "a1",
                    Content = new() { Body = "evil", Nick = nick },
                }
        );
        await CommitAsync(Retraction("a1") with { From = from, Nick = nick });

        Assert.Equal((DeliveryState.Pending, "hello"), ((await relay.RowsAsync())[0].State, Text((await relay.RowsAsync())[0])));
    }

    [Fact]
    public async Task A_withdrawal_of_what_waits_cancels_it_and_it_counts_no_more()
    {
        await MessageAsync("a1", "hello");
        await MessageAsync("a2", "again");

        await CommitAsync(Retraction("a1"));

        var rows = await relay.RowsAsync();
        Assert.Equal((DeliveryState.Cancelled, "retracted"), (rows[0].State, rows[0].Reason));
        Assert.Equal(DeliveryState.Pending, rows[1].State);
        await MessageAsync("a3", "x");
        Assert.Equal(2, (await relay.RowsAsync())[^1].Badge);
    }

    [Fact]
    public async Task A_withdrawal_of_what_was_shown_says_so_in_its_place()
    {
        await MessageAsync("a1", "hello", m => m with { StanzaId = "77" });
        var first = await SendAsync(new Settlement.Accepted());

        await CommitAsync(Retraction("77") with { OfStanza = true });
        await CommitAsync(Retraction("77") with { OfStanza = true });

        Assert.Equal(2, (await relay.RowsAsync()).Count);
        var second = await SendAsync(new Settlement.Accepted());
        Assert.Equal((PushKind.Retracted, true, 0), (second.Kind, second.Update, second.Badge));
        Assert.Equal(first.CollapseId, second.CollapseId);
    }

    [Fact]
    public async Task A_room_can_withdraw_what_an_occupant_wrote()
    {
        await MessageAsync(
            "a1",
            "rude",
            m =>
                m with
                {
                    From = "room@rooms.example.com",
                    Type = "groupchat",
                    StanzaId = "5",
                    Content = new() { Body = "rude", Nick = "Rose" },
                }
        );

        await CommitAsync(Retraction("5") with { From = "room@rooms.example.com", OfStanza = true, ByRoom = true });

        Assert.Equal("retracted", Assert.Single(await relay.RowsAsync()).Reason);
    }

    [Fact]
    public async Task Of_several_messages_in_one_alert_only_the_text_that_is_shown_is_replaced()
    {
        await MessageAsync("a1", "one");
        await MessageAsync("a2", "two");
        var alert = await SendAsync(new Settlement.Accepted());
        Assert.Equal((2, "two"), (alert.Count, alert.Body));

        await MessageAsync("a3", "ONE", m => m with { Replaces = "a1" });
        Assert.Equal(2, (await relay.RowsAsync()).Count);

        await CommitAsync(Retraction("a2"));
        var update = await SendAsync(new Settlement.Accepted());
        Assert.Equal((PushKind.Retracted, alert.CollapseId, 1), (update.Kind, update.CollapseId, update.Badge));
    }

    [Theory]
    [InlineData("retracted", "MissedCall")]
    [InlineData("answered", "Read")]
    [InlineData("rejected", "Read")]
    [InlineData("finished", null)]
    public async Task The_end_of_a_call_replaces_what_rang(string ended, string? becomes)
    {
        await MessageAsync("c1", null, m => m with { Class = EventClass.Call, CallId = "call1" });
        var rang = await SendAsync(new Settlement.Accepted());

        await MessageAsync("c2", null, m => m with { Class = EventClass.CallEnded, CallId = "call1", Ended = ended });

        Assert.Equal(becomes is null ? 1 : 2, (await relay.RowsAsync()).Count);
        if (becomes is not null)
        {
            var after = await SendAsync(new Settlement.Accepted());
            Assert.Equal((becomes, rang.CollapseId, true), (after.Kind.ToString(), after.CollapseId, after.Update));
        }
    }

    [Fact]
    public async Task A_call_counts_for_no_badge_also_when_it_was_missed()
    {
        await MessageAsync("a1", "hello");
        await SendAsync(new Settlement.Accepted());
        await MessageAsync("c1", null, m => m with { Class = EventClass.Call, CallId = "call1" });
        Assert.Equal(1, (await SendAsync(new Settlement.Accepted())).Badge);

        await MessageAsync("c2", null, m => m with { Class = EventClass.CallEnded, CallId = "call1", Ended = "retracted" });

        var missed = await SendAsync(new Settlement.Accepted());
        Assert.Equal((PushKind.MissedCall, 1), (missed.Kind, missed.Badge));
        await MessageAsync("a2", "call me back");
        Assert.Equal(2, (await SendAsync(new Settlement.Accepted())).Badge);
    }

    [Fact]
    public async Task A_call_that_ended_before_it_rang_leaves_nothing()
    {
        await MessageAsync("c1", null, m => m with { Class = EventClass.Call, CallId = "call1" });

        await MessageAsync("c2", null, m => m with { Class = EventClass.CallEnded, CallId = "call1", Ended = "retracted" });

        Assert.Equal("call_ended", Assert.Single(await relay.RowsAsync()).Reason);
    }

    [Fact]
    public async Task What_a_blocked_sender_wrote_and_was_not_sent_is_cancelled()
    {
        await MessageAsync("a1", "hello");
        await MessageAsync("b1", "hello", m => m with { From = "carol@example.com" });

        await CommitAsync(new RelayEvent.Blocked(TestRelay.Bob, TestRelay.Alice, relay.Clock.GetUtcNow()));

        Assert.Equal(["blocked", "offline"], (await relay.RowsAsync()).Select(r => r.Reason));
    }

    [Fact]
    public async Task What_is_read_elsewhere_leaves_the_phone_without_showing_anything()
    {
        await MessageAsync("a1", "hello");
        var first = await SendAsync(new Settlement.Accepted());
        await MessageAsync("b1", "hello", m => m with { From = "carol@example.com" });
        await SendAsync(new Settlement.Accepted());

        await ReadAsync(TestRelay.Alice);
        await ReadAsync(TestRelay.Alice);
        await ReadAsync("nobody@example.com");

        Assert.Equal(3, (await relay.RowsAsync()).Count);
        var read = await SendAsync(new Settlement.Accepted());
        Assert.Equal((PushKind.Read, first.ThreadId, 1), (read.Kind, read.ThreadId, read.Badge));
        await ReadAsync("carol@example.com");
        Assert.Equal(0, (await SendAsync(new Settlement.Accepted())).Badge);
    }

    [Fact]
    public async Task Of_several_conversations_read_within_ten_seconds_the_phone_is_told_little()
    {
        foreach (var who in (string[])["a", "b", "c", "d"])
        {
            await MessageAsync(who, "hello", m => m with { From = $"{who}@example.com" });
            await SendAsync(new Settlement.Accepted());
        }

        foreach (var who in (string[])["a", "b", "c", "d"])
        {
            await ReadAsync($"{who}@example.com");
        }

        // those that were due at once, and those ten seconds later: here together
        var read = await SendAsync(new Settlement.Accepted());
        Assert.Equal((PushKind.Read, 0), (read.Kind, read.Badge));
        Assert.DoesNotContain(await relay.RowsAsync(), r => r.State == DeliveryState.Pending);
    }

    [Fact]
    public async Task An_account_that_is_disabled_gets_nothing_until_it_is_enabled_again()
    {
        await MessageAsync("a1", "hello");
        await CommitAsync(new RelayEvent.AccountDisabled(TestRelay.Bob, true, relay.Clock.GetUtcNow()));
        await MessageAsync("a2", "hello");
        await CommitAsync(new RelayEvent.AccountDisabled(TestRelay.Bob, false, relay.Clock.GetUtcNow()));
        await MessageAsync("a3", "hello");

        Assert.Equal(
            [("Cancelled", "account_disabled"), ("Suppressed", "account_disabled"), ("Pending", "offline")],
            (await relay.RowsAsync()).Select(r => (r.State.ToString(), r.Reason))
        );
    }

    [Fact]
    public async Task A_muted_conversation_does_not_count_on_the_device_that_muted_it()
    {
        await using (var db = relay.NewDb())
        {
            var device = await db.Set<PushRelay.Devices.Device>().SingleAsync(Token);
            device.Preferences = new() { Muted = ["noise@example.com"] };
            await db.SaveChangesAsync(Token);
        }

        await MessageAsync("n1", "x", m => m with { From = "noise@example.com" });
        await MessageAsync("n2", "x", m => m with { From = "noise@example.com" });
        await MessageAsync("a1", "hello");

        Assert.Equal(1, (await relay.RowsAsync())[^1].Badge);
    }

    private Task ReadAsync(string with) => CommitAsync(new RelayEvent.Displayed(TestRelay.Bob, with, relay.Clock.GetUtcNow()));

    private static readonly AccountPresence InFront = new(
        AccountState.Foreground,
        [new Session("s1", "desk", SessionState.Active, true, 0, null, DateTimeOffset.UnixEpoch)]
    );

    private string? Text(Delivery row) => AlertContent.Open(relay.MasterKey, row).Body;

    private RelayEvent.Retraction Retraction(string of) => new(TestRelay.Bob, relay.Clock.GetUtcNow()) { From = TestRelay.Alice, Of = of };

    private Task CommitAsync(RelayEvent @event) =>
        relay.Get<EventIngest>().CommitAsync([new EventBatch(new StreamName(TestRelay.Server, ""), [@event], null)], term: null, Token);

    private Task MessageAsync(string id, string? text, Func<RelayEvent.Message, RelayEvent.Message>? change = null) =>
        relay.CommitMessageAsync(text, m => change is null ? m with { Id = id } : change(m with { Id = id }));

    /// <summary>Takes the one alert that waits, shows it, and settles it so.</summary>
    private async Task<Notification> SendAsync(Settlement settlement)
    {
        relay.Advance(TimeSpan.FromSeconds(10));
        var alert = Assert.Single(
            await relay.Outbox.ClaimAsync(
                new Dictionary<Lane, int> { [TestRelay.Lane] = 10 },
                TimeSpan.FromSeconds(30),
                TimeSpan.Zero,
                Token
            )
        );
        await using var db = relay.NewDb();
        var device = await db.Set<PushRelay.Devices.Device>().SingleAsync(Token);
        var notification = relay.Get<NotificationBuilder>().Build(alert, device);
        Assert.Empty(await relay.Outbox.SettleAsync([new SettledAlert(alert, settlement, null)], Token));
        alert.Dispose();
        return notification;
    }
}

public sealed class SqliteFollowUpTests : FollowUpContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlFollowUpTests(PostgreSqlServer server) : FollowUpContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
