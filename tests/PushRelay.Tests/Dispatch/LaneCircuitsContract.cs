using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Apns.Simulator;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Dispatch;

/// <summary>An app that cannot push, or whose push network is away: its deliveries wait, others' do not.</summary>
public abstract class LaneCircuitsContract : IAsyncLifetime
{
    private const string OtherApp = "com.example.other";

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-circuits-").FullName;
    private ApnsSimulator apns = null!;
    private string? database;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App, OtherApp] }, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), apns.CaPem, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "other.p8"), ApnsSimulator.CreateSigningKeyPem(), Token);
        database = await NewDatabaseAsync();
        relay = await OpenAsync();
        // the simulator judges the age of a provider token by the real time
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
        await apns.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task An_app_whose_key_is_refused_waits_while_another_sends_and_goes_on_after_a_probe()
    {
        var refused = await RegisterAsync("carol@example.com", TestRelay.App);
        await RegisterAsync(TestRelay.Bob, OtherApp);
        apns.AnswerNext(
            new ScriptRule
            {
                Token = refused,
                Status = 403,
                Reason = "InvalidProviderToken",
                Times = 2,
            }
        );

        await CommitAsync("carol@example.com", "a@example.com");
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: 1 }), "carol@example.com");
        await CommitAsync("carol@example.com", "b@example.com");
        await CommitAsync(TestRelay.Bob, "b@example.com");

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(0, (await relay.RowsAsync("carol@example.com"))[1].Attempts);
        var health = await relay.Get<LaneCircuits>().CheckHealthAsync(new HealthCheckContext(), Token);
        Assert.Equal(HealthStatus.Degraded, health.Status);
        Assert.Contains($"{TestRelay.App}/apns: apns_InvalidProviderToken", health.Description, StringComparison.Ordinal);

        // the key is right again after the first probe
        await AdvanceUntilAsync(
            TimeSpan.FromMinutes(1),
            async () => (await relay.RowsAsync("carol@example.com")).All(r => r.State == DeliveryState.Accepted)
        );
        Assert.Equal(HealthStatus.Healthy, (await relay.Get<LaneCircuits>().CheckHealthAsync(new HealthCheckContext(), Token)).Status);
    }

    [Fact]
    public async Task While_the_push_network_is_away_one_is_tried_from_time_to_time_and_nothing_is_lost()
    {
        await RegisterAsync(TestRelay.Bob, TestRelay.App);
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 503,
                Reason = "ServiceUnavailable",
                Times = 100_000,
            }
        );

        for (var i = 0; i < 10; i++)
        {
            await CommitAsync(TestRelay.Bob, $"s{i}@example.com");
        }

        await TestRelay.UntilAsync(async () => await IsOpenAsync(), () => "not open");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        var before = apns.ReceivedCount;
        Assert.InRange(before, LaneCircuit.FailuresMax, 10);

        for (var probe = 1; probe <= 3; probe++)
        {
            // some steps: the look that asks for the probe may be under way while the time moves
            await AdvanceUntilAsync(
                TimeSpan.FromSeconds(10),
                () => Task.FromResult(apns.ReceivedCount >= before + probe && relay.Get<Permits>().InFlight == 0)
            );
            Assert.Equal(before + probe, apns.ReceivedCount);
        }

        apns.ClearScript();
        await AdvanceUntilAsync(
            TimeSpan.FromSeconds(40),
            async () => (await relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted)
        );
        Assert.False(await IsOpenAsync());
    }

    [Fact]
    public async Task So_many_bad_tokens_at_once_are_the_operators_mistake_and_no_more_devices_are_given_up()
    {
        const int Devices = 40;
        for (var i = 0; i < Devices; i++)
        {
            await RegisterAsync($"u{i}@example.com", TestRelay.App);
        }

        apns.AnswerNext(
            new ScriptRule
            {
                Status = 400,
                Reason = "BadDeviceToken",
                Times = 100_000,
            }
        );
        for (var i = 0; i < Devices; i++)
        {
            await CommitAsync($"u{i}@example.com", TestRelay.Alice);
        }

        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        await using var db = relay.NewDb();
        Assert.Equal(TokenSuspicion.SendsMin - 1, await db.Set<Device>().CountAsync(d => d.Status == DeviceStatus.Invalid, Token));
        Assert.Equal("apns_BadDeviceToken", (await db.Set<OpenCircuit>().SingleAsync(Token)).Code);
    }

    [Fact]
    public async Task A_key_that_is_refused_for_the_sandbox_holds_up_no_device_in_production()
    {
        var refused = await RegisterAsync("dev@example.com", TestRelay.App, "sandbox");
        await RegisterAsync(TestRelay.Bob, TestRelay.App);
        apns.AnswerNext(
            new ScriptRule
            {
                Token = refused,
                Status = 403,
                Reason = "BadEnvironmentKeyInToken",
                Times = 2,
            }
        );

        await CommitAsync("dev@example.com", "a@example.com");
        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        await CommitAsync(TestRelay.Bob, "b@example.com");
        await CommitAsync("dev@example.com", "c@example.com");

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.True(await IsOpenAsync());
        Assert.Equal(0, (await relay.RowsAsync("dev@example.com"))[1].Attempts);
        var health = await relay.Get<LaneCircuits>().CheckHealthAsync(new HealthCheckContext(), Token);
        Assert.Contains($"{TestRelay.App}/apns-sandbox: apns_BadEnvironmentKeyInToken", health.Description, StringComparison.Ordinal);
        await AdvanceUntilAsync(
            TimeSpan.FromMinutes(1),
            async () => (await relay.RowsAsync("dev@example.com")).All(r => r.State == DeliveryState.Accepted)
        );
    }

    [Fact]
    public async Task What_is_learned_of_a_device_that_moved_to_the_sandbox_is_learned_of_the_sandbox()
    {
        await RegisterAsync("dev@example.com", TestRelay.App);
        await using (var db = relay.NewDb())
        {
            await db.Set<Device>()
                .ExecuteUpdateAsync(
                    set =>
                        set.SetProperty(d => d.Environment, "sandbox")
                            .SetProperty(d => d.Lane, TestRelay.LaneOf(TestRelay.App, sandbox: true)),
                    Token
                );
        }

        apns.AnswerNext(new ScriptRule { Status = 403, Reason = "BadEnvironmentKeyInToken" });
        await using (var db = relay.NewDb())
        {
            // a row from before the move
            var (device, now) = (await db.Set<Device>().SingleAsync(Token), await relay.NowAsync());
            var row = relay.NewRow(device, Guid.CreateVersion7(now), now, Guid.NewGuid());
            await using var transaction = await db.Database.BeginTransactionAsync(Token);
            using var appended = await relay.Outbox.AppendAsync(db, [row], claim: true, now, Token);
            await transaction.CommitAsync(Token);
            await relay.Get<ReadyQueue>().PublishAsync(appended, Token);
        }

        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        var health = await relay.Get<LaneCircuits>().CheckHealthAsync(new HealthCheckContext(), Token);
        Assert.Contains($"{TestRelay.App}/apns-sandbox: apns_BadEnvironmentKeyInToken", health.Description, StringComparison.Ordinal);
        Assert.DoesNotContain($"{TestRelay.App}/apns:", health.Description, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_probe_whose_device_is_gone_is_given_to_the_next_delivery()
    {
        var refused = await RegisterAsync("carol@example.com", TestRelay.App);
        await RegisterAsync("gone@example.com", TestRelay.App);
        await RegisterAsync(TestRelay.Bob, TestRelay.App);
        apns.AnswerNext(
            new ScriptRule
            {
                Token = refused,
                Status = 403,
                Reason = "InvalidProviderToken",
                Times = 100,
            }
        );
        await CommitAsync("carol@example.com", "a@example.com");
        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        await CommitAsync("gone@example.com", "a@example.com");
        relay.Advance(TimeSpan.FromSeconds(1));
        await CommitAsync(TestRelay.Bob, "b@example.com");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        // what a removal would cancel: a device that is gone behind the outbox's back; and the longest due, but for the one that is refused
        await using var db = relay.NewDb();
        var gone = await db.Set<Device>().SingleAsync(d => d.Account == "gone@example.com", Token);
        await db.Set<Device>().Where(d => d.Key == gone.Key).ExecuteDeleteAsync(Token);
        await db.Set<Delivery>().Where(d => d.Account == "carol@example.com").ExecuteDeleteAsync(Token);
        relay.Get<RecentDevices>().Forget([gone.Key]);

        relay.Advance(TimeSpan.FromSeconds(31));

        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(Reasons.DeviceRemoved, Assert.Single(await relay.RowsAsync("gone@example.com")).Reason);
    }

    private protected abstract Task<string?> NewDatabaseAsync();

    private protected async Task<TestRelay> OpenAsync(string? masterKeyFile = null)
    {
        var endpoint = apns.Endpoint.GetLeftPart(UriPartial.Authority);
        return await TestRelay.OpenAsync(
            database,
            masterKeyFile is null ? "--Dispatch:Concurrency=500" : $"--Storage:MasterKeyFile={masterKeyFile}",
            $"--Apps:0:Apns:Endpoint={endpoint}",
            $"--Apps:0:Apns:SandboxEndpoint={endpoint}",
            $"--Apps:0:Apns:TrustedCertificateFile={folder}/ca.pem",
            $"--Apps:1:Id={OtherApp}",
            "--Apps:1:Apns:TeamId=ABCDE12345",
            "--Apps:1:Apns:KeyId=ZZZZZ67890",
            $"--Apps:1:Apns:KeyFile={folder}/other.p8",
            $"--Apps:1:Apns:BundleId={OtherApp}",
            $"--Apps:1:Apns:Endpoint={endpoint}",
            $"--Apps:1:Apns:SandboxEndpoint={endpoint}",
            $"--Apps:1:Apns:TrustedCertificateFile={folder}/ca.pem"
        );
    }

    private protected async Task<bool> IsOpenAsync()
    {
        await using var db = relay.NewDb();
        return await db.Set<OpenCircuit>().AnyAsync(Token);
    }

    private protected string MasterKeyFile => Path.Combine(relay.Folder, "master.key");

    /// <summary>Moves the time on, and gives the relay a moment of real time after each step.</summary>
    private async Task AdvanceUntilAsync(TimeSpan step, Func<Task<bool>> holds)
    {
        for (var steps = 0; steps < 100; steps++)
        {
            relay.Advance(step);
            for (var looks = 0; looks < 20; looks++)
            {
                if (await holds())
                {
                    return;
                }

                await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Token);
            }
        }

        Assert.Fail("it never came to that");
    }

    private protected Task OutageAsync()
    {
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 503,
                Reason = "ServiceUnavailable",
                Times = 100_000,
            }
        );
        return Task.WhenAll(Enumerable.Range(0, 10).Select(i => CommitAsync(TestRelay.Bob, $"s{i}@example.com")));
    }

    private protected async Task<string> RegisterAsync(string account, string app, string environment = "production")
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(TestRelay.NewRegistration(account, token, app: app, environment: environment), Token);
        return token;
    }

    private Task CommitAsync(string account, string from) =>
        relay.CommitMessageAsync("hello", m => m with { Account = account, From = from });
}

public sealed class SqliteLaneCircuitsTests : LaneCircuitsContract
{
    private protected override Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlLaneCircuitsTests(PostgreSqlServer server) : LaneCircuitsContract
{
    [Fact]
    public async Task Another_node_learns_of_it_and_does_not_try_by_itself()
    {
        await RegisterAsync(TestRelay.Bob, TestRelay.App);
        await using var second = await OpenAsync(MasterKeyFile);
        await OutageAsync();
        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");

        await second.Get<LaneCircuits>().ShareAsync(TestContext.Current.CancellationToken);

        var permits = second.OpenPermits(TimeSpan.FromSeconds(30));
        Assert.Empty(permits.Claimable([new WaitingLane(TestRelay.Lane, TestRelay.App, "apns")], 100));
    }

    private protected override async Task<string?> NewDatabaseAsync() =>
        await server.NewDatabaseAsync(TestContext.Current.CancellationToken);
}
