using PushRelay.Apns.Simulator;
using PushRelay.Push;

namespace PushRelay.Tests.Push;

/// <summary>What a push network can be told to answer, whichever it is.</summary>
internal enum NetworkAnswer
{
    Refused,
    TokenDead,
    TokenDeadLongAgo,
    Outage,
    ServerError,
    Throttled,
    Credentials,
}

/// <summary>One push network for the tests of what every network has in common.</summary>
internal abstract class NetworkBed : IAsyncDisposable
{
    public abstract string Platform { get; }

    /// <summary>The network's own word for it, as reasons show it.</summary>
    public abstract string CodeOf(NetworkAnswer answer);

    public abstract Task<TestRelay> OpenAsync(string? database);

    public abstract void AnswerNext(NetworkAnswer answer, int times = 1);

    /// <summary>Ids of the notifications that came, in their order.</summary>
    public abstract IReadOnlyList<Guid> Received { get; }

    /// <summary>Whether the network can say that at all.</summary>
    public virtual bool Knows(NetworkAnswer answer) => true;

    /// <summary>Of a device that is registered.</summary>
    public abstract IReadOnlyDictionary<string, string> NewTokens();

    public abstract ValueTask DisposeAsync();
}

internal sealed class LoopbackBed : NetworkBed
{
    private LoopbackNetwork network = null!;

    public override string Platform => LoopbackNetwork.Name;

    public LoopbackNetwork Network => network;

    public override IReadOnlyList<Guid> Received => [.. network.Received.Select(n => n.Id)];

    public override string CodeOf(NetworkAnswer answer) => $"loopback_{answer}";

    public override async Task<TestRelay> OpenAsync(string? database)
    {
        var relay = await TestRelay.OpenAsync(database, LoopbackNetwork.AddTo, ["--Apps:0:Loopback:Tokens=10"]);
        network = relay.Get<LoopbackNetwork>();
        return relay;
    }

    public override void AnswerNext(NetworkAnswer answer, int times = 1)
    {
        var (code, took) = (CodeOf(answer), TimeSpan.FromMilliseconds(2));
        network.AnswerNext(
            answer switch
            {
                NetworkAnswer.Refused => new PushResult.Refused(code, 400, took),
                NetworkAnswer.TokenDead => new PushResult.TokenDead(Channels.Alert, null, code, 404, took),
                NetworkAnswer.TokenDeadLongAgo => new PushResult.TokenDead(Channels.Alert, DateTimeOffset.UnixEpoch, code, 410, took),
                NetworkAnswer.Outage => new PushResult.Later(Fault.Outage, null, code, 503, took),
                NetworkAnswer.ServerError => new PushResult.Later(Fault.ServerError, null, code, 500, took),
                NetworkAnswer.Throttled => new PushResult.Later(Fault.Throttled, null, code, 429, took),
                NetworkAnswer.Credentials => new PushResult.Later(Fault.Credentials, null, code, 403, took),
            },
            times
        );
    }

    public override IReadOnlyDictionary<string, string> NewTokens() =>
        new Dictionary<string, string> { [Channels.Alert] = $"host1:{Guid.NewGuid():N}" };

    public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

internal sealed class AppleBed : NetworkBed
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-network-").FullName;
    private ApnsSimulator apns = null!;

    public override string Platform => "apns";

    public override IReadOnlyList<Guid> Received => [.. apns.Received.Select(r => Guid.Parse(r.Headers["apns-id"]))];

    public override string CodeOf(NetworkAnswer answer) => $"apns_{Rule(answer).Reason}";

    public override async Task<TestRelay> OpenAsync(string? database)
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, TestContext.Current.CancellationToken);
        var ca = Path.Combine(folder, "ca.pem");
        await File.WriteAllTextAsync(ca, apns.CaPem, TestContext.Current.CancellationToken);
        var relay = await TestRelay.OpenAsync(
            database,
            $"--Apps:0:Apns:Endpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:SandboxEndpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:TrustedCertificateFile={ca}"
        );
        // the simulator judges the age of a provider token by the real time
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        return relay;
    }

    public override void AnswerNext(NetworkAnswer answer, int times = 1) => apns.AnswerNext(Rule(answer) with { Times = times });

    public override IReadOnlyDictionary<string, string> NewTokens() =>
        new Dictionary<string, string> { [Channels.Alert] = TestRelay.NewToken() };

    public override async ValueTask DisposeAsync()
    {
        await apns.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    private static ScriptRule Rule(NetworkAnswer answer) =>
        answer switch
        {
            NetworkAnswer.Refused => new() { Status = 413, Reason = "PayloadTooLarge" },
            NetworkAnswer.TokenDead => new() { Status = 400, Reason = "BadDeviceToken" },
            NetworkAnswer.TokenDeadLongAgo => new()
            {
                Status = 410,
                Reason = "Unregistered",
                Timestamp = DateTimeOffset.UnixEpoch.AddYears(40),
            },
            NetworkAnswer.Outage => new() { Status = 503, Reason = "ServiceUnavailable" },
            NetworkAnswer.ServerError => new() { Status = 500, Reason = "InternalServerError" },
            NetworkAnswer.Throttled => new() { Status = 429, Reason = "TooManyRequests" },
            NetworkAnswer.Credentials => new() { Status = 403, Reason = "InvalidProviderToken" },
        };
}
