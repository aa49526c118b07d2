using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Dispatch;

/// <summary>What holds of every push network: from a committed event to the device and back into the ledger, in trouble too.</summary>
public abstract class NetworkDispatchContract : IAsyncLifetime
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-networks-").FullName;
    private NetworkServer server = null!;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        server = NewServer();
        await server.StartAsync(Token);
        relay = await TestRelay.OpenAsync(await NewDatabaseAsync(), [.. RigBed.Settings(folder, server), .. MoreSettings]);
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
        await server.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_message_arrives_and_the_row_says_so()
    {
        var device = await RegisterAsync(TestRelay.Bob);

        await relay.CommitMessageAsync("hello");

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        var seen = Assert.Single(Seen(server));
        Assert.Equal(("hello", Receipts.For(relay.MasterKey, row.Id)), (seen.Body, seen.Receipt));
        Assert.Equal((device.Platform, 1), (row.Platform, row.Attempts));
    }

    [Theory]
    [InlineData(Trouble.Outage, 1)]
    [InlineData(Trouble.Slow, 0)]
    public async Task What_is_the_networks_own_fault_is_tried_again_with_the_same_id(string trouble, int excused)
    {
        await RegisterAsync(TestRelay.Bob);
        server.AnswerNext(Rule(trouble));

        await relay.CommitMessageAsync("hello");
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }));
        Assert.Empty(Seen(server));
        await AdvanceUntilAsync(async () => (await relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal(Receipts.For(relay.MasterKey, row.Id), Assert.Single(Seen(server)).Receipt);
        Assert.Equal((2, excused), (row.Attempts, row.AttemptsExcused));
    }

    [Fact]
    public async Task An_answer_that_is_lost_is_asked_for_again_with_the_same_id()
    {
        await RegisterAsync(TestRelay.Bob);
        server.AnswerNext(new AnswerRule { Fault = AnswerFault.Abort, Processed = true });

        await relay.CommitMessageAsync("hello");
        await AdvanceUntilAsync(async () => (await relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));

        Assert.Single(Seen(server).Select(s => s.Receipt).Distinct());
        Assert.Equal(RecognisesRepetitions ? 1 : 2, Seen(server).Count);
    }

    [Fact]
    public async Task A_dead_token_ends_its_device_and_what_waits_for_it_and_nothing_else()
    {
        var dead = await RegisterAsync(TestRelay.Bob);
        var alive = await RegisterAsync("carol@example.com");
        server.AnswerNext(Rule(Trouble.Dead) with { Target = TargetOf(dead) });

        await relay.CommitMessageAsync("1");
        await relay.CommitMessageAsync("2");
        await relay.CommitMessageAsync("3", m => m with { Account = "carol@example.com" });

        // a row that is written while the token dies ends when it is due
        await AdvanceUntilAsync(async () => (await relay.RowsAsync()).All(r => r.SettledAt is not null));
        var rows = await relay.RowsAsync();
        Assert.Equal([DeliveryState.Rejected, DeliveryState.Cancelled], rows.Select(r => r.State));
        Assert.StartsWith(dead.Platform + "_", rows[0].Reason, StringComparison.Ordinal);
        Assert.Equal(DeviceStatus.Invalid, await StatusAsync(dead));
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted), "carol@example.com");
        Assert.Equal(DeviceStatus.Active, await StatusAsync(alive));
    }

    [Fact]
    public async Task A_message_that_is_refused_ends_at_once_and_the_device_stays()
    {
        var device = await RegisterAsync(TestRelay.Bob);
        server.AnswerNext(Rule(Trouble.Refused));

        await relay.CommitMessageAsync("hello");

        var row = Assert.Single(await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));
        Assert.Equal(1, row.Attempts);
        Assert.Equal(DeviceStatus.Active, await StatusAsync(device));
    }

    [Fact]
    public async Task Credentials_that_are_refused_hold_the_lane_and_end_no_device()
    {
        var device = await RegisterAsync(TestRelay.Bob);
        server.AnswerNext(Rule(Trouble.Credentials));

        await relay.CommitMessageAsync("1");
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1, AttemptsExcused: 1 }));
        await relay.CommitMessageAsync("2", m => m with { From = "dave@example.com" });
        Assert.Equal(DeviceStatus.Active, await StatusAsync(device));
        Assert.Empty(Seen(server));

        await AdvanceUntilAsync(async () => (await relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(2, Seen(server).Count);
    }

    [Fact]
    public async Task While_the_network_is_away_it_is_asked_little_and_after_it_everything_comes_once()
    {
        await RegisterAsync(TestRelay.Bob);
        server.AnswerNext(Rule(Trouble.Outage) with { Times = int.MaxValue });

        for (var i = 0; i < 30; i++)
        {
            await relay.CommitMessageAsync($"{i}", m => m with { From = $"s{i}@example.com" });
        }

        await TestRelay.UntilAsync(() => Task.FromResult(server.Requests >= LaneCircuit.FailuresMax), () => $"{server.Requests} requests");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        Assert.InRange(server.Requests, LaneCircuit.FailuresMax, 31);

        server.ClearScript();
        await AdvanceUntilAsync(async () => (await relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(Enumerable.Range(0, 30).Select(i => $"{i}").Order(), Seen(server).Select(s => s.Body).Order());
    }

    [Fact]
    public async Task Two_hundred_devices_get_theirs_once_each()
    {
        var accounts = Enumerable.Range(0, 200).Select(i => $"user{i}@example.com").ToList();
        foreach (var account in accounts)
        {
            await RegisterAsync(account);
        }

        await Task.WhenAll(accounts.Select(account => relay.CommitMessageAsync(account, m => m with { Account = account })));

        await AdvanceUntilAsync(() => Task.FromResult(Seen(server).Count >= 200), TimeSpan.FromMilliseconds(100));
        Assert.Equal(accounts.Order(), Seen(server).Select(s => s.Body).Order());
    }

    private protected abstract NetworkServer NewServer();

    protected virtual string[] MoreSettings => [];

    /// <summary>Null: SQLite.</summary>
    protected virtual Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);

    /// <summary>A repetition shows nothing twice without the app's doing.</summary>
    protected abstract bool RecognisesRepetitions { get; }

    /// <summary>A device that the server knows.</summary>
    private protected abstract RegistrationRequest NewDevice(NetworkServer server, string account);

    /// <summary>How the script names the device.</summary>
    private protected abstract string TargetOf(Device device, PushAddress address);

    /// <summary>What the devices got, oldest first.</summary>
    private protected abstract IReadOnlyList<(string? Body, string? Receipt)> Seen(NetworkServer server);

    private protected abstract AnswerRule Rule(string trouble);

    private string TargetOf(Device device) => TargetOf(device, device.Address(relay.MasterKey));

    private async Task<Device> RegisterAsync(string account) =>
        Assert.IsType<DeviceResult.Done>(await relay.RegisterAsync(NewDevice(server, account), Token)).Device;

    private async Task<DeviceStatus> StatusAsync(Device device) =>
        (await relay.Devices.FindAsync(null, device.Id, Token)).Single(d => d.Key == device.Key).Status;

    private async Task AdvanceUntilAsync(Func<Task<bool>> holds, TimeSpan? step = null)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (!await holds())
        {
            Assert.True(
                TimeProvider.System.GetElapsedTime(started) < TimeSpan.FromSeconds(30),
                string.Join("; ", (await relay.RowsAsync()).Select(r => $"{r.State}/{r.Reason}/{r.Code} attempts {r.Attempts}"))
            );
            relay.Advance(step ?? TimeSpan.FromSeconds(2));
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, Token);
        }
    }

    protected static class Trouble
    {
        public const string Outage = "outage";
        public const string Slow = "throttled, or a fault of the server at one message";
        public const string Dead = "dead token";
        public const string Refused = "wrong message";
        public const string Credentials = "bad credentials";
    }
}

public class FcmDispatchTests : NetworkDispatchContract
{
    private int devices;

    protected override bool RecognisesRepetitions => false;

    private protected override NetworkServer NewServer() => new FcmSimulator();

    private protected override RegistrationRequest NewDevice(NetworkServer server, string account) =>
        TestRelay.NewRegistration(account, $"fcm-token-of-an-android-phone-number-{devices++}:APA91b") with
        {
            Platform = "fcm",
            Environment = null,
        };

    private protected override string TargetOf(Device device, PushAddress address) => address.Tokens[Channels.Alert];

    private protected override IReadOnlyList<(string? Body, string? Receipt)> Seen(NetworkServer server) =>
        [.. ((FcmSimulator)server).Received.Select(r => (r.Data.GetValueOrDefault("body"), r.Data.GetValueOrDefault("receipt")))];

    private protected override AnswerRule Rule(string trouble)
    {
        var (status, name, code) = trouble switch
        {
            Trouble.Outage => (503, "UNAVAILABLE", "UNAVAILABLE"),
            Trouble.Slow => (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
            Trouble.Dead => (404, "NOT_FOUND", "UNREGISTERED"),
            Trouble.Refused => (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
            _ => (403, "PERMISSION_DENIED", null),
        };
        return new AnswerRule
        {
            Status = status,
            Body = FcmSimulator.Error(status, name, "said by the script", code, FcmSimulator.QuotaFailure("device:1")),
        };
    }
}

public sealed class WebPushDispatchTests : NetworkDispatchContract
{
    protected override bool RecognisesRepetitions => false;

    private protected override NetworkServer NewServer() => new WebPushSimulator(SubscriptionService.Apple);

    private protected override RegistrationRequest NewDevice(NetworkServer server, string account)
    {
        var subscription = ((WebPushSimulator)server).Subscribe();
        return TestRelay.NewRegistration(account) with
        {
            Platform = "webpush",
            Environment = null,
            Tokens = new Dictionary<string, string>
            {
                [SubscriptionFields.Endpoint] = subscription.Endpoint.AbsoluteUri,
                [SubscriptionFields.PublicKey] = subscription.Subscriber.P256dh,
                [SubscriptionFields.Auth] = subscription.Subscriber.Auth,
            },
        };
    }

    private protected override string TargetOf(Device device, PushAddress address) => new Uri(address.Tokens[Channels.Alert]).AbsolutePath;

    private protected override IReadOnlyList<(string? Body, string? Receipt)> Seen(NetworkServer server) =>
        [.. ((WebPushSimulator)server).Received.Select(r => ((string?)r.Json["body"], (string?)r.Json["receipt"]))];

    private protected override AnswerRule Rule(string trouble) =>
        trouble switch
        {
            Trouble.Outage => new AnswerRule { Status = 503 },
            Trouble.Slow => new AnswerRule { Status = 429, Body = """{"reason":"TooManyRequests"}""" },
            Trouble.Dead => new AnswerRule { Status = 410, Body = """{"reason":"Unregistered"}""" },
            Trouble.Refused => new AnswerRule { Status = 413, Body = """{"reason":"PayloadTooLarge"}""" },
            _ => new AnswerRule { Status = 403, Body = """{"reason":"BadJwtToken"}""" },
        };
}

public sealed class JPushDispatchTests : NetworkDispatchContract
{
    private int devices;

    protected override bool RecognisesRepetitions => true;

    protected override string[] MoreSettings => ["--Apps:0:JPush:Preview=Full"];

    private protected override NetworkServer NewServer() => new JPushSimulator();

    private protected override RegistrationRequest NewDevice(NetworkServer server, string account) =>
        TestRelay.NewRegistration(account, $"1a0018970aa8f0d{devices++:D4}") with
        {
            Platform = "jpush",
        };

    private protected override string TargetOf(Device device, PushAddress address) => address.Tokens[Channels.Alert];

    private protected override IReadOnlyList<(string? Body, string? Receipt)> Seen(NetworkServer server) =>
        [
            .. ((JPushSimulator)server).Received.Select(r =>
                ((string?)r.Notification["android"]!["alert"], (string?)r.Extras("android")["receipt"])
            ),
        ];

    private protected override AnswerRule Rule(string trouble)
    {
        var (status, code) = trouble switch
        {
            Trouble.Outage => (502, 0),
            Trouble.Slow => (500, 1000),
            Trouble.Dead => (400, 1011),
            Trouble.Refused => (400, 1005),
            _ => (401, 1004),
        };
        return new AnswerRule { Status = status, Body = code == 0 ? "<html>" : JPushSimulator.Error(code, "said by the script") };
    }
}

public sealed class PostgreSqlFcmDispatchTests(PostgreSqlServer server) : FcmDispatchTests
{
    protected override async Task<string?> NewDatabaseAsync() => await server.NewDatabaseAsync(TestContext.Current.CancellationToken);
}

/// <summary>Push services that share an app and nothing else.</summary>
public sealed class PushServiceLaneTests : IAsyncLifetime
{
    private const string Carol = "carol@example.com";

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-lanes-").FullName;
    private readonly WebPushSimulator stalled = new(SubscriptionService.Ntfy);
    private readonly WebPushSimulator well = new(SubscriptionService.Ntfy);
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await stalled.StartAsync(Token);
        await well.StartAsync(Token);
        var settings = RigBed.Settings(folder, well);
        // one file with both authorities
        await File.AppendAllTextAsync(Path.Combine(folder, $"ca-{well.Port}.pem"), stalled.CaPem, Token);
        // all of one device's at once
        relay = await TestRelay.OpenAsync(null, [.. settings, "--Alerts:DeviceBurst=1000"]);
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await relay.DisposeAsync();
        await stalled.DisposeAsync();
        await well.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task One_that_swallows_requests_holds_up_no_other()
    {
        await RegisterAsync(stalled, TestRelay.Bob);
        await RegisterAsync(well, Carol);
        stalled.AnswerNext(new AnswerRule { Fault = AnswerFault.Stall, Times = int.MaxValue });
        for (var i = 0; i < 600; i++)
        {
            await relay.CommitMessageAsync("stuck", m => m with { From = $"s{i}@example.com" });
        }

        await TestRelay.UntilAsync(() => Task.FromResult(stalled.InFlight >= 50), () => $"{stalled.InFlight} in flight");
        for (var i = 0; i < 100; i++)
        {
            await relay.CommitMessageAsync($"{i}", m => m with { Account = Carol, From = $"s{i}@example.com" });
        }

        // no time passes: what waited for the stalled one would wait for ever
        await TestRelay.UntilAsync(() => Task.FromResult(well.Received.Count == 100), () => $"{well.Received.Count} received");
        Assert.Equal(50, stalled.InFlightMax);
    }

    private async Task RegisterAsync(WebPushSimulator server, string account)
    {
        var subscription = server.Subscribe();
        var request = TestRelay.NewRegistration(account) with
        {
            Platform = "webpush",
            Environment = null,
            Tokens = new Dictionary<string, string>
            {
                [SubscriptionFields.Endpoint] = subscription.Endpoint.AbsoluteUri,
                [SubscriptionFields.PublicKey] = subscription.Subscriber.P256dh,
                [SubscriptionFields.Auth] = subscription.Subscriber.Auth,
            },
        };
        Assert.IsType<DeviceResult.Done>(await relay.RegisterAsync(request, Token));
    }
}
