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
            "account":"bob@example.com","from":"alice@example.com","id":"1795","type":"chat","receipt":"receipt","kind":"message"}
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

    public static TheoryData<string, string, string, string> Shown =>
        new()
        {
            // what, preview, as it is shown here, as the app is to write it
            { "text", "Full", "Alice | hello", "Alice | hello" },
            { "text", "Sender", "Alice | New message", "Alice | PR_MESSAGE_FROM [Alice]" },
            { "text", "None", " | New message", " | PR_MESSAGE" },
            { "several", "Full", "Alice (3) | hello", "Alice (3) | hello" },
            { "several", "None", " | 3 new messages", " | PR_MESSAGES_N [3]" },
            { "no text", "Full", "Alice | New message", "Alice | PR_MESSAGE_FROM [Alice]" },
            { "stranger", "Full", "anna@mail.example@gw.example.com | hello", "anna@mail.example@gw.example.com | hello" },
            { "group", "Full", "Garden | Rose: hello", "Garden | Rose: hello" },
            { "group", "Sender", "Garden | Rose: New message", "Garden | PR_MESSAGE_FROM [Rose, Garden] (Rose)" },
            { "group", "None", " | New message", " | PR_MESSAGE" },
            { "me", "Full", "Garden | * Rose waves", "Garden | * Rose waves" },
            { "nameless group", "Full", "friends&family | Rose: hello", "friends&family | Rose: hello" },
            { "private", "Full", "Rose (Garden) | hello", "Rose (Garden) | hello" },
            { "encrypted", "Full", "Alice | Encrypted message", "Alice | PR_ENCRYPTED [Alice]" },
            { "encrypted group", "Full", "Garden | Rose: Encrypted message", "Garden | PR_ENCRYPTED [Rose] (Rose)" },
            { "encrypted", "None", " | Encrypted message", " | PR_ENCRYPTED" },
            { "spoiler", "Full", "Alice | Spoiler", "Alice | PR_SPOILER" },
            { "spoiler with a hint", "Full", "Alice | Spoiler: end of the film", "Alice | end of the film" },
            { "spoiler with a hint", "Sender", "Alice | New message", "Alice | PR_MESSAGE_FROM [Alice]" },
            { "image", "Full", "Alice | Picture", "Alice | PR_IMAGE" },
            { "image with a caption", "Full", "Alice | Picture: the lake", "Alice | the lake" },
            { "image", "Sender", "Alice | New message", "Alice | PR_MESSAGE_FROM [Alice]" },
            { "file", "Full", "Alice | File: plan.pdf", "Alice | PR_FILE [plan.pdf]" },
            { "voice in a group", "Full", "Garden | Rose: Voice message", "Garden | PR_VOICE (Rose)" },
            { "call", "Full", "Alice | Incoming call", "Alice | PR_CALL [Alice]" },
            { "video call", "Full", "Alice | Incoming video call", "Alice | PR_VIDEO_CALL [Alice]" },
            { "group call", "Full", "Garden | Rose: Group call", "Garden | PR_GROUP_CALL [Rose, garden] (Rose)" },
            { "missed call", "Full", "Alice | Missed call", "Alice | PR_MISSED_CALL [Alice]" },
            { "invite", "Full", "Alice | Alice invites you to garden", "Alice | PR_INVITE [Alice, garden]" },
            { "invite", "None", " | New invitation", " | PR_INVITE" },
            { "subscribe", "Full", "alice@example.com | Wants to add you as a contact", "alice@example.com | PR_SUBSCRIBE [Alice]" },
            { "attention", "Full", "Alice | Wants your attention", "Alice | PR_ATTENTION [Alice]" },
            { "retracted", "Full", "Alice | Message withdrawn", "Alice | PR_RETRACTED" },
            { "controls", "Full", "Ali ce | one\ntwo", "Ali ce | one\ntwo" },
            { "German", "Sender", "Alice | Neue Nachricht", "Alice | PR_MESSAGE_FROM [Alice]" },
            { "two languages", "Full", "Alice | hallo", "Alice | hallo" },
        };

    [Theory]
    [MemberData(nameof(Shown))]
    public void What_a_person_reads(string what, string preview, string plain, string keys)
    {
        var notification = Kinds[what];
        foreach (var (texts, expected) in new[] { (AlertWords.Plain, plain), (AlertWords.Keys, keys) })
        {
            var options = new AlertOptions { Preview = Enum.Parse<AlertPreview>(preview), Texts = texts };
            var alert = JsonNode.Parse(ApnsAlert.Payload(notification, options).ToBytes())!["aps"]!["alert"]!;
            var arguments = alert["loc-args"] is JsonArray list ? $" [{string.Join(", ", list.Select(a => (string?)a))}]" : "";
            var subtitle = (string?)alert["subtitle"] is { } nick ? $" ({nick})" : "";
            Assert.Equal(
                expected,
                $"{(string?)alert["title"]} | {(string?)alert["body"] ?? (string?)alert["loc-key"] + arguments}{subtitle}"
            );
        }
    }

    private static readonly Notification Named = Hello with { Name = "Alice" };

    private static readonly Notification Group = Hello with
    {
        From = "garden@rooms.example.com",
        Type = "groupchat",
        Nick = "Rose",
        Name = "Garden",
    };

    private static readonly Dictionary<string, Notification> Kinds = new()
    {
        ["text"] = Named,
        ["several"] = Named with { Count = 3 },
        ["no text"] = Named with { Body = null },
        ["stranger"] = Hello with { From = @"anna\40mail.example@gw.example.com" },
        ["group"] = Group,
        ["me"] = Group with { Body = "/me waves" },
        ["nameless group"] = Group with { Name = null, From = @"friends\26family@rooms.example.com" },
        ["private"] = Hello with { From = "garden@rooms.example.com/Rose", Name = "Garden" },
        ["encrypted"] = Named with { Kind = PushKind.Encrypted, Body = "fallback for old clients" },
        ["encrypted group"] = Group with { Kind = PushKind.Encrypted, Body = null },
        ["spoiler"] = Named with { Hidden = true, Body = null },
        ["spoiler with a hint"] = Named with { Hidden = true, Body = "end of the film" },
        ["image"] = Named with { File = "image", Body = null },
        ["image with a caption"] = Named with { File = "image", Body = "the lake" },
        ["file"] = Named with { File = "file", FileName = "plan.pdf", Body = null },
        ["voice in a group"] = Group with { File = "voice", Body = null },
        ["call"] = Named with { Kind = PushKind.Call, Media = ["audio"] },
        ["video call"] = Named with { Kind = PushKind.Call, Media = ["audio", "video"] },
        ["group call"] = Group with { Kind = PushKind.Call },
        ["missed call"] = Named with { Kind = PushKind.MissedCall },
        ["invite"] = Named with { Kind = PushKind.Invite, Room = "garden@rooms.example.com", Inviter = "alice@example.com" },
        ["subscribe"] = Named with { Kind = PushKind.Subscribe },
        ["attention"] = Named with { Kind = PushKind.Attention },
        ["retracted"] = Named with { Kind = PushKind.Retracted },
        ["controls"] = Named with { Name = "Ali\nce\u202e\u0007", Body = "one\r\ntwo\u0007" },
        ["German"] = Named with { Locale = "de-AT" },
        ["two languages"] = Named with
        {
            Locale = "de-AT",
            Bodies = new Dictionary<string, string> { ["en"] = "hello", ["de"] = "hallo" },
        },
    };

    [Fact]
    public void Preview_None_keeps_the_sender_from_the_screen_and_from_the_payload()
    {
        foreach (var (what, notification) in Kinds)
        {
            var json = Json(notification with { Caller = "alice@example.com/phone" }, AlertPreview.None).ToJsonString();
            Assert.False(
                json.Contains("lice", StringComparison.Ordinal) || json.Contains("arden", StringComparison.Ordinal),
                $"{what}: {json}"
            );
            Assert.Contains(TestRelay.Bob, json, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_call_carries_what_an_app_needs_to_take_it() =>
        Assert.Equal(
            """{"id":"call1","from":"alice@example.com/phone","media":["audio","video"]}""",
            Json(Kinds["video call"] with { CallId = "call1", Caller = "alice@example.com/phone" }, AlertPreview.Full)[
                "call"
            ]!.ToJsonString()
        );

    [Fact]
    public void An_update_and_quiet_hours_make_no_sound()
    {
        foreach (var notification in new[] { Hello with { Update = true }, Hello with { Silent = true } })
        {
            var aps = Json(notification, AlertPreview.Full)["aps"]!;
            Assert.Null(aps["sound"]);
            Assert.Equal("passive", (string?)aps["interruption-level"]);
        }
    }

    [Fact]
    public void What_was_read_elsewhere_shows_nothing() =>
        Assert.Equal(
            """
            {"aps":{"badge":0,"content-available":1},"account":"bob@example.com","from":"alice@example.com","type":"chat",
            "thread":"abcdefghijklmnopqrstuv","receipt":"receipt","kind":"read"}
            """.ReplaceLineEndings(""),
            Json(Hello with { Kind = PushKind.Read, Badge = 0, MessageId = null }, AlertPreview.Full).ToJsonString()
        );

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
        var title = ((string)JsonNode.Parse(payload)!["aps"]!["alert"]!["title"]!).TrimEnd('…');
        Assert.StartsWith(title, sender.TrimStart('\u202e'), StringComparison.Ordinal);
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
