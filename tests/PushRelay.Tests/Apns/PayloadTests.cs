using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using CsCheck;
using PushRelay.Apns;

namespace PushRelay.Tests.Apns;

public sealed class PayloadTests
{
    [Fact]
    public void The_payload_of_a_chat_message_reads_as_documented()
    {
        var payload = new ApnsPayload
        {
            Title = "alice@example.com",
            Body = "hello",
            Badge = 3,
            Sound = "default",
            ThreadId = "t",
            MutableContent = true,
            Custom = { ["account"] = "bob@example.com", ["count"] = 2 },
        };

        Assert.Equal(
            """
            {"aps":{"alert":{"title":"alice@example.com","body":"hello"},"badge":3,"sound":"default","thread-id":"t",
            "mutable-content":1},"account":"bob@example.com","count":2}
            """.ReplaceLineEndings(""),
            Encoding.UTF8.GetString(payload.ToBytes())
        );
    }

    [Fact]
    public void Every_member_stands_where_Apple_expects_it()
    {
        var payload = new ApnsPayload
        {
            TitleLocKey = "T",
            TitleLocArgs = ["a"],
            Subtitle = "s",
            SubtitleLocKey = "S",
            SubtitleLocArgs = ["b"],
            LocKey = "B",
            LocArgs = ["c", "d"],
            Sound = "ring.caf",
            CriticalVolume = 0.5,
            Category = "call",
            ContentAvailable = true,
            InterruptionLevel = ApnsInterruptionLevel.TimeSensitive,
            RelevanceScore = 0.25,
            Aps = { ["target-content-id"] = "window" },
        };

        Assert.Equal(
            """
            {"aps":{"alert":{"title-loc-key":"T","title-loc-args":["a"],"subtitle":"s","subtitle-loc-key":"S",
            "subtitle-loc-args":["b"],"loc-key":"B","loc-args":["c","d"]},
            "sound":{"critical":1,"name":"ring.caf","volume":0.5},"category":"call","content-available":1,
            "interruption-level":"time-sensitive","relevance-score":0.25,"target-content-id":"window"}}
            """.ReplaceLineEndings(""),
            Encoding.UTF8.GetString(payload.ToBytes())
        );
    }

    [Fact]
    public void A_background_payload_has_no_alert() =>
        Assert.Equal("""{"aps":{"content-available":1}}""", Encoding.UTF8.GetString(new ApnsPayload { ContentAvailable = true }.ToBytes()));

    [Fact]
    public void Text_costs_its_utf8_bytes_and_only_what_json_demands_is_escaped()
    {
        var payload = new ApnsPayload { Body = "你好 👨‍👩‍👧‍👦 <&'+> \" \\ \n \u0001 \u2028" };
        var json = Encoding.UTF8.GetString(payload.ToBytes());

        Assert.Equal("{\"aps\":{\"alert\":{\"body\":\"你好 👨‍👩‍👧‍👦 <&'+> \\\" \\\\ \\n \\u0001 \u2028\"}}}", json);
    }

    [Fact]
    public void A_lone_surrogate_becomes_the_replacement_character_wherever_it_stands()
    {
        var payload = new ApnsPayload
        {
            Title = "\uD83D",
            Body = "a\uDC00b\uD83D\uDE00",
            LocArgs = ["\uD800"],
            Custom = { ["x\uDC00"] = "y\uD83D" },
        };

        using var json = JsonDocument.Parse(payload.ToBytes());

        var alert = json.RootElement.GetProperty("aps").GetProperty("alert");
        Assert.Equal("\uFFFD", alert.GetProperty("title").GetString());
        Assert.Equal("a\uFFFDb😀", alert.GetProperty("body").GetString());
        Assert.Equal("\uFFFD", alert.GetProperty("loc-args")[0].GetString());
        Assert.Equal("y\uFFFD", json.RootElement.GetProperty("x\uFFFD").GetString());
    }

    [Theory]
    [InlineData("👨‍👩‍👧‍👦")]
    [InlineData("🇨🇳")]
    [InlineData("e\u0301")]
    [InlineData("👍🏽")]
    [InlineData("的")]
    [InlineData("שלום ")]
    [InlineData("क्षि")]
    [InlineData("\r\n")]
    public void What_a_reader_sees_as_one_character_is_never_cut_in_two(string character)
    {
        var payload = new ApnsPayload { Body = string.Concat(Enumerable.Repeat(character, 2000)) };

        for (var bytesMax = 200; bytesMax < 260; bytesMax++)
        {
            var bytes = payload.ToBytes(bytesMax);
            var body = BodyOf(bytes);
            Assert.InRange(bytes.Length, bytesMax - 40, bytesMax);
            Assert.EndsWith("…", body, StringComparison.Ordinal);
            var kept = body[..^1];
            Assert.StartsWith(kept, payload.Body, StringComparison.Ordinal);
            Assert.Contains(kept.Length, StringInfo.ParseCombiningCharacters(payload.Body).Append(payload.Body.Length));
        }
    }

    [Fact]
    public void Any_text_fits_any_limit_that_its_frame_fits()
    {
        var hard = Gen.OneOf('"', '\\', '\n', '\u0001', '\uD83D', '\uDC4D', 'é', '的');
        var text = Gen.OneOf(Gen.String, Gen.String[Gen.Char['\uD700', '\uE000'], 0, 300], Gen.String[hard, 0, 300]);
        Gen.Select(text, Gen.Int[60, 700])
            .Sample(
                (body, bytesMax) =>
                {
                    var whole = new ApnsPayload { Title = "t", Body = body }.ToBytes(int.MaxValue);
                    var bytes = new ApnsPayload { Title = "t", Body = body }.ToBytes(bytesMax);
                    var read = BodyOf(bytes);
                    return bytes.Length <= bytesMax
                        && (
                            whole.Length > bytesMax
                                ? read.Length == 0 || read.EndsWith('…')
                                : bytes.AsSpan().SequenceEqual(whole) && read == PayloadText.WellFormed(body)
                        );
                }
            );
    }

    [Fact]
    public void The_caller_chooses_what_is_cut()
    {
        var payload = new ApnsPayload
        {
            Title = new string('t', 500),
            Subtitle = "sub",
            Body = "body",
        };

        using var json = JsonDocument.Parse(payload.ToBytes(200, ApnsPayloadField.Title));

        var alert = json.RootElement.GetProperty("aps").GetProperty("alert");
        Assert.Equal("body", alert.GetProperty("body").GetString());
        Assert.Equal("sub", alert.GetProperty("subtitle").GetString());
        Assert.EndsWith("t…", alert.GetProperty("title").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Where_one_text_is_not_enough_a_second_is_cut()
    {
        var emoji = string.Concat(Enumerable.Repeat("👨‍👩‍👧‍👦", 40_000));
        var payload = new ApnsPayload
        {
            Title = emoji,
            Body = emoji,
            Custom = { ["id"] = 1 },
        };

        var bytes = payload.ToBytes(4096, ApnsPayloadField.Body, ApnsPayloadField.Title);

        using var json = JsonDocument.Parse(bytes);
        var alert = json.RootElement.GetProperty("aps").GetProperty("alert");
        Assert.InRange(bytes.Length, 4060, 4096);
        Assert.Equal("", alert.GetProperty("body").GetString());
        Assert.EndsWith("👨‍👩‍👧‍👦…", alert.GetProperty("title").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public void An_own_type_is_written_by_its_source_generated_context()
    {
        var payload = new ApnsPayload { Body = "b" };

        payload.SetCustom("point", new Point(1, 2), PayloadContext.Default.Point);

        Assert.Equal("""{"aps":{"alert":{"body":"b"}},"point":{"X":1,"Y":2}}""", Encoding.UTF8.GetString(payload.ToBytes()));
    }

    [Fact]
    public void What_does_not_fit_with_an_empty_text_is_an_error()
    {
        var payload = new ApnsPayload { Title = new string('t', 500), Body = "body" };

        Assert.Throws<ArgumentException>(() => payload.ToBytes(200));
        Assert.Throws<ArgumentException>(() => payload.ToBytes(200, ApnsPayloadField.None));
        Assert.Throws<ArgumentException>(() => payload.ToBytes(200, ApnsPayloadField.Subtitle));
    }

    [Fact]
    public void Members_that_contradict_each_other_are_an_error()
    {
        Assert.Throws<ArgumentException>(() => new ApnsPayload { MutableContent = true, ContentAvailable = true }.ToBytes());
        Assert.Throws<ArgumentException>(() => new ApnsPayload { Body = "b", CriticalVolume = 2 }.ToBytes());
        Assert.Throws<ArgumentException>(() => new ApnsPayload { Body = "b", RelevanceScore = double.NaN }.ToBytes());
        Assert.Throws<ArgumentException>(() => new ApnsPayload { Body = "b", Badge = -1 }.ToBytes());
        Assert.Throws<ArgumentException>(() => new ApnsPayload { Body = "b", Custom = { ["aps"] = new JsonObject() } }.ToBytes());
    }

    private static string BodyOf(byte[] payload)
    {
        using var json = JsonDocument.Parse(payload);
        return json.RootElement.GetProperty("aps").GetProperty("alert").GetProperty("body").GetString()!;
    }
}

internal sealed record Point(int X, int Y);

[JsonSerializable(typeof(Point))]
internal sealed partial class PayloadContext : JsonSerializerContext;
