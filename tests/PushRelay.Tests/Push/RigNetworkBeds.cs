using System.Text.Json.Nodes;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push;

/// <summary>A network of the rig, told what to answer.</summary>
/// <param name="newServer">Its time is the relay's.</param>
internal abstract class RigNetworkBed<TServer>(string platform, Func<TimeProvider, TServer> newServer) : NetworkBed
    where TServer : NetworkServer
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-network-").FullName;
    private readonly RelayTime time = new();
    private TServer server = null!;

    public override string Platform => platform;

    protected TServer Server => server;

    protected TestRelay Relay { get; private set; } = null!;

    public override string CodeOf(NetworkAnswer answer) => $"{platform}_{Answer(answer).Word}";

    public override bool Knows(NetworkAnswer answer) => answer is not NetworkAnswer.TokenDeadLongAgo;

    public override async Task<TestRelay> OpenAsync(string? database)
    {
        server = newServer(time);
        await server.StartAsync(TestContext.Current.CancellationToken);
        var relay = await TestRelay.OpenAsync(database, RigBed.Settings(folder, server));
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        (time.Relay, Relay) = (relay.Clock, relay);
        return relay;
    }

    public override void AnswerNext(NetworkAnswer answer, int times = 1)
    {
        var (_, status, body) = Answer(answer);
        server.AnswerNext(status, body, retryAfter: "1", times);
    }

    public override async ValueTask DisposeAsync()
    {
        await server.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    /// <returns>The network's word, as reasons show it, and what it is read from.</returns>
    protected abstract (string Word, int Status, string? Body) Answer(NetworkAnswer answer);

    /// <summary>The relay is opened when the network is there already.</summary>
    private sealed class RelayTime : TimeProvider
    {
        public TimeProvider Relay { get; set; } = System;

        public override DateTimeOffset GetUtcNow() => Relay.GetUtcNow();
    }
}

internal sealed class FcmBed() : RigNetworkBed<FcmSimulator>("fcm", clock => new FcmSimulator(clock))
{
    public override IReadOnlyList<Guid> Received => [.. Server.Asked.Select(r => Guid.Parse(r.Data["delivery"]))];

    public override IReadOnlyDictionary<string, string> NewTokens() =>
        new Dictionary<string, string> { [Channels.Alert] = $"fcm-token-{Guid.NewGuid():N}:APA91b" };

    protected override (string Word, int Status, string? Body) Answer(NetworkAnswer answer)
    {
        var (status, name, code) = answer switch
        {
            NetworkAnswer.Refused => (400, "INVALID_ARGUMENT", null),
            NetworkAnswer.TokenDead => (404, "NOT_FOUND", "UNREGISTERED"),
            NetworkAnswer.Outage => (503, "UNAVAILABLE", "UNAVAILABLE"),
            NetworkAnswer.ServerError => (500, "INTERNAL", "INTERNAL"),
            NetworkAnswer.Throttled => (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
            NetworkAnswer.Credentials => (403, "PERMISSION_DENIED", (string?)null),
            _ => throw new ArgumentException("FCM does not say so.", nameof(answer)),
        };
        JsonObject[] details = answer == NetworkAnswer.Throttled ? [FcmSimulator.QuotaFailure("device")] : [];
        return (code ?? name, status, FcmSimulator.Error(status, name, "as ordered", code, details));
    }
}

internal sealed class WebPushBed()
    : RigNetworkBed<WebPushSimulator>("webpush", clock => new WebPushSimulator(SubscriptionService.Mozilla, clock))
{
    public override IReadOnlyList<Guid> Received => [.. Server.Asked.Select(r => DeliveryOf((string)r.Json["receipt"]!))];

    public override IReadOnlyDictionary<string, string> NewTokens()
    {
        var subscription = Server.Subscribe();
        return new Dictionary<string, string>
        {
            [SubscriptionFields.Endpoint] = subscription.Endpoint.AbsoluteUri,
            [SubscriptionFields.PublicKey] = subscription.Subscriber.P256dh,
            [SubscriptionFields.Auth] = subscription.Subscriber.Auth,
        };
    }

    /// <summary>What is for the browser alone names no row: its receipt does.</summary>
    private Guid DeliveryOf(string receipt)
    {
        Assert.True(Receipts.TryRead(Relay.MasterKey, receipt, out var delivery));
        return delivery;
    }

    protected override (string Word, int Status, string? Body) Answer(NetworkAnswer answer)
    {
        var status = answer switch
        {
            NetworkAnswer.Refused => 413,
            NetworkAnswer.TokenDead => 410,
            NetworkAnswer.Outage => 503,
            NetworkAnswer.ServerError => 500,
            NetworkAnswer.Throttled => 429,
            NetworkAnswer.Credentials => 403,
            _ => throw new ArgumentException("No push service says so.", nameof(answer)),
        };
        return ($"{status}", status, null);
    }
}

internal sealed class JPushBed() : RigNetworkBed<JPushSimulator>("jpush", clock => new JPushSimulator(clock))
{
    // its limits are the app's: none is a device's
    public override bool Knows(NetworkAnswer answer) => base.Knows(answer) && answer is not NetworkAnswer.Throttled;

    public override IReadOnlyList<Guid> Received => [.. Server.Asked.Select(r => Guid.Parse(r.Cid[(Server.AppKey.Length + 1)..]))];

    public override IReadOnlyDictionary<string, string> NewTokens() =>
        new Dictionary<string, string> { [Channels.Alert] = Guid.NewGuid().ToString("N")[..19] };

    protected override (string Word, int Status, string? Body) Answer(NetworkAnswer answer)
    {
        (int? Code, int Status) told = answer switch
        {
            NetworkAnswer.Refused => (1005, 400),
            NetworkAnswer.TokenDead => (1011, 400),
            NetworkAnswer.Outage => (null, 503),
            NetworkAnswer.ServerError => (1000, 500),
            NetworkAnswer.Credentials => (1004, 401),
            _ => throw new ArgumentException("JPush does not say so.", nameof(answer)),
        };
        return ($"{told.Code ?? told.Status}", told.Status, told.Code is { } code ? JPushSimulator.Error(code, "as ordered") : null);
    }
}
