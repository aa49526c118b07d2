using System.Text.Json.Nodes;
using PushRelay.Apps;
using PushRelay.Push;
using PushRelay.Push.Apns;

namespace PushRelay.Tests.Push.Apns;

public sealed class ApnsAlertTests
{
    private static readonly Notification Hello = new()
    {
        Id = Guid.Parse("0195a0c0-0000-7000-8000-000000000001"),
        Address = new PushAddress
        {
            App = TestRelay.App,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = new('a', 64) },
        },
        Lane = TestRelay.Lane,
        ExpiresAt = DateTimeOffset.UnixEpoch,
        ThreadId = "abcdefghijklmnopqrstuv",
        Receipt = "receipt",
        Kind = PushKind.Message,
        Account = TestRelay.Bob,
        From = TestRelay.Alice,
        Type = "chat",
        Body = "hello",
        MessageId = "1795",
        Badge = 3,
    };

    [Fact]
    public void A_message_shows_sender_and_text_and_carries_what_the_app_needs() =>
        Assert.Equal(
            """
            {"aps":{"alert":{"title":"alice@example.com","body":"hello"},"badge":3,"sound":"default",
            "thread-id":"abcdefghijklmnopqrstuv","mutable-content":1},
            "account":"bob@example.com","from":"alice@example.com","id":"1795","type":"chat","receipt":"receipt"}
            """.ReplaceLineEndings(""),
            Json(Hello, AlertPreview.Full).ToJsonString()
        );

    [Fact]
    public void A_group_message_shows_the_room_and_who_spoke()
    {
        var alert = Alert(Hello with { From = "garden@rooms.example.com", Type = "groupchat", Nick = "Rose" }, AlertPreview.Full);

        Assert.Equal("garden", (string?)alert["title"]);
        Assert.Equal("Rose: hello", (string?)alert["body"]);
    }

    [Fact]
    public void Preview_Sender_keeps_the_text_from_the_screen()
    {
        var alert = Alert(Hello, AlertPreview.Sender);

        Assert.Equal(TestRelay.Alice, (string?)alert["title"]);
        Assert.Null(alert["body"]);
        Assert.Equal("PR_MESSAGE_FROM", (string?)alert["loc-key"]);
        Assert.Equal(TestRelay.Alice, (string?)alert["loc-args"]![0]);
    }

    [Fact]
    public void Preview_None_keeps_the_sender_from_the_screen_and_from_the_payload()
    {
        var json = Json(Hello, AlertPreview.None);

        Assert.DoesNotContain("alice", json.ToJsonString(), StringComparison.Ordinal);
        Assert.Equal("PR_MESSAGE", (string?)json["aps"]!["alert"]!["loc-key"]);
        Assert.Equal(TestRelay.Bob, (string?)json["account"]);
    }

    [Theory]
    [InlineData("Encrypted", "PR_ENCRYPTED")]
    [InlineData("Call", "PR_CALL")]
    [InlineData("Invite", "PR_INVITE")]
    public void What_has_no_text_of_its_own_is_named_in_the_words_of_the_app(string kind, string key)
    {
        var alert = Alert(Hello with { Kind = Enum.Parse<PushKind>(kind), Body = "fallback for old clients" }, AlertPreview.Full);

        Assert.Equal(key, (string?)alert["loc-key"]);
        Assert.Null(alert["body"]);
        Assert.Equal(TestRelay.Alice, (string?)alert["title"]);
    }

    [Fact]
    public void A_message_whose_text_is_gone_still_says_from_whom() =>
        Assert.Equal("PR_MESSAGE_FROM", (string?)Alert(Hello with { Body = null }, AlertPreview.Full)["loc-key"]);

    [Theory]
    [InlineData(61, "<script>alert(1)</script>@example.com")]
    [InlineData(61, "\u202egnp.exe@example.com")]
    [InlineData(61, "LONG@example.com")]
    public void A_hostile_sender_is_text_and_the_payload_stays_in_its_bounds(int line, string sender)
    {
        sender = sender.Replace("LONG", new string('\u00e9', 511), StringComparison.Ordinal);
        var payload = ApnsAlert
            .Payload(
                Hello with
                {
                    From = sender,
                    Body = new string('x', 8192),
                },
                new AlertOptions { Preview = AlertPreview.Full, Sound = "default" }
            )
            .ToBytes();

        Assert.True(payload.Length <= 4096, $"line {line}: {payload.Length} bytes");
        Assert.StartsWith(((string)JsonNode.Parse(payload)!["aps"]!["alert"]!["title"]!).TrimEnd('…'), sender, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(78, "{{token}} {0} {Account} %n %s $(id) ${env:HOME}")]
    public void A_text_is_never_a_template(int line, string text) =>
        Assert.Equal((line, text), (line, (string?)Alert(Hello with { Body = text }, AlertPreview.Full)["body"]));

    [Fact]
    public void Several_events_in_one_alert_are_counted()
    {
        var json = Json(Hello with { Count = 4 }, AlertPreview.Full);

        Assert.Equal("alice@example.com (4)", (string?)json["aps"]!["alert"]!["title"]);
        Assert.Equal(4, (int?)json["count"]);
    }

    [Fact]
    public void An_app_without_a_sound_is_silent() => Assert.Null(Json(Hello, AlertPreview.Full, sound: "")["aps"]!["sound"]);

    private static JsonNode Alert(Notification notification, AlertPreview preview) => Json(notification, preview)["aps"]!["alert"]!;

    private static JsonNode Json(Notification notification, AlertPreview preview, string sound = "default") =>
        JsonNode.Parse(ApnsAlert.Payload(notification, new AlertOptions { Preview = preview, Sound = sound }).ToBytes())!;
}
