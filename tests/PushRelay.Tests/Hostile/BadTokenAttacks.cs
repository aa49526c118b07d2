using Microsoft.EntityFrameworkCore;
using PushRelay.Apns.Simulator;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Hostile;

/// <summary>Accounts that register tokens which the push network refuses: they end their own devices, and nobody else waits.</summary>
public abstract class BadTokenAttacks : IAsyncLifetime
{
    private const int Honest = 40;

    // on a quiet machine it is below half a second; an open circuit would hold them for half a minute
    private static readonly TimeSpan WaitMax = TimeSpan.FromSeconds(10);

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-tokens-").FullName;
    private ApnsSimulator apns = null!;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), apns.CaPem, Token);
        relay = await TestRelay.OpenAsync(
            await NewDatabaseAsync(),
            $"--Apps:0:Apns:Endpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:SandboxEndpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:TrustedCertificateFile={folder}/ca.pem"
        );
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

    [Theory]
    [InlineData(3, 20, 12)] // three accounts with twenty made-up tokens each
    [InlineData(25, 1, 1)] // a group of testers with a development build
    public async Task Tokens_that_were_never_good_hold_up_nobody(int accounts, int tokens, int conversations)
    {
        await RegisterHonestAsync();
        var longest = await AlertHonestAsync();
        var attackers = new List<string>();
        for (var account = 0; account < accounts; account++)
        {
            attackers.Add($"mallory{account}@example.com");
            for (var token = 0; token < tokens; token++)
            {
                Refuse(await RegisterAsync(attackers[^1]));
            }
        }

        for (var conversation = 0; conversation < conversations; conversation++)
        {
            foreach (var account in attackers)
            {
                await CommitAsync(account, $"c{conversation}@example.com");
            }

            // alerts of one device are paced
            relay.Advance(TimeSpan.FromSeconds(3));
            longest = Longest(longest, await AlertHonestAsync());
        }

        Assert.False(await IsOpenAsync());
        Assert.InRange(longest, TimeSpan.Zero, WaitMax);
        await TestRelay.UntilAsync(
            async () => await InvalidAsync() == accounts * tokens,
            () => "each refusal ends the device that it is about, and no other"
        );
        TestContext.Current.TestOutputHelper?.WriteLine($"longest wait of an honest alert: {longest.TotalMilliseconds:0} ms");
    }

    [Fact]
    public async Task They_hold_up_nobody_either_when_nothing_was_accepted_for_a_while()
    {
        await RegisterHonestAsync();
        await AlertHonestAsync();
        relay.Advance(TimeSpan.FromMinutes(10));
        await relay.Get<LaneCircuits>().ShareAsync(Token);
        for (var device = 0; device < 60; device++)
        {
            Refuse(await RegisterAsync($"mallory{device % 3}@example.com"));
        }

        for (var account = 0; account < 3; account++)
        {
            await CommitAsync($"mallory{account}@example.com", TestRelay.Alice);
        }

        await TestRelay.UntilAsync(async () => await InvalidAsync() == 60, () => "their devices end");
        Assert.False(await IsOpenAsync());
        Assert.InRange(await AlertHonestAsync(), TimeSpan.Zero, WaitMax);
    }

    [Fact]
    public async Task A_really_wrong_setting_opens_the_circuit_and_ends_no_device_from_then_on()
    {
        const int Accounts = 10;
        for (var device = 0; device < 20; device++)
        {
            await RegisterAsync($"u{device % Accounts}@example.com");
        }

        await AlertAllAsync(Accounts);
        relay.Advance(TimeSpan.FromMinutes(2));
        apns.AnswerNext(
            new ScriptRule
            {
                Status = 400,
                Reason = "BadDeviceToken",
                Times = 100_000,
            }
        );

        for (var account = 0; account < Accounts; account++)
        {
            await CommitAsync($"u{account}@example.com", "b@example.com");
        }

        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        Assert.InRange(await InvalidAsync(), 0, TokenSuspicion.SendsMin - 1);

        // two probes are refused too, and end nothing
        for (var probe = 0; probe < 2; probe++)
        {
            var before = apns.ReceivedCount;
            await AdvanceUntilAsync(() => Task.FromResult(apns.ReceivedCount > before && relay.Get<Permits>().InFlight == 0));
        }

        Assert.True(await IsOpenAsync());
        Assert.InRange(await InvalidAsync(), 0, TokenSuspicion.SendsMin - 1);

        // the setting is right again
        apns.ClearScript();
        await AdvanceUntilAsync(async () =>
            (await relay.AllRowsAsync()).All(r => r.State is DeliveryState.Accepted or DeliveryState.Rejected or DeliveryState.Cancelled)
        );
        await TestRelay.UntilAsync(async () => !await IsOpenAsync(), () => "still open");
    }

    [Fact]
    public async Task A_probe_goes_to_a_device_that_was_reached_before()
    {
        var good = await RegisterAsync("good@example.com");
        await CommitAsync("good@example.com", TestRelay.Alice);
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted), "good@example.com");
        var bad = await RegisterAsync("mallory@example.com");
        apns.AnswerNext(
            new ScriptRule
            {
                Token = bad,
                Status = 403,
                Reason = "InvalidProviderToken",
                Times = 100_000,
            }
        );
        for (var i = 0; i < 150; i++)
        {
            await CommitAsync("mallory@example.com", $"c{i}@example.com");
        }

        await TestRelay.UntilAsync(IsOpenAsync, () => "not open");
        await TestRelay.UntilAsync(() => Task.FromResult(relay.Get<Permits>().InFlight == 0), () => "in flight");
        relay.Advance(TimeSpan.FromSeconds(1));
        await CommitAsync("good@example.com", "b@example.com");
        var before = apns.ReceivedCount;

        await AdvanceUntilAsync(() => Task.FromResult(apns.ReceivedCount > before));

        // of the 150 rows of the other account, which wait longer, none was tried before it
        Assert.Equal(good, apns.Received.First(r => r.Number == before + 1).DeviceToken);
    }

    private protected abstract Task<string?> NewDatabaseAsync();

    private static TimeSpan Longest(TimeSpan one, TimeSpan other) => one > other ? one : other;

    private void Refuse(string token) =>
        apns.AnswerNext(
            new ScriptRule
            {
                Token = token,
                Status = 400,
                Reason = "BadDeviceToken",
                Times = 100_000,
            }
        );

    private async Task RegisterHonestAsync()
    {
        for (var i = 0; i < Honest; i++)
        {
            await RegisterAsync($"u{i}@example.com");
        }
    }

    /// <summary>How long it takes, in real time, until each honest account has its alert; the clock of the relay stands still.</summary>
    private async Task<TimeSpan> AlertHonestAsync()
    {
        var began = TimeProvider.System.GetTimestamp();
        await AlertAllAsync(Honest);
        return TimeProvider.System.GetElapsedTime(began);
    }

    private async Task AlertAllAsync(int accounts)
    {
        // a conversation of its own each time: alerts of one conversation are paced
        var from = $"{Guid.NewGuid():N}@example.com";
        for (var i = 0; i < accounts; i++)
        {
            await CommitAsync($"u{i}@example.com", from);
        }

        await TestRelay.UntilAsync(
            async () => (await relay.AllRowsAsync()).Where(r => r.Sender == from).All(r => r.State == DeliveryState.Accepted),
            () => "not all accepted"
        );
    }

    private async Task<bool> IsOpenAsync()
    {
        await using var db = relay.NewDb();
        return await db.Set<OpenCircuit>().AnyAsync(Token);
    }

    private async Task<int> InvalidAsync()
    {
        await using var db = relay.NewDb();
        return await db.Set<Device>().CountAsync(d => d.Status == DeviceStatus.Invalid, Token);
    }

    private async Task AdvanceUntilAsync(Func<Task<bool>> holds)
    {
        for (var steps = 0; steps < 100; steps++)
        {
            relay.Advance(TimeSpan.FromSeconds(35));
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

    private async Task<string> RegisterAsync(string account)
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(TestRelay.NewRegistration(account, token), Token);
        return token;
    }

    private Task CommitAsync(string account, string from) =>
        relay.CommitMessageAsync("hello", m => m with { Account = account, From = from });
}

public sealed class SqliteBadTokenAttacks : BadTokenAttacks
{
    private protected override Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlBadTokenAttacks(PostgreSqlServer server) : BadTokenAttacks
{
    private protected override async Task<string?> NewDatabaseAsync() =>
        await server.NewDatabaseAsync(TestContext.Current.CancellationToken);
}
