using System.Buffers.Text;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Apps;
using PushRelay.Push;
using PushRelay.Push.Encryption;
using PushRelay.Push.Fcm;
using PushRelay.Rig.Networks;
using static PushRelay.Tests.Push.Notifications;

namespace PushRelay.Tests.Push.Fcm;

public sealed class FcmMessageTests
{
    private static readonly Dictionary<string, Func<Notification>> Cases = new()
    {
        ["text"] = () => Message(),
        ["several"] = () => Message() with { Count = 12 },
        ["group"] = () => Message() with { From = "room@muc.example.com", Type = "groupchat", Nick = "Alice" },
        ["encrypted"] = () => Message() with { Kind = PushKind.Encrypted, Body = null },
        ["call"] = () => Message() with { Kind = PushKind.Call, Body = null },
        ["invite"] = () => Message() with { Kind = PushKind.Invite, Body = null },
        ["no id"] = () => Message() with { MessageId = null },
        ["a long id"] = () => Message() with { MessageId = new string('i', 301) },
        ["a lone surrogate"] = () => Message() with { Body = "a\ud800b" },
        ["emoji and quotes"] = () => Message() with { Body = "\"👩‍👩‍👧‍👦\"\n\u0001" },
        ["user shows the sender only"] = () => Message() with { Preview = AlertPreview.Sender },
        ["user shows nothing"] = () => Message() with { Preview = AlertPreview.None },
    };

    public static TheoryData<string, string> Data =>
        new()
        {
            {
                "text",
                """{"kind":"message","title":"alice@example.com","body":"hello","badge":"3","sender":"alice@example.com","id":"m1"}"""
            },
            { "several", """{"title":"alice@example.com (12)","body":"hello","count":"12"}""" },
            { "group", """{"title":"room","body":"Alice: hello","sender":"room@muc.example.com","type":"groupchat"}""" },
            { "encrypted", """{"kind":"encrypted","title":"alice@example.com","body":"Encrypted message"}""" },
            { "call", """{"kind":"call","title":"alice@example.com","body":"Incoming call"}""" },
            { "invite", """{"kind":"invite","title":"alice@example.com","body":"New invitation"}""" },
            { "no id", """{"id":null}""" },
            { "a long id", """{"id":null}""" },
            { "a lone surrogate", """{"body":"a\ufffdb"}""" },
            { "emoji and quotes", """{"body":"\"👩‍👩‍👧‍👦\"\n"}""" },
            { "user shows the sender only", """{"title":"alice@example.com","body":"New message","sender":"alice@example.com"}""" },
            { "user shows nothing", """{"title":null,"body":"New message","sender":null,"account":"bob@example.com"}""" },
        };

    [Theory]
    [MemberData(nameof(Data))]
    public void The_members_travel_as_texts(string name, string expected)
    {
        var data = Write(Cases[name](), AlertPreview.Full)["message"]!["data"]!.AsObject();

        foreach (var (member, value) in JsonNode.Parse(expected)!.AsObject())
        {
            Assert.Equal((member, (string?)value), (member, (string?)data[member]));
        }

        Assert.Equal("01957ca0-0000-7000-8000-000000000001", (string?)data["delivery"]);
        Assert.DoesNotContain("from", data.Select(m => m.Key));
    }

    [Fact]
    public void Every_message_is_one_that_FCM_takes()
    {
        foreach (var (name, make) in Cases)
        {
            var (request, refusal) = FcmRules.Read(Bytes(make(), AlertPreview.Full), "application/json; charset=utf-8");
            Assert.True(request is not null, $"{name}: {refusal}");
        }
    }

    [Theory]
    [InlineData(3600.9, "3600s")]
    [InlineData(0.5, "0s")]
    [InlineData(-5, "0s")]
    [InlineData(5_000_000, "2419200s")]
    public void It_lives_as_long_as_the_alert_and_28_days_at_most(double seconds, string ttl)
    {
        var message = Write(Message() with { ExpiresAt = Now.AddSeconds(seconds) }, AlertPreview.Full)["message"]!;

        Assert.Equal(("high", ttl), ((string?)message["android"]!["priority"], (string?)message["android"]!["ttl"]));
        // a collapse key would throttle it
        Assert.Null(message["android"]!["collapse_key"]);
        Assert.Equal("token", (string?)message["token"]);
    }

    [Theory]
    [InlineData("a")]
    [InlineData("é")]
    [InlineData("👩‍👩‍👧‍👦")]
    [InlineData("\"")]
    [InlineData("\\")]
    public void A_text_that_is_too_long_is_cut_between_characters(string character)
    {
        var body = string.Concat(Enumerable.Repeat(character, 8000 / Encoding.UTF8.GetByteCount(character)));

        var (request, refusal) = FcmRules.Read(Bytes(Message() with { Body = body }, AlertPreview.Full), "application/json");

        Assert.True(request is not null, refusal);
        var shown = (string)request.Message["data"]!["body"]!;
        Assert.EndsWith("…", shown, StringComparison.Ordinal);
        Assert.Equal(0, (shown.Length - 1) % character.Length);
        var bytes = request.Message["data"]!.AsObject().Sum(m => m.Key.Length + Encoding.UTF8.GetByteCount((string)m.Value!));
        Assert.InRange(bytes, 1900, 4096);
    }

    [Fact]
    public void Sealed_it_shows_the_network_nothing_and_opens_whole()
    {
        using var installation = new PushSubscriber();

        var data = Write(Message(encryption: installation), AlertPreview.Full)["message"]!["data"]!.AsObject();

        Assert.Equal(["sealed", "receipt", "badge", "thread", "collapse", "delivery"], data.Select(m => m.Key));
        var message = Base64Url.DecodeFromChars((string)data["sealed"]!);
        Assert.Equal(0, (message.Length - MessageEncryption.OverheadBytes) % 256);
        var opened = JsonNode.Parse(installation.Open(message))!.AsObject();
        Assert.Equal(("hello", "alice@example.com"), ((string?)opened["body"], (string?)opened["from"]));
        Assert.Equal(3, (int?)opened["badge"]);
    }

    [Fact]
    public void Sealed_it_is_cut_to_fit_too()
    {
        using var installation = new PushSubscriber();
        var notification = Message(encryption: installation) with { Body = new string('é', 5000) };

        var (request, refusal) = FcmRules.Read(Bytes(notification, AlertPreview.Full), "application/json");

        Assert.True(request is not null, refusal);
        var opened = JsonNode.Parse(installation.Open(Base64Url.DecodeFromChars((string)request.Message["data"]!["sealed"]!)))!;
        Assert.InRange(((string)opened["body"]!).Length, 1000, 1400);
    }

    private static JsonObject Write(Notification notification, AlertPreview most) => JsonNode.Parse(Bytes(notification, most))!.AsObject();

    private static byte[] Bytes(Notification notification, AlertPreview most) =>
        FcmMessage.Write(notification, "token", SealedAlert.KeysOf(notification.Address), new AlertOptions { Preview = most }, Now)!;
}
