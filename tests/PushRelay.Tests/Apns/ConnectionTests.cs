using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

public sealed class ConnectionTests
{
    private readonly FakeTimeProvider clock = new(TimeProvider.System.GetUtcNow());

    [Fact]
    public async Task A_certificate_stands_in_for_the_provider_token()
    {
        using var certificate = SelfSigned();
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { ClientCertificates = [certificate] },
            sending => sending with { Key = null, Certificate = certificate }
        );

        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
        Assert.Equal(0, bed.Simulator.ProviderTokensSeen);
        await Assert.ThrowsAsync<ArgumentException>(() => bed.SendAsync(ApnsBed.Alert() with { PushType = ApnsPushType.LiveActivity }));
    }

    [Fact]
    public async Task A_certificate_that_Apple_does_not_know_is_our_mistake_not_the_devices()
    {
        using var known = SelfSigned();
        using var other = SelfSigned();
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { ClientCertificates = [known] },
            sending => sending with { Key = null, Certificate = other }
        );

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.Misconfigured, ApnsReason.BadCertificate), (response.Outcome, response.KnownReason));
    }

    [Fact]
    public void Options_that_contradict_each_other_are_refused()
    {
        using var key = ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, ApnsSimulator.CreateSigningKeyPem());
        using var certificate = SelfSigned();
        using var noPrivateKey = X509CertificateLoader.LoadCertificate(certificate.RawData);

        Assert.Throws<ArgumentException>(() => new ApnsClient(new ApnsClientOptions()));
        Assert.Throws<ArgumentException>(() => new ApnsClient(new ApnsClientOptions { Key = key, Certificate = certificate }));
        Assert.Throws<ArgumentException>(() => new ApnsClient(new ApnsClientOptions { Certificate = noPrivateKey }));
        Assert.Throws<ArgumentException>(() => new ApnsClient(new ApnsClientOptions { Key = key, Endpoint = new Uri("http://127.0.0.1") }));
        Assert.Throws<ArgumentException>(() =>
            new ApnsClient(new ApnsClientOptions { Key = key, Endpoint = new Uri("https://127.0.0.1/path") })
        );
        Assert.Throws<ArgumentOutOfRangeException>(() => new ApnsClient(new ApnsClientOptions { Key = key, StreamsMax = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() =>
            new ApnsClient(new ApnsClientOptions { Key = key, RequestTimeout = TimeSpan.Zero })
        );
    }

    [Fact]
    public async Task Closing_waits_for_what_is_in_flight()
    {
        await using var bed = await ApnsBed.StartAsync();
        await bed.SendAsync();
        bed.Simulator.AnswerNext(new ScriptRule { Delay = TimeSpan.FromMilliseconds(300), Times = 50 });

        var sending = Enumerable.Range(0, 50).Select(number => bed.SendAsync(ApnsBed.Alert(number))).ToList();
        await bed.Simulator.WaitForAsync(51, TestContext.Current.CancellationToken);
        var closing = bed.Client.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => bed.SendAsync());
        await closing;

        Assert.All(await Task.WhenAll(sending), response => Assert.Equal(ApnsOutcome.Accepted, response.Outcome));
    }

    [Fact]
    public async Task A_further_connection_is_opened_when_all_are_full_and_not_before()
    {
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { Latency = TimeSpan.FromMilliseconds(20) },
            sending => sending with { StreamsMax = 50, ConnectionsMax = 3 }
        );

        await Task.WhenAll(Enumerable.Range(0, 50).Select(number => bed.SendAsync(ApnsBed.Alert(number))));
        var few = bed.Simulator.ConnectionsSeen;
        await Task.WhenAll(Enumerable.Range(0, 1000).Select(number => bed.SendAsync(ApnsBed.Alert(number))));

        Assert.Equal((1, 3), (few, bed.Simulator.ConnectionsSeen));
    }

    [Fact]
    public async Task An_aged_connection_hands_over_without_a_gap()
    {
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { Clock = clock },
            sending => sending with { Clock = clock, ConnectionLifetime = TimeSpan.FromMinutes(10) }
        );
        await bed.SendAsync();
        clock.Advance(TimeSpan.FromMinutes(8));
        await bed.SendAsync();

        clock.Advance(TimeSpan.FromMinutes(4));
        var responses = await Task.WhenAll(Enumerable.Range(0, 100).Select(number => bed.SendAsync(ApnsBed.Alert(number))));
        await bed.SendAsync();

        Assert.All(responses, response => Assert.Equal(ApnsOutcome.Accepted, response.Outcome));
        var connections = bed.Simulator.Received.Select(received => received.Connection).ToList();
        Assert.Equal((1, 1, 2), (connections[0], connections[1], connections[^1]));
        Assert.Equal(2, bed.Simulator.ConnectionsSeen);
    }

    [Theory]
    [InlineData(-120)]
    [InlineData(120)]
    public async Task A_clock_that_is_hours_off_is_noticed_by_Apples_date_and_made_up_for(int minutes)
    {
        var wrong = new FakeTimeProvider(clock.GetUtcNow() + TimeSpan.FromMinutes(minutes));
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { Clock = clock },
            sending => sending with { Clock = wrong }
        );

        var response = await bed.SendAsync();

        Assert.Equal(ApnsOutcome.Accepted, response.Outcome);
        Assert.InRange(bed.Client.ClockSkew, TimeSpan.FromMinutes(-minutes - 1), TimeSpan.FromMinutes(-minutes + 1));
        Assert.Equal(2, bed.Simulator.ProviderTokensSeen);
    }

    [Fact]
    public async Task A_clock_that_is_a_little_off_is_left_alone()
    {
        var wrong = new FakeTimeProvider(clock.GetUtcNow() - TimeSpan.FromMinutes(4));
        await using var bed = await ApnsBed.StartAsync(
            simulated => simulated with { Clock = clock },
            sending => sending with { Clock = wrong }
        );

        await bed.SendAsync();

        Assert.Equal(TimeSpan.Zero, bed.Client.ClockSkew);
    }

    [Fact]
    public async Task Pushes_are_counted_and_traced_without_anything_secret()
    {
        var measured = new ConcurrentBag<(string Name, string Tags)>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter.Name == ApnsTelemetry.Name)
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((instrument, _, tags, _) => measured.Add((instrument.Name, Text(tags))));
        listener.SetMeasurementEventCallback<double>((instrument, _, tags, _) => measured.Add((instrument.Name, Text(tags))));
        listener.Start();
        var spans = new ConcurrentBag<Activity>();
        using var activities = new ActivityListener
        {
            ShouldListenTo = source => source.Name == ApnsTelemetry.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = spans.Add,
        };
        ActivitySource.AddActivityListener(activities);
        await using var bed = await ApnsBed.StartAsync(simulated => simulated with { Topics = [ApnsBed.Topic, "com.example.measured"] });
        bed.Simulator.AnswerNext(410, "Made_up_by_the_peer");
        bed.Simulator.AnswerNext(503, "Shutdown");

        for (var number = 0; number < 3; number++)
        {
            await bed.SendAsync(ApnsBed.Alert(number + 7_000) with { Topic = "com.example.measured", CollapseId = "secret-collapse" });
        }

        Assert.Contains(("pushrelay.apns.requests", "outcome=device_invalid status=410 reason=other"), measured);
        Assert.Contains(("pushrelay.apns.requests", "outcome=deferred status=503 reason=Shutdown"), measured);
        Assert.Contains(("pushrelay.apns.requests", "outcome=accepted status=200 reason="), measured);
        Assert.Contains(measured, entry => entry.Name == "pushrelay.apns.request.duration");
        Assert.Contains(measured, entry => entry.Name == "pushrelay.apns.connections");
        Assert.Contains(measured, entry => entry.Name == "pushrelay.apns.streams");
        Assert.Contains(measured, entry => entry.Name == "pushrelay.apns.provider_token.signed");
        var ours = spans.Where(span => (string?)span.GetTagItem("apns.topic") == "com.example.measured").ToList();
        Assert.Equal(3, ours.Count);
        Assert.All(
            ours,
            span =>
                Assert.DoesNotContain(
                    span.TagObjects,
                    tag =>
                        tag.Value?.ToString() is { } value
                        && (
                            value.Contains(ApnsBed.Token(7_000)[..40], StringComparison.Ordinal)
                            || value.Contains("secret", StringComparison.Ordinal)
                        )
                )
        );

        static string Text(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            var text = new List<string>();
            foreach (var tag in tags)
            {
                text.Add($"{tag.Key}={tag.Value}");
            }

            return string.Join(' ', text);
        }
    }

    private static X509Certificate2 SelfSigned()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=Apple Push Services: com.example.chat", key, HashAlgorithmName.SHA256);
        return request.CreateSelfSigned(DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddYears(100));
    }
}
