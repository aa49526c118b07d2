using System.Globalization;
using System.Text;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;
using PushRelay.Apns.Simulator.Http2;

namespace PushRelay.Tests.Apns;

/// <summary>What the simulator does of Apple's doing. Its rules are asked directly; over the wire the other tests go.</summary>
public sealed class SimulatorTests
{
    private static readonly HashSet<string> Topics = [ApnsBed.Topic];

    public static TheoryData<string?, string, string> Requests =>
        new()
        {
            { null, "", "" },
            { "BadDeviceToken", ":path", "/3/device/zz" },
            { "BadDeviceToken", ":path", "/3/device/" + new string('a', 63) },
            { "BadDeviceToken", ":path", "/3/device/" + new string('a', 402) },
            { "MissingDeviceToken", ":path", "/3/device/" },
            { "MissingTopic", "apns-topic", "" },
            { "TopicDisallowed", "apns-topic", "com.example.other" },
            { "BadTopic", "apns-push-type", "voip" },
            { "InvalidPushType", "apns-push-type", "loud" },
            { "BadPriority", "apns-priority", "7" },
            { "BadPriority", "apns-push-type", "background" },
            { "BadExpirationDate", "apns-expiration", "-1" },
            { "BadExpirationDate", "apns-expiration", "tomorrow" },
            { "BadMessageId", "apns-id", "not-a-uuid" },
            { "BadCollapseId", "apns-collapse-id", new string('c', 65) },
            { "PayloadEmpty", "body", "" },
            { "PayloadEmpty", "body", "not json" },
            { "PayloadEmpty", "body", "[]" },
            { "PayloadTooLarge", "body", "{\"aps\":\"" + new string('x', 4096) + "\"}" },
        };

    [Theory]
    [MemberData(nameof(Requests))]
    public void A_request_is_refused_with_Apples_reason(string? reason, string name, string value)
    {
        var fields = new Dictionary<string, string>
        {
            [":path"] = "/3/device/" + ApnsBed.Token(),
            ["apns-topic"] = ApnsBed.Topic,
            ["apns-push-type"] = "alert",
            ["apns-priority"] = "10",
            ["body"] = """{"aps":{}}""",
        };
        if (name.Length > 0)
        {
            fields[name] = value;
        }

        var body = Encoding.UTF8.GetBytes(fields["body"]);
        var headers = fields
            .Where(field => field.Key.StartsWith("apns-", StringComparison.Ordinal))
            .Select(field => new HeaderField(field.Key, field.Value))
            .ToList();

        var refusal = RequestCheck.Check(
            new ApnsRequest("POST", fields[":path"], headers, body, body.Length, new ApnsCaller(1, null)),
            Topics
        );

        Assert.Equal(reason, refusal?.Reason);
        Assert.Equal(
            reason == "PayloadTooLarge" ? 413
                : reason is null ? null
                : 400,
            refusal?.Status
        );
    }

    [Fact]
    public void A_header_that_comes_twice_is_refused()
    {
        List<HeaderField> headers = [new("apns-topic", ApnsBed.Topic), new("apns-priority", "10"), new("apns-priority", "5")];

        var refusal = RequestCheck.Check(
            new ApnsRequest("POST", "/3/device/" + ApnsBed.Token(), headers, "{}"u8.ToArray(), 2, new ApnsCaller(1, null)),
            Topics
        );

        Assert.Equal("DuplicateHeaders", refusal?.Reason);
    }

    [Theory]
    [InlineData(null, "MissingProviderToken")]
    [InlineData("", "MissingProviderToken")]
    [InlineData("basic x", "MissingProviderToken")]
    [InlineData("bearer x", "InvalidProviderToken")]
    [InlineData("bearer a.b.c", "InvalidProviderToken")]
    public void A_missing_or_malformed_provider_token_is_refused(string? authorization, string reason)
    {
        using var check = new ProviderTokenCheck([]);

        Assert.Equal(reason, check.Judge(authorization, DateTimeOffset.UnixEpoch).Reason);
    }

    [Theory]
    [InlineData(0, ApnsBed.KeyId, null)]
    [InlineData(60, ApnsBed.KeyId, null)]
    [InlineData(61, ApnsBed.KeyId, "ExpiredProviderToken")]
    [InlineData(-2, ApnsBed.KeyId, "InvalidProviderToken")]
    [InlineData(0, "OTHERKEY12", "InvalidProviderToken")]
    public void A_provider_token_is_judged_by_its_age_and_its_key(int minutes, string keyId, string? reason)
    {
        var issued = DateTimeOffset.FromUnixTimeSeconds(1_795_388_000);
        var pem = ApnsSimulator.CreateSigningKeyPem();
        using var key = ApnsSigningKey.FromPem(ApnsBed.TeamId, keyId, pem);
        using var check = new ProviderTokenCheck([new ApnsSimulatorKey(ApnsBed.TeamId, ApnsBed.KeyId, pem)]);

        Assert.Equal(reason, check.Judge("bearer " + key.Sign(issued).Value, issued + TimeSpan.FromMinutes(minutes)).Reason);
    }

    [Fact]
    public void A_provider_token_signed_by_another_key_of_the_same_name_is_refused()
    {
        using var impostor = ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, ApnsSimulator.CreateSigningKeyPem());
        using var check = new ProviderTokenCheck([
            new ApnsSimulatorKey(ApnsBed.TeamId, ApnsBed.KeyId, ApnsSimulator.CreateSigningKeyPem()),
        ]);
        var now = DateTimeOffset.FromUnixTimeSeconds(1_795_388_000);

        Assert.Equal("InvalidProviderToken", check.Judge("bearer " + impostor.Sign(now).Value, now).Reason);
    }

    [Fact]
    public void A_connection_belongs_to_the_first_key_it_sees()
    {
        var pem = ApnsSimulator.CreateSigningKeyPem();
        using var first = ApnsSigningKey.FromPem(ApnsBed.TeamId, "FIRSTKEY12", pem);
        using var second = ApnsSigningKey.FromPem(ApnsBed.TeamId, "SECONDKEY1", pem);
        using var tokens = new ProviderTokenCheck([
            new ApnsSimulatorKey(ApnsBed.TeamId, "FIRSTKEY12", pem),
            new ApnsSimulatorKey(ApnsBed.TeamId, "SECONDKEY1", pem),
        ]);
        var check = new CredentialCheck(new ApnsSimulatorOptions(), tokens);
        var now = DateTimeOffset.FromUnixTimeSeconds(1_795_388_000);
        var caller = new ApnsCaller(1, null);

        Assert.Null(check.Check(Bearing(first, caller), now));
        Assert.Equal("UnrelatedKeyIdInToken", check.Check(Bearing(second, caller), now)?.Reason);
        Assert.Null(check.Check(Bearing(second, new ApnsCaller(2, null)), now));

        ApnsRequest Bearing(ApnsSigningKey key, ApnsCaller by) =>
            new("POST", "/3/device/", [new HeaderField("authorization", "bearer " + key.Sign(now).Value)], default, 0, by);
    }

    [Fact]
    public void More_new_tokens_than_allowed_wedge_the_connection()
    {
        var pem = ApnsSimulator.CreateSigningKeyPem();
        using var key = ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, pem);
        using var tokens = new ProviderTokenCheck([new ApnsSimulatorKey(ApnsBed.TeamId, ApnsBed.KeyId, pem)]);
        var check = new CredentialCheck(new ApnsSimulatorOptions { ProviderTokensMax = 1 }, tokens);
        var now = DateTimeOffset.FromUnixTimeSeconds(1_795_388_000);
        var caller = new ApnsCaller(1, null);
        var (old, young) = (key.Sign(now), key.Sign(now.AddSeconds(5)));

        Assert.Null(check.Check(Bearing(old), now));
        Assert.Equal("TooManyProviderTokenUpdates", check.Check(Bearing(young), now.AddSeconds(5))?.Reason);
        Assert.Equal("TooManyProviderTokenUpdates", check.Check(Bearing(old), now.AddSeconds(6))?.Reason);

        ApnsRequest Bearing(ApnsProviderToken token) =>
            new("POST", "/3/device/", [new HeaderField("authorization", "bearer " + token.Value)], default, 0, caller);
    }

    [Fact]
    public async Task For_a_phone_out_of_reach_only_the_newest_push_of_an_app_is_kept_until_it_expires()
    {
        var clock = new FakeTimeProvider(DateTimeOffset.FromUnixTimeSeconds(1_795_388_000));
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { Clock = clock },
            sending => sending with { Clock = clock }
        );
        var token = ApnsBed.Token();
        var phone = new SimulatedDevice
        {
            Token = token,
            Topic = ApnsBed.Topic,
            Online = false,
        };
        bed.Simulator.SetDevice(phone);
        var lasting = ApnsBed.Alert() with { Expiration = clock.GetUtcNow().AddHours(1) };

        await bed.SendAsync(lasting with { CollapseId = "first" });
        await bed.SendAsync(lasting with { CollapseId = "second" });
        await bed.SendAsync(lasting with { CollapseId = "never kept", Expiration = DateTimeOffset.UnixEpoch });
        var stored = Assert.Single(bed.Simulator.Stored(token));
        bed.Simulator.SetDevice(phone with { Online = true });
        var shown = Assert.Single(bed.Simulator.Screen(token));
        bed.Simulator.SetDevice(phone);
        await bed.SendAsync(lasting with { CollapseId = "third" });
        clock.Advance(TimeSpan.FromHours(2));
        bed.Simulator.SetDevice(phone with { Online = true });

        Assert.Equal("second", stored.Headers["apns-collapse-id"]);
        Assert.Equal(stored, shown);
        Assert.Single(bed.Simulator.Screen(token));
    }

    [Fact]
    public async Task On_the_screen_a_push_replaces_the_one_with_its_collapse_id()
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.SetDevice(new SimulatedDevice { Token = ApnsBed.Token() });

        foreach (var collapseId in new[] { "a", "b", "a", null, null })
        {
            await bed.SendAsync(ApnsBed.Alert() with { CollapseId = collapseId });
        }

        Assert.Equal(
            ["b", "a", null, null],
            bed.Simulator.Screen(ApnsBed.Token()).Select(shown => shown.Headers.GetValueOrDefault("apns-collapse-id"))
        );
    }

    [Fact]
    public async Task A_device_answers_for_its_environment_its_app_and_its_removal()
    {
        await using var bed = await ApnsBed.StartAsync(simulated => simulated with { KnownDevicesOnly = true, Topics = [] });
        var since = DateTimeOffset.FromUnixTimeMilliseconds(1_795_000_000_123);
        bed.Simulator.SetDevice(new SimulatedDevice { Token = ApnsBed.Token(1), Sandbox = true });
        bed.Simulator.SetDevice(new SimulatedDevice { Token = ApnsBed.Token(2), Topic = "com.example.other" });
        bed.Simulator.SetDevice(new SimulatedDevice { Token = ApnsBed.Token(3), UnregisteredAt = since });
        bed.Simulator.SetDevice(new SimulatedDevice { Token = ApnsBed.Token(4) });

        var responses = new List<ApnsResponse>();
        for (var number = 1; number <= 5; number++)
        {
            responses.Add(await bed.SendAsync(ApnsBed.Alert(number)));
        }

        Assert.Equal(
            [ApnsReason.BadDeviceToken, ApnsReason.DeviceTokenNotForTopic, ApnsReason.Unregistered, null, ApnsReason.BadDeviceToken],
            responses.Select(response => response.KnownReason)
        );
        Assert.Equal(since, responses[2].InvalidSince);
    }

    [Fact]
    public async Task One_device_can_be_pushed_too_often_without_harm_to_others()
    {
        await using var bed = await ApnsBed.StartAsync(simulated => simulated with { RequestsPerDeviceMax = 3 });

        var hot = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => bed.SendAsync(ApnsBed.Alert(1))));
        var other = await bed.SendAsync(ApnsBed.Alert(2));

        Assert.Equal(3, hot.Count(response => response.Outcome == ApnsOutcome.Accepted));
        Assert.Equal(2, hot.Count(response => response is { Outcome: ApnsOutcome.Deferred, KnownReason: ApnsReason.TooManyRequests }));
        Assert.Equal(ApnsOutcome.Accepted, other.Outcome);
    }

    [Fact]
    public async Task The_sandbox_gives_each_push_a_unique_id()
    {
        await using var bed = await ApnsBed.StartAsync(simulated => simulated with { Sandbox = true });

        Assert.NotNull((await bed.SendAsync()).ApnsUniqueId);
    }

    [Theory]
    [InlineData(1.0, 100)]
    [InlineData(0.5, 50)]
    public async Task A_rule_with_a_rate_strikes_its_part(double rate, int about)
    {
        await using var bed = await ApnsBed.StartAsync(simulated => simulated with { Seed = 4711 });
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Status = 500,
                Rate = rate,
                Times = int.MaxValue,
            }
        );

        var responses = await Task.WhenAll(Enumerable.Range(0, 100).Select(number => bed.SendAsync(ApnsBed.Alert(number))));

        Assert.InRange(responses.Count(response => response.Status == 500), about - 20, about + 20);
    }

    [Theory]
    [InlineData("828684410f7777772e6578616d706c652e636f6d", ":method=GET :scheme=http :path=/ :authority=www.example.com")]
    [InlineData("828684418cf1e3c2e5f23a6ba0ab90f4ff", ":method=GET :scheme=http :path=/ :authority=www.example.com")]
    [InlineData("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key=custom-header")]
    [InlineData("040c2f73616d706c652f70617468", ":path=/sample/path")]
    [InlineData("100870617373776f726406736563726574", "password=secret")]
    [InlineData(
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        ":status=302 cache-control=private date=Mon, 21 Oct 2013 20:13:21 GMT location=https://www.example.com"
    )]
    public void The_examples_of_rfc_7541_read_as_printed_there(string hex, string fields) =>
        Assert.Equal(
            fields,
            string.Join(' ', new HpackDecoder().Decode(Convert.FromHexString(hex)).Select(field => $"{field.Name}={field.Value}"))
        );

    [Fact]
    public void A_header_table_remembers_what_came_before()
    {
        var decoder = new HpackDecoder();

        decoder.Decode(Convert.FromHexString("828684418cf1e3c2e5f23a6ba0ab90f4ff"));
        var second = decoder.Decode(Convert.FromHexString("828684be5886a8eb10649cbf"));
        var third = decoder.Decode(Convert.FromHexString("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"));

        Assert.Equal(new HeaderField("cache-control", "no-cache"), second[^1]);
        Assert.Equal([new(":authority", "www.example.com"), new("custom-key", "custom-value")], third[3..]);
    }

    [Theory]
    [InlineData("80")]
    [InlineData("c0")]
    [InlineData("7fffffffffff")]
    [InlineData("40")]
    [InlineData("400a6375")]
    [InlineData("3fe2ff03")]
    [InlineData("400085ffffffffff")]
    [InlineData("8221")]
    public void A_broken_header_block_ends_the_connection(string hex) =>
        Assert.Throws<Http2ConnectionException>(() => new HpackDecoder().Decode(Convert.FromHexString(hex)));

    [Fact]
    public void What_the_encoder_writes_the_decoder_reads()
    {
        var encoder = new HpackEncoder();
        var decoder = new HpackDecoder();
        for (var round = 0; round < 300; round++)
        {
            var block = new System.Buffers.ArrayBufferWriter<byte>();
            List<HeaderField> fields =
            [
                new(":status", "200"),
                new("date", $"second {round / 10}"),
                new("apns-id", round.ToString("x32", CultureInfo.InvariantCulture)),
                new("retry-after", new string('9', round)),
            ];
            if (round == 150)
            {
                encoder.Resize(100);
            }

            encoder.Begin(block);
            fields.ForEach(field => encoder.Write(block, field, keep: field.Name == "date"));

            Assert.Equal(fields, decoder.Decode(block.WrittenSpan));
        }
    }
}
