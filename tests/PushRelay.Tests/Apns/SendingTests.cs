using System.Net;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

public sealed class SendingTests
{
    private static readonly Guid Id = Guid.Parse("0199aaaa-bbbb-7ccc-8ddd-eeeeffff0001");

    [Fact]
    public async Task An_accepted_push_carries_every_header_and_its_answer_comes_back_as_a_value()
    {
        await using var bed = await ApnsBed.StartAsync();

        var response = await bed.SendAsync(
            ApnsBed.Alert() with
            {
                Id = Id,
                Expiration = DateTimeOffset.FromUnixTimeSeconds(1_795_388_078),
                CollapseId = "conversation-1",
            }
        );

        Assert.Equal((ApnsOutcome.Accepted, 200, Id), (response.Outcome, response.Status, response.ApnsId));
        Assert.Null(response.Reason);
        Assert.True(response.Duration > TimeSpan.Zero);
        var received = Assert.Single(bed.Simulator.Received);
        Assert.Equal(ApnsBed.Token(), received.DeviceToken);
        Assert.Equal(
            new Dictionary<string, string>
            {
                ["apns-topic"] = ApnsBed.Topic,
                ["apns-push-type"] = "alert",
                ["apns-priority"] = "10",
                ["apns-expiration"] = "1795388078",
                ["apns-collapse-id"] = "conversation-1",
                ["apns-id"] = "0199aaaa-bbbb-7ccc-8ddd-eeeeffff0001",
            },
            received.Headers.ToDictionary()
        );
        Assert.Equal(Encoding.UTF8.GetString(ApnsBed.Alert().Payload.Span), received.Payload);
    }

    [Fact]
    public async Task Expiration_zero_is_sent_as_zero_and_none_as_no_header()
    {
        await using var bed = await ApnsBed.StartAsync();

        await bed.SendAsync(ApnsBed.Alert() with { Expiration = DateTimeOffset.UnixEpoch });
        await bed.SendAsync();

        Assert.Equal("0", bed.Simulator.Received[0].Headers["apns-expiration"]);
        Assert.DoesNotContain("apns-expiration", bed.Simulator.Received[1].Headers.Keys);
    }

    [Theory]
    [InlineData(ApnsPushType.Alert, "alert", "")]
    [InlineData(ApnsPushType.Background, "background", "")]
    [InlineData(ApnsPushType.Voip, "voip", ".voip")]
    [InlineData(ApnsPushType.Complication, "complication", ".complication")]
    [InlineData(ApnsPushType.FileProvider, "fileprovider", ".pushkit.fileprovider")]
    [InlineData(ApnsPushType.Mdm, "mdm", "")]
    [InlineData(ApnsPushType.Location, "location", ".location-query")]
    [InlineData(ApnsPushType.LiveActivity, "liveactivity", ".push-type.liveactivity")]
    [InlineData(ApnsPushType.PushToTalk, "pushtotalk", ".voip-ptt")]
    [InlineData(ApnsPushType.Widgets, "widgets", ".push-type.widgets")]
    [InlineData(ApnsPushType.Controls, "controls", ".push-type.controls")]
    public async Task Every_push_type_goes_out_under_its_own_topic(ApnsPushType type, string header, string suffix)
    {
        await using var bed = await ApnsBed.StartAsync();

        var response = await bed.SendAsync(
            ApnsBed.Alert() with
            {
                PushType = type,
                Priority = type == ApnsPushType.Background ? 5 : 10,
                Expiration = DateTimeOffset.UnixEpoch,
            }
        );

        Assert.Equal(ApnsOutcome.Accepted, response.Outcome);
        var headers = Assert.Single(bed.Simulator.Received).Headers;
        Assert.Equal((header, ApnsBed.Topic + suffix), (headers["apns-push-type"], headers["apns-topic"]));
    }

    [Theory]
    [InlineData(400, "BadDeviceToken", ApnsOutcome.DeviceInvalid)]
    [InlineData(400, "DeviceTokenNotForTopic", ApnsOutcome.DeviceInvalid)]
    [InlineData(400, "BadCollapseId", ApnsOutcome.Refused)]
    [InlineData(400, "BadTopic", ApnsOutcome.Misconfigured)]
    [InlineData(400, "TopicDisallowed", ApnsOutcome.Misconfigured)]
    [InlineData(400, "IdleTimeout", ApnsOutcome.Deferred)]
    [InlineData(400, "SomethingNewFromApple", ApnsOutcome.Refused)]
    [InlineData(403, "BadEnvironmentKeyIdInToken", ApnsOutcome.Misconfigured)]
    [InlineData(403, "BadEnvironmentKeyInToken", ApnsOutcome.Misconfigured)]
    [InlineData(403, "InvalidProviderToken", ApnsOutcome.Misconfigured)]
    [InlineData(403, "SomethingNewFromApple", ApnsOutcome.Misconfigured)]
    [InlineData(404, "BadPath", ApnsOutcome.Refused)]
    [InlineData(405, "MethodNotAllowed", ApnsOutcome.Refused)]
    [InlineData(410, "ExpiredToken", ApnsOutcome.DeviceInvalid)]
    [InlineData(410, "Unregistered", ApnsOutcome.DeviceInvalid)]
    [InlineData(413, "PayloadTooLarge", ApnsOutcome.Refused)]
    [InlineData(429, "TooManyProviderTokenUpdates", ApnsOutcome.Deferred)]
    [InlineData(429, "TooManyRequests", ApnsOutcome.Deferred)]
    [InlineData(500, "InternalServerError", ApnsOutcome.Deferred)]
    [InlineData(503, "ServiceUnavailable", ApnsOutcome.Deferred)]
    [InlineData(503, "Shutdown", ApnsOutcome.Deferred)]
    [InlineData(599, "SomethingNewFromApple", ApnsOutcome.Deferred)]
    [InlineData(204, "SomebodyElse", ApnsOutcome.Misconfigured)]
    [InlineData(302, "SomebodyElse", ApnsOutcome.Misconfigured)]
    [InlineData(402, "SomebodyElse", ApnsOutcome.Deferred)]
    [InlineData(418, "SomebodyElse", ApnsOutcome.Deferred)]
    [InlineData(421, "SomebodyElse", ApnsOutcome.Deferred)]
    [InlineData(431, "SomebodyElse", ApnsOutcome.Deferred)]
    [InlineData(451, "SomebodyElse", ApnsOutcome.Deferred)]
    public async Task Every_answer_has_its_outcome_and_keeps_its_reason(int status, string reason, ApnsOutcome outcome)
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.AnswerNext(status, reason);

        var response = await bed.SendAsync(ApnsBed.Alert() with { Id = Id });

        Assert.Equal((outcome, status, reason, Id), (response.Outcome, response.Status, response.Reason, response.ApnsId));
        Assert.Equal(Enum.TryParse<ApnsReason>(reason, out var known) ? known : null, response.KnownReason);
        Assert.True(response.KnownReason is null || known.Status() == status);
        Assert.Equal(1, bed.Simulator.ReceivedCount);
    }

    [Fact]
    public async Task The_time_of_a_410_is_read_as_milliseconds()
    {
        await using var bed = await ApnsBed.StartAsync();
        var since = DateTimeOffset.FromUnixTimeMilliseconds(1_795_388_078_465);
        bed.Simulator.AnswerNext(new ScriptRule { Status = 410, Timestamp = since });

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.DeviceInvalid, since), (response.Outcome, response.InvalidSince));
    }

    [Theory]
    [InlineData("120", 120)]
    [InlineData("0", 0)]
    [InlineData("-1", 0)]
    [InlineData("1e12", 3600)]
    [InlineData("99999999999999999999999999", 3600)]
    [InlineData("Sun, 06 Nov 1994 08:49:37 GMT", 0)]
    [InlineData("Fri, 31 Dec 9999 23:59:59 GMT", 3600)]
    [InlineData("soon", null)]
    [InlineData(null, null)]
    public async Task Retry_after_is_held_between_zero_and_an_hour(string? header, int? seconds)
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.AnswerNext(new ScriptRule { Status = 503, RetryAfter = header });

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.Deferred, 503), (response.Outcome, response.Status));
        Assert.Equal(seconds, response.RetryAfter?.TotalSeconds);
    }

    [Theory]
    [InlineData("<html>gateway</html>")]
    [InlineData("")]
    [InlineData("{\"reason\":\"Unregistered\",\"timestamp\":\"soon\"}")]
    [InlineData("{\"reason\":{\"a\":[1,2]},\"timestamp\":253402300800000}")]
    [InlineData("{\"timestamp\":99999999999999999999999999}")]
    [InlineData("{\"reason\":\"Unre")]
    [InlineData("[1]")]
    public async Task A_body_that_is_not_as_documented_leaves_the_class_to_the_status(string body)
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.AnswerNext(new ScriptRule { Status = 410, Body = body });

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.DeviceInvalid, 410), (response.Outcome, response.Status));
        Assert.Null(response.InvalidSince);
    }

    [Fact]
    public async Task Of_a_body_of_ten_megabytes_only_the_beginning_is_read()
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.AnswerNext(new ScriptRule { Status = 400, Body = "{\"reason\":\"" + new string('x', 10_000_000) + "\"}" });

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.Refused, 400, null), (response.Outcome, response.Status, response.Reason));
        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
    }

    [Fact]
    public async Task Where_nobody_listens_pushes_are_deferred_and_connecting_is_held_back()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var nobody = new Uri($"https://127.0.0.1:{((IPEndPoint)listener.LocalEndPoint!).Port}");
        await using var bed = await ApnsBed.StartAsync(sending: options => options with { Endpoint = nobody });

        var responses = await Task.WhenAll(Enumerable.Range(0, 200).Select(number => bed.SendAsync(ApnsBed.Alert(number))));

        Assert.All(
            responses,
            response => Assert.Equal((ApnsOutcome.Deferred, "connect_failed", null), (response.Outcome, response.Reason, response.Status))
        );
    }

    [Fact]
    public async Task A_certificate_of_an_unknown_authority_or_another_name_is_not_accepted()
    {
        await using var bed = await ApnsBed.StartAsync();
        await using var trustsNobodyElse = new ApnsClient(bed.Options with { TrustedCertificates = null });
        await using var otherSimulator = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions(), TestContext.Current.CancellationToken);
        await using var trustsTheOther = new ApnsClient(bed.Options with { TrustedCertificates = ApnsBed.Trust(otherSimulator) });
        await using var otherName = new ApnsClient(
            bed.Options with
            {
                Endpoint = new Uri($"https://127.0.0.2:{bed.Simulator.Endpoint.Port}"),
            }
        );
        await using var listensThere = await ApnsSimulator.StartAsync(
            new ApnsSimulatorOptions { Address = IPAddress.Parse("127.0.0.2"), Port = bed.Simulator.Endpoint.Port },
            TestContext.Current.CancellationToken
        );

        foreach (var client in new[] { trustsNobodyElse, trustsTheOther, otherName })
        {
            var response = await client.SendAsync(ApnsBed.Alert(), TestContext.Current.CancellationToken);
            Assert.Equal((ApnsOutcome.Deferred, "tls_failed"), (response.Outcome, response.Reason));
        }

        Assert.Empty(bed.Simulator.Received);
    }

    [Fact]
    public async Task Without_an_answer_in_time_the_outcome_is_unknown()
    {
        var clock = new FakeTimeProvider(TimeProvider.System.GetUtcNow());
        await using var bed = await ApnsBed.StartAsync(sending: options => options with { Clock = clock });
        bed.Simulator.AnswerNext(new ScriptRule { Delay = TimeSpan.FromMinutes(10) });

        var sending = bed.SendAsync(ApnsBed.Alert() with { Id = Id });
        await bed.Simulator.WaitForAsync(1, TestContext.Current.CancellationToken);
        clock.Advance(TimeSpan.FromSeconds(10));
        var response = await sending;

        Assert.Equal((ApnsOutcome.Unknown, "timed_out", null, Id), (response.Outcome, response.Reason, response.Status, response.ApnsId));
    }

    [Fact]
    public async Task The_callers_cancellation_is_an_exception()
    {
        await using var bed = await ApnsBed.StartAsync();
        bed.Simulator.AnswerNext(new ScriptRule { Delay = TimeSpan.FromMinutes(10) });
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);

        var sending = bed.Client.SendAsync(ApnsBed.Alert(), cancel.Token);
        await bed.Simulator.WaitForAsync(1, TestContext.Current.CancellationToken);
        await cancel.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => sending);
    }

    [Fact]
    public async Task A_cold_burst_goes_over_few_connections_and_all_of_it_arrives_once()
    {
        await using var bed = await ApnsBed.StartAsync();

        var responses = await Task.WhenAll(Enumerable.Range(1, 3000).Select(number => bed.SendAsync(ApnsBed.Alert(number))));

        Assert.All(responses, response => Assert.Equal(ApnsOutcome.Accepted, response.Outcome));
        Assert.Equal(3000, bed.Simulator.Received.Select(received => received.DeviceToken).Distinct().Count());
        Assert.Equal(3000, bed.Simulator.ReceivedCount);
        Assert.InRange(bed.Simulator.Received.Max(received => received.Connection), 1, 4);
    }

    public static TheoryData<string, Func<ApnsNotification, ApnsNotification>> Mistakes =>
        new()
        {
            { "DeviceToken", notification => notification with { DeviceToken = "not hex" } },
            { "DeviceToken", notification => notification with { DeviceToken = new string('a', 63) } },
            { "DeviceToken", notification => notification with { DeviceToken = new string('a', 401) } },
            { "Topic", notification => notification with { Topic = "" } },
            { "Topic", notification => notification with { Topic = "com.example\r\napns-priority: 1" } },
            { "CollapseId", notification => notification with { CollapseId = new string('c', 65) } },
            { "CollapseId", notification => notification with { CollapseId = "a\nb" } },
            { "Priority", notification => notification with { Priority = 7 } },
            { "Priority", notification => notification with { PushType = ApnsPushType.Background } },
            { "Expiration", notification => notification with { PushType = ApnsPushType.Voip } },
            { "Payload", notification => notification with { Payload = default } },
            { "Payload", notification => notification with { Payload = new byte[4097] } },
            {
                "Payload",
                notification =>
                    notification with
                    {
                        PushType = ApnsPushType.Voip,
                        Expiration = DateTimeOffset.UnixEpoch,
                        Payload = new byte[5121],
                    }
            },
        };

    [Theory]
    [MemberData(nameof(Mistakes), DisableDiscoveryEnumeration = true)]
    public async Task A_callers_mistake_is_named_before_anything_is_sent(string member, Func<ApnsNotification, ApnsNotification> mistake)
    {
        await using var bed = await ApnsBed.StartAsync();

        var exception = await Assert.ThrowsAsync<ArgumentException>(() => bed.SendAsync(mistake(ApnsBed.Alert())));

        Assert.Equal(member, exception.ParamName);
        Assert.Empty(bed.Simulator.Received);
    }

    [Fact]
    public async Task A_closed_client_says_so()
    {
        await using var bed = await ApnsBed.StartAsync();
        await bed.SendAsync();
        await bed.Client.DisposeAsync();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => bed.SendAsync());
    }
}
