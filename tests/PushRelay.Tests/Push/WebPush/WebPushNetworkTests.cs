using System.Text;
using PushRelay.Push;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push.Connections;
using static PushRelay.Tests.Push.Notifications;

namespace PushRelay.Tests.Push.WebPush;

/// <summary>The whole way to push services of each kind, over real connections.</summary>
public sealed class WebPushNetworkTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(SubscriptionService.Mozilla)]
    [InlineData(SubscriptionService.Google)]
    [InlineData(SubscriptionService.Microsoft)]
    [InlineData(SubscriptionService.Apple)]
    [InlineData(SubscriptionService.Ntfy)]
    public async Task An_alert_gets_through_to_each_service(SubscriptionService service)
    {
        await using var simulator = await StartAsync(service);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();

        Assert.StartsWith("accepted", await SendAsync(bed, subscription), StringComparison.Ordinal);

        var received = Assert.Single(simulator.Received);
        Assert.Equal(
            ("hello", "alice@example.com", 3),
            ((string?)received.Json["body"], (string?)received.Json["from"], (int?)received.Json["badge"])
        );
        Assert.Equal(("high", 32), (received.Urgency, received.Topic!.Length));
        Assert.InRange(received.Ttl, 3595, 3600);
    }

    [Theory]
    [InlineData(SubscriptionService.Mozilla, "dead webpush_410")]
    [InlineData(SubscriptionService.Google, "dead webpush_410")]
    [InlineData(SubscriptionService.Microsoft, "dead webpush_410")]
    [InlineData(SubscriptionService.Apple, "dead webpush_410")]
    [InlineData(SubscriptionService.Ntfy, "dead webpush_404")]
    public async Task A_subscription_that_has_ended_is_dead(SubscriptionService service, string result)
    {
        await using var simulator = await StartAsync(service);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();
        subscription.Gone = true;

        Assert.Equal(result, await SendAsync(bed, subscription));
    }

    [Theory]
    [InlineData(SubscriptionService.Google, "dead webpush_403")]
    [InlineData(SubscriptionService.Apple, "dead webpush_400")]
    [InlineData(SubscriptionService.Microsoft, "later Credentials -1 webpush_403")]
    public async Task A_subscription_of_another_key_is_told_from_a_bad_key_where_the_service_says_so(
        SubscriptionService service,
        string result
    )
    {
        await using var simulator = await StartAsync(service);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var other = VapidKey.FromPem(VapidKey.CreatePem(), "mailto:ops@example.com");
        using var subscription = simulator.Subscribe(other.PublicKey);

        Assert.Equal(result, await SendAsync(bed, subscription));
    }

    [Fact]
    public async Task An_alert_that_lives_no_longer_is_no_fault_at_a_service_that_takes_no_zero()
    {
        await using var simulator = await StartAsync(SubscriptionService.Microsoft);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();
        var address = Address(subscription);
        var usable = Assert.IsType<TokenCheck.Usable>(bed.Network("webpush").Check(address));

        var result = await bed.Network("webpush")
            .SendAsync(Message() with { Address = usable.Address, Lane = usable.Lane, ExpiresAt = bed.Relay.Clock.GetUtcNow() }, Token);

        Assert.StartsWith("accepted", Exchanges.Show(result), StringComparison.Ordinal);
        Assert.Equal(1, simulator.Received[0].Ttl);
    }

    [Theory]
    [InlineData("a")]
    [InlineData("👩‍👩‍👧‍👦")]
    public async Task A_text_of_any_length_fits(string character)
    {
        await using var simulator = await StartAsync(SubscriptionService.Apple);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();

        var body = string.Concat(Enumerable.Repeat(character, 8000 / Encoding.UTF8.GetByteCount(character)));
        Assert.StartsWith("accepted", await SendAsync(bed, subscription, body), StringComparison.Ordinal);

        var received = Assert.Single(simulator.Received);
        Assert.Equal(4096, received.BodyBytes);
        Assert.EndsWith("…", (string?)received.Json["body"], StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_too_long_for_a_bridged_browser_is_shortened_once()
    {
        await using var simulator = await StartAsync(SubscriptionService.Mozilla);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();
        simulator.AnswerNext(413);

        Assert.StartsWith("accepted", await SendAsync(bed, subscription, new string('a', 8000)), StringComparison.Ordinal);
        Assert.InRange(simulator.Received[0].BodyBytes, 2500, 2744);

        simulator.AnswerNext(413, times: 2);
        Assert.Equal("refused webpush_413", await SendAsync(bed, subscription, new string('a', 8000)));
        // there is nothing to shorten
        simulator.AnswerNext(413);
        Assert.Equal("refused webpush_413", await SendAsync(bed, subscription));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_endpoint_that_leads_inside_is_never_connected_to(bool redirects)
    {
        await using var simulator = await StartAsync(SubscriptionService.Google);
        await using var canary = await StartAsync(SubscriptionService.Google);
        await using var bed = await RigBed.OpenAsync(simulator, $"--Apps:0:WebPush:AllowPrivateNetworks={redirects}");
        using var subscription = simulator.Subscribe();
        using var inside = canary.Subscribe();
        simulator.AnswerNext(
            new AnswerRule
            {
                Status = 307,
                Headers = new Dictionary<string, string> { ["Location"] = inside.Endpoint.AbsoluteUri },
            }
        );

        var result = await SendAsync(bed, subscription);

        Assert.Equal(redirects ? "later Outage -1 webpush_307" : "refused webpush_blocked_address", result);
        Assert.Equal((redirects ? 1 : 0, 0), (simulator.Requests, canary.Requests));
    }

    [Fact]
    public async Task Only_listed_push_services_may_be_named_and_are_asked()
    {
        await using var simulator = await StartAsync(SubscriptionService.Google);
        await using var bed = await RigBed.OpenAsync(simulator, "--Apps:0:WebPush:AllowedHosts:0=*.push.apple.com");
        using var subscription = simulator.Subscribe();
        var address = Address(subscription);

        var refused = Assert.IsType<TokenCheck.Refused>(bed.Network("webpush").Check(address));
        // registered while the list was longer
        var kept = address with
        {
            Tokens = new Dictionary<string, string>
            {
                [Channels.Alert] = subscription.Endpoint.AbsoluteUri,
                [Channels.PublicKey] = subscription.Subscriber.P256dh,
                [Channels.Auth] = subscription.Subscriber.Auth,
            },
        };
        var result = await bed.Network("webpush").SendAsync(Message() with { Address = kept }, Token);

        Assert.Equal(["subscription.endpoint"], refused.Errors.Keys);
        Assert.Equal("refused webpush_host_not_allowed", Exchanges.Show(result));
        Assert.Equal(0, simulator.Requests);
    }

    [Fact]
    public async Task A_subscription_past_its_own_time_is_over()
    {
        await using var simulator = await StartAsync(SubscriptionService.Google);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();
        var now = bed.Relay.Clock.GetUtcNow();

        Assert.StartsWith("accepted", await SendAsync(bed, subscription, expires: now.AddSeconds(1)), StringComparison.Ordinal);
        Assert.Equal("dead webpush_expired", await SendAsync(bed, subscription, expires: now.AddSeconds(-1)));
    }

    [Fact]
    public async Task Each_service_is_a_lane()
    {
        await using var simulator = await StartAsync(SubscriptionService.Google);
        await using var bed = await RigBed.OpenAsync(simulator);
        string Lane(string endpoint) => Assert.IsType<TokenCheck.Usable>(bed.Network("webpush").Check(Address(endpoint))).Lane.Id;

        Assert.Equal("com.example.chat/webpush/fcm.googleapis.com", Lane("https://fcm.googleapis.com/fcm/send/a"));
        Assert.Equal(Lane("https://fcm.googleapis.com/fcm/send/a"), Lane("https://FCM.googleapis.com:443/wp/b"));
        Assert.NotEqual(Lane("https://ntfy.example/a"), Lane("https://ntfy.example:8443/a"));
        var long1 = Lane($"https://{new string('a', 60)}.{new string('b', 60)}.{new string('c', 60)}.{new string('d', 50)}1.example/a");
        var long2 = Lane($"https://{new string('a', 60)}.{new string('b', 60)}.{new string('c', 60)}.{new string('d', 50)}2.example/a");
        Assert.NotEqual(long1, long2);
        Assert.True(long1.Length < 120);
    }

    [Theory]
    [InlineData("https://127.0.0.1/x", "subscription.endpoint")]
    [InlineData("http://push.example/x", "subscription.endpoint")]
    [InlineData(null, "subscription.endpoint")]
    [InlineData("BCVxsr7N", "subscription.keys.p256dh")]
    [InlineData(null, "subscription.keys.p256dh")]
    [InlineData("short", "subscription.keys.auth")]
    [InlineData(null, "subscription.keys.auth")]
    [InlineData("-1", "subscription.expirationTime")]
    [InlineData("1e9", "subscription.expirationTime")]
    [InlineData("99999999999999999", "subscription.expirationTime")]
    public async Task A_subscription_that_is_none_is_refused_by_its_field(string? value, string field)
    {
        await using var simulator = await StartAsync(SubscriptionService.Google);
        await using var bed = await RigBed.OpenAsync(simulator);
        using var subscription = simulator.Subscribe();
        var tokens = new Dictionary<string, string>(Address(subscription).Tokens);
        if (value is null)
        {
            tokens.Remove(field);
        }
        else
        {
            tokens[field] = value;
        }

        var refused = Assert.IsType<TokenCheck.Refused>(bed.Network("webpush").Check(Address(subscription) with { Tokens = tokens }));

        Assert.Equal([field], refused.Errors.Keys);
    }

    [Fact]
    public async Task A_certificate_that_is_not_trusted_defers()
    {
        await using var simulator = await StartAsync(SubscriptionService.Ntfy);
        await using var bed = await RigBed.OpenAsync(simulator, "--Apps:0:WebPush:TrustedCertificateFile=");
        using var subscription = simulator.Subscribe();

        Assert.Equal("later Outage -1 webpush_tls_failed", await SendAsync(bed, subscription));
    }

    [Fact]
    public async Task A_name_that_is_not_there_defers()
    {
        await using var simulator = await StartAsync(SubscriptionService.Ntfy);
        await using var bed = await RigBed.OpenAsync(simulator);

        var result = await bed.SendAsync("webpush", Message() with { Address = Address("https://ntfy.invalid/upAbc") });

        Assert.Equal("later Outage -1 webpush_name_unknown", Exchanges.Show(result));
    }

    private static async Task<WebPushSimulator> StartAsync(SubscriptionService service)
    {
        var simulator = new WebPushSimulator(service);
        await simulator.StartAsync(Token);
        return simulator;
    }

    private static PushAddress Address(PushSubscription subscription) =>
        Address(subscription.Endpoint.AbsoluteUri, subscription.Subscriber);

    private static PushAddress Address(string endpoint, PushSubscriber? subscriber = null)
    {
        using var fresh = new PushSubscriber();
        subscriber ??= fresh;
        return new PushAddress
        {
            App = TestRelay.App,
            Tokens = new Dictionary<string, string>
            {
                [SubscriptionFields.Endpoint] = endpoint,
                [SubscriptionFields.PublicKey] = subscriber.P256dh,
                [SubscriptionFields.Auth] = subscriber.Auth,
            },
        };
    }

    private static async Task<string> SendAsync(
        RigBed bed,
        PushSubscription subscription,
        string body = "hello",
        DateTimeOffset? expires = null
    )
    {
        var address = Address(subscription);
        if (expires is { } at)
        {
            address = address with
            {
                Tokens = new Dictionary<string, string>(address.Tokens)
                {
                    [SubscriptionFields.Expires] = at.ToUnixTimeMilliseconds().ToString(System.Globalization.CultureInfo.InvariantCulture),
                },
            };
        }

        return Exchanges.Show(await bed.SendAsync("webpush", Message() with { Address = address, Body = body }));
    }
}
