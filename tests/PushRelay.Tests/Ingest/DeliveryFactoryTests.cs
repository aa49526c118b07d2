using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Tests.Ingest;

/// <summary>What the rows of an event are, whatever its source.</summary>
public sealed class DeliveryFactoryTests : IAsyncLifetime
{
    private static readonly DateTimeOffset Now = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly PushDecision Alerted = new PushDecision.Alert(Reasons.Offline, TimeSpan.Zero);

    private TestRelay relay = null!;
    private Device device = null!;

    private DeliveryFactory Factory => relay.Get<DeliveryFactory>();

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync();
        device = await relay.RegisterAsync();
    }

    public ValueTask DisposeAsync() => relay.DisposeAsync();

    [Theory]
    // when it says it was, in seconds from now, and when it counts as
    [InlineData(-5, -5)]
    [InlineData(0, 0)]
    [InlineData(3600, 0)]
    [InlineData(-899, -899)]
    [InlineData(-86400, -900)]
    public void When_it_was_is_within_the_last_fifteen_minutes(int says, int counts)
    {
        var row = Row(Message() with { At = Now + TimeSpan.FromSeconds(says) });

        Assert.Equal(Now + TimeSpan.FromSeconds(counts), row.EventAt);
        Assert.Equal(row.EventAt + TimeSpan.FromDays(1), row.ExpiresAt);
    }

    [Theory]
    [InlineData("text", null, "1.00:00:00")]
    [InlineData("encrypted", null, "1.00:00:00")]
    [InlineData("call", null, "00:00:30")]
    [InlineData("text", "01:00:00", "01:00:00")]
    [InlineData("call", "00:01:00", "00:01:00")]
    public void An_alert_lives_as_long_as_the_event_says_or_else_the_settings(string className, string? says, string lives)
    {
        var row = Row(
            Message(className) with
            {
                TimeToLive = says is null ? null : TimeSpan.Parse(says, System.Globalization.CultureInfo.InvariantCulture),
            }
        );

        Assert.Equal(TimeSpan.Parse(lives, System.Globalization.CultureInfo.InvariantCulture), row.ExpiresAt - Now);
    }

    [Theory]
    // a conversation is one ordering key, whatever is written there
    [InlineData("text alice k1", "text alice k2", true)]
    [InlineData("text alice k1", "encrypted alice k2", true)]
    [InlineData("text alice k1", "text carol k2", false)]
    // a call is one by itself, also of the same caller
    [InlineData("text alice k1", "call alice k2 c1", false)]
    [InlineData("call alice k1 c1", "call alice k2 c1", true)]
    [InlineData("call alice k1 c1", "call alice k2 c2", false)]
    [InlineData("call alice k1", "call alice k2", false)]
    // a test waits for nothing
    [InlineData("test alice k1", "test alice k2", false)]
    public void What_waits_for_each_other_has_one_ordering_key(string one, string other, bool same)
    {
        Assert.Equal(same, Row(Parse(one)).OrderingKey == Row(Parse(other)).OrderingKey);

        static RelayEvent.Message Parse(string text)
        {
            var words = text.Split(' ');
            return Message(words[0] == "test" ? "text" : words[0]) with
            {
                Source = words[0] == "test" ? EventSource.Test : EventSource.Bridge,
                From = $"{words[1]}@example.com",
                Key = words[2],
                CallId = words.Length > 3 ? words[3] : null,
            };
        }
    }

    [Fact]
    public void A_row_that_is_sent_has_its_device_its_text_and_when_it_is_due()
    {
        var row = Factory.Of(Message(), Now).To(device, Alerted, null, TimeSpan.FromSeconds(7), badge: 3);

        Assert.Equal(
            (device.Key, device.Id, device.App, device.Platform, TestRelay.Server, 3),
            (row.DeviceKey, row.Device, row.App, row.Platform, row.Server, row.Badge)
        );
        Assert.Equal((DeliveryState.Pending, Reasons.Offline), (row.State, row.Reason));
        Assert.Equal((Now, Now + TimeSpan.FromSeconds(7), null), (row.CreatedAt, row.DueAt, row.SettledAt));
        Assert.Equal(device.Lane, row.Lane);
        Assert.Equal(new AlertContent { Body = "hello", Nick = "Al" }, AlertContent.Open(relay.MasterKey, row));
        Assert.Equal(new AlertContent { Body = "hello", Nick = "Al" }, row.Clear);
    }

    [Fact]
    public void A_row_that_is_withheld_is_settled_and_has_no_text()
    {
        var row = Factory.Of(Message(), Now).To(device, new PushDecision.Suppress(Reasons.Muted), null, TimeSpan.Zero, badge: 3);

        Assert.Equal((DeliveryState.Suppressed, Reasons.Muted, Now), (row.State, row.Reason, row.SettledAt));
        Assert.Equal((null, null), (row.Content, row.Clear));
    }

    [Fact]
    public void A_row_for_nobody_does_not_say_who_wrote()
    {
        var row = Factory.Of(Message(), Now).ToNobody(Situation() with { OwnSession = null });

        Assert.Equal((DeliveryState.Suppressed, Reasons.NoDevice, Guid.Empty), (row.State, row.Reason, row.DeviceKey));
        Assert.Equal((null, null, null, null, null), (row.Device, row.Sender, row.Conversation, row.Content, row.Clear));
        Assert.Equal("""{"account":"offline"}""", row.Situation);
    }

    [Theory]
    [InlineData("", """{"account":"offline","ownSession":"offline"}""")]
    [InlineData("tied other", """{"account":"offline","ownSession":"offline","tied":true,"otherInFront":true}""")]
    [InlineData("muted mention", """{"account":"offline","ownSession":"offline","muted":true,"mention":true}""")]
    [InlineData("quiet unacked", """{"account":"offline","ownSession":"offline","quietHours":true,"unacked":true}""")]
    public void A_situation_is_kept_without_what_is_false_and_read_back_whole(string what, string kept)
    {
        var situation = Situation() with
        {
            DeviceTied = Has("tied"),
            OtherInFront = Has("other"),
            Muted = Has("muted"),
            Mention = Has("mention"),
            QuietHours = Has("quiet"),
            Unacked = Has("unacked"),
        };

        var row = Factory.Of(Message(), Now).To(device, Alerted, situation, TimeSpan.Zero, badge: 1);

        Assert.Equal(kept, row.Situation);
        Assert.Equal(
            new DeliverySituation(
                "offline",
                "offline",
                Has("tied"),
                Has("other"),
                Has("muted"),
                Has("mention"),
                Has("quiet"),
                Has("unacked")
            ),
            DeliverySituation.Read(row.Situation)
        );

        bool Has(string word) => what.Split(' ').Contains(word);
    }

    [Fact]
    public void Every_situation_has_a_text_of_its_own_that_is_written_once()
    {
        var situations = (
            from account in Enum.GetValues<AccountState>()
            from own in (AccountState?[])[null, .. Enum.GetValues<AccountState>().Cast<AccountState?>()]
            from flags in Enumerable.Range(0, 64)
            select Situation() with
            {
                Account = account,
                OwnSession = own,
                DeviceTied = (flags & 1) > 0,
                OtherInFront = (flags & 2) > 0,
                Muted = (flags & 4) > 0,
                Mention = (flags & 8) > 0,
                QuietHours = (flags & 16) > 0,
                Unacked = (flags & 32) > 0,
            }
        ).ToList();

        var texts = situations.ConvertAll(DeliverySituation.Write);
        var allocated = GC.GetAllocatedBytesForCurrentThread();
        foreach (var situation in situations)
        {
            DeliverySituation.Write(situation);
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - allocated);
        Assert.Equal(situations.Count, texts.Distinct(StringComparer.Ordinal).Count());
    }

    private Delivery Row(RelayEvent.Message message) => Factory.Of(message, Now).To(device, Alerted, null, TimeSpan.Zero, badge: 1);

    private static RelayEvent.Message Message(string className = "text") =>
        new(TestRelay.Bob, Now)
        {
            Key = "e:1:1",
            Source = EventSource.Bridge,
            Class = Names.TryParse(className, out EventClass @class) ? @class : throw new ArgumentException(className),
            From = TestRelay.Alice,
            Type = "chat",
            Content = new AlertContent { Nick = "Al", Body = "hello" },
            Presence = new AccountPresence(AccountState.Offline, []),
        };

    private static PushSituation Situation() =>
        new()
        {
            Class = EventClass.Text,
            Account = AccountState.Offline,
            DeviceValid = true,
            Muted = false,
            QuietHours = false,
            DeviceTied = false,
            OwnSession = AccountState.Offline,
            OtherInFront = false,
            Mention = false,
            Unacked = false,
        };
}
