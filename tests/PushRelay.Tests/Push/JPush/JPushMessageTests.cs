using System.Buffers.Text;
using System.Text;
using System.Text.Json.Nodes;
using PushRelay.Apps;
using PushRelay.Push;
using PushRelay.Push.Encryption;
using PushRelay.Push.JPush;
using PushRelay.Rig.Networks;
using static PushRelay.Tests.Push.Notifications;

namespace PushRelay.Tests.Push.JPush;

public sealed class JPushMessageTests
{
    private const string Id = "1a0018970aa8f0d2a1b";

    [Fact]
    public void It_goes_to_one_registration_id_and_never_to_all()
    {
        var json = Write(Message(), AlertPreview.Full);

        Assert.Equal("""{"registration_id":["1a0018970aa8f0d2a1b"]}""", json["audience"]!.ToJsonString());
        Assert.Equal("""["android","ios","hmos"]""", json["platform"]!.ToJsonString());
        Assert.Equal("cid", (string?)json["cid"]);
    }

    [Fact]
    public void Each_system_gets_its_part_and_all_the_same_members()
    {
        var json = Write(Message(), AlertPreview.Full);
        var (android, ios, hmos) = (Part(json, "android"), Part(json, "ios"), Part(json, "hmos"));

        Assert.Equal(("alice@example.com", "hello", 1), ((string?)android["title"], (string?)android["alert"], (int?)android["priority"]));
        Assert.Equal("""{"title":"alice@example.com","body":"hello"}""", ios["alert"]!.ToJsonString());
        // absolute, and a text
        Assert.Equal(("3", "default", true), ((string?)ios["badge"], (string?)ios["sound"], (bool?)ios["mutable-content"]));
        Assert.Equal(("hello", "IM", 3), ((string?)hmos["alert"], (string?)hmos["category"], (int?)hmos["badge_set_num"]));
        foreach (var part in (JsonObject[])[android, ios, hmos])
        {
            Assert.Equal(
                """{"kind":"message","badge":3,"thread":"thread-of-alice-and-bob","collapse":"thread-of-alice-and"""
                    + """-bob","account":"bob@example.com","from":"alice@example.com","id":"m1","type":"chat","receipt":"receipt"}""",
                part["extras"]!.ToJsonString()
            );
        }

        var options = json["options"]!;
        Assert.Equal((3600, true, 1), ((int?)options["time_to_live"], (bool?)options["apns_production"], (int?)options["classification"]));
        Assert.Equal("thread-of-alice-and-bob", (string?)options["apns_collapse_id"]);
    }

    [Theory]
    [InlineData(nameof(PushKind.Message), nameof(AlertPreview.None), null, "New message")]
    [InlineData(nameof(PushKind.Call), nameof(AlertPreview.None), null, "New message")]
    [InlineData(nameof(PushKind.Message), nameof(AlertPreview.Sender), "alice@example.com", "New message")]
    [InlineData(nameof(PushKind.Encrypted), nameof(AlertPreview.Full), "alice@example.com", "Encrypted message")]
    [InlineData(nameof(PushKind.Call), nameof(AlertPreview.Full), "alice@example.com", "Incoming call")]
    [InlineData(nameof(PushKind.Message), nameof(AlertPreview.Full), "alice@example.com", "hello")]
    public void JPush_reads_no_more_than_it_may(string kind, string most, string? title, string alert)
    {
        var notification = Message() with { Kind = Enum.Parse<PushKind>(kind) };
        var text = Write(notification, Enum.Parse<AlertPreview>(most)).ToJsonString();
        var android = Part(JsonNode.Parse(text)!.AsObject(), "android");

        Assert.Equal((title, alert), ((string?)android["title"], (string?)android["alert"]));
        Assert.Equal(title is not null, text.Contains("alice@", StringComparison.Ordinal));
        Assert.Equal(alert == "hello", text.Contains("hello", StringComparison.Ordinal));
    }

    [Fact]
    public void Sealed_JPush_reads_nothing_and_the_phone_all()
    {
        using var installation = new PushSubscriber();

        var json = Write(Message(encryption: installation), AlertPreview.Full);

        var text = json.ToJsonString();
        Assert.DoesNotContain("alice@", text, StringComparison.Ordinal);
        Assert.DoesNotContain("hello", text, StringComparison.Ordinal);
        Assert.DoesNotContain("bob@", text, StringComparison.Ordinal);
        foreach (var system in (string[])["android", "ios", "hmos"])
        {
            var extras = Part(json, system)["extras"]!.AsObject();
            Assert.Equal(["sealed", "receipt", "badge", "thread", "collapse", "delivery"], extras.Select(m => m.Key));
            var opened = JsonNode.Parse(installation.Open(Base64Url.DecodeFromChars((string)extras["sealed"]!)))!;
            Assert.Equal(("hello", "bob@example.com"), ((string?)opened["body"], (string?)opened["account"]));
        }
    }

    [Theory]
    [InlineData("a", false)]
    [InlineData("汉", false)]
    [InlineData("👩‍👩‍👧‍👦", false)]
    [InlineData("\"", false)]
    [InlineData("a", true)]
    [InlineData("汉", true)]
    public void A_text_that_is_too_long_is_cut_for_each_part(string character, bool isSealed)
    {
        using var installation = new PushSubscriber();
        var notification = Message(encryption: isSealed ? installation : null) with
        {
            Body = string.Concat(Enumerable.Repeat(character, 8000 / Encoding.UTF8.GetByteCount(character))),
        };

        var json = Write(notification, AlertPreview.Full);

        Assert.Null(JPushRules.Fault(json, ttlMax: 259_200, iosBytesMax: 2000, bytesMax: 4000));
        if (!isSealed)
        {
            var (ios, android) = ((string)Part(json, "ios")["alert"]!["body"]!, (string)Part(json, "android")["alert"]!);
            Assert.EndsWith("…", ios, StringComparison.Ordinal);
            Assert.True(android.Length > ios.Length);
        }
    }

    [Theory]
    [InlineData(-1, 0)]
    [InlineData(59.9, 59)]
    [InlineData(864_000, 259_200)]
    public void It_lives_as_long_as_the_alert_and_three_days_at_most(double seconds, int ttl) =>
        Assert.Equal(
            ttl,
            (int?)Write(Message() with { ExpiresAt = Now.AddSeconds(seconds) }, AlertPreview.Full)["options"]!["time_to_live"]
        );

    private static JsonObject Part(JsonObject json, string system) => json["notification"]![system]!.AsObject();

    private static JsonObject Write(Notification notification, AlertPreview most)
    {
        var json = JsonNode
            .Parse(
                JPushMessage.Write(notification, Id, "cid", true, SealedAlert.KeysOf(notification.Address), most, new AlertOptions(), Now)!
            )!
            .AsObject();
        Assert.Null(JPushRules.Fault(json, ttlMax: 259_200, iosBytesMax: 2000, bytesMax: 4000));
        return json;
    }
}
