using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Telemetry;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Push;

/// <summary>What the dispatcher makes of a network's answers, whichever network it is, on whichever database.</summary>
public abstract class PushNetworkContract : IAsyncLifetime
{
    private protected NetworkBed Bed { get; private set; } = null!;

    private protected TestRelay Relay { get; private set; } = null!;

    private protected static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        Bed = NewBed();
        Relay = await Bed.OpenAsync(await NewDatabaseAsync());
        await Relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await Relay.DisposeAsync();
        await Bed.DisposeAsync();
    }

    [Fact]
    public async Task What_is_accepted_keeps_the_networks_status_and_id_on_its_row()
    {
        var device = await RegisterAsync();

        await Relay.CommitMessageAsync("hello");

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal((device.Lane, Bed.Platform, 1), (row.Lane!.Value, row.Platform, row.Attempts));
        Assert.InRange(row.Status!.Value, 200, 299);
        Assert.NotNull(row.ProviderId);
        Assert.NotNull(row.AnswerMs);
        Assert.Null(row.Code);
        Assert.Equal(0, Relay.Get<Permits>().InFlight);
    }

    [Fact]
    public async Task A_refusal_ends_the_delivery_and_no_device()
    {
        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.Refused);

        await Relay.CommitMessageAsync("hello");

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));
        var code = Bed.CodeOf(NetworkAnswer.Refused);
        Assert.Equal((code, code), (row.Reason, row.Code));
        Assert.Equal(DeviceStatus.Active, (await DeviceAsync()).Status);
    }

    [Fact]
    public async Task A_dead_token_ends_its_device_until_it_registers_again()
    {
        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.TokenDead);

        await Relay.CommitMessageAsync("hello");

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Rejected)));
        var code = Bed.CodeOf(NetworkAnswer.TokenDead);
        Assert.Equal(code, row.Reason);
        var device = await DeviceAsync();
        Assert.Equal((DeviceStatus.Invalid, PushCode.WordOf(code)), (device.Status, device.StatusReason));
    }

    [Fact]
    public async Task A_token_that_died_before_it_was_registered_is_tried_again()
    {
        if (!Bed.Knows(NetworkAnswer.TokenDeadLongAgo))
        {
            return;
        }

        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.TokenDeadLongAgo);

        await Relay.CommitMessageAsync("hello");
        await WaitForAttemptAsync();
        Relay.Advance(TimeSpan.FromSeconds(2));

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal(1, row.AttemptsExcused);
        Assert.Equal("deferred", (await Relay.AttemptsAsync(row.Id))[0].Outcome);
    }

    [Theory]
    [InlineData(nameof(NetworkAnswer.Outage), 1)]
    [InlineData(nameof(NetworkAnswer.ServerError), 0)]
    [InlineData(nameof(NetworkAnswer.Throttled), 0)]
    public async Task What_may_succeed_later_is_sent_again_with_the_same_id(string answer, int excused)
    {
        var later = Enum.Parse<NetworkAnswer>(answer);
        if (!Bed.Knows(later))
        {
            return;
        }

        await RegisterAsync();
        Bed.AnswerNext(later);

        await Relay.CommitMessageAsync("hello");
        var waiting = await WaitForAttemptAsync();
        Assert.Equal((Bed.CodeOf(later), excused), (waiting.Code, waiting.AttemptsExcused));
        Relay.Advance(TimeSpan.FromSeconds(2));

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal([row.Id, row.Id], Bed.Received);
        var first = (await Relay.AttemptsAsync(row.Id))[0];
        Assert.Equal((PushCode.WordOf(Bed.CodeOf(later)), "deferred"), (first.Reason, first.Outcome));
    }

    [Fact]
    public async Task A_delivery_whose_attempts_are_used_up_is_dead()
    {
        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.ServerError, times: 100);

        await Relay.CommitMessageAsync("hello");
        await AdvanceUntilAsync(TimeSpan.FromMinutes(11), async () => (await Relay.RowsAsync()).All(r => r.State is DeliveryState.Dead));

        var row = Assert.Single(await Relay.RowsAsync());
        Assert.Equal((Reasons.AttemptsExhausted, 8), (row.Reason, row.Attempts));
    }

    [Fact]
    public async Task Refused_credentials_stop_the_lane_and_end_no_device()
    {
        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.Credentials, times: 2);

        await Relay.CommitMessageAsync("hello");
        await WaitForAttemptAsync();
        await TestRelay.UntilAsync(async () => await OpenCircuitAsync() is not null, () => "not open");
        await Relay.CommitMessageAsync("waits", m => m with { From = "carol@example.com" });

        var circuit = (await OpenCircuitAsync())!;
        Assert.Equal(
            (TestRelay.App, Bed.Platform, Fault.Credentials, Bed.CodeOf(NetworkAnswer.Credentials)),
            (circuit.App, circuit.Platform, circuit.Fault, circuit.Code)
        );
        var raised = Assert.Single(Relay.Get<Conditions>().Snapshot(), c => c.Kind == ConditionKind.TokensRefused);
        Assert.Equal($"{TestRelay.App}/{Bed.Platform}", raised.Subject);
        Assert.Contains($"{circuit.Lane}: {circuit.Code}", raised.Detail, StringComparison.Ordinal);
        await AdvanceUntilAsync(TimeSpan.FromMinutes(1), async () => (await Relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));
        Assert.Equal(DeviceStatus.Active, (await DeviceAsync()).Status);
        await TestRelay.UntilAsync(async () => await OpenCircuitAsync() is null, () => "open");
        Assert.DoesNotContain(Relay.Get<Conditions>().Snapshot(), c => c.Kind == ConditionKind.TokensRefused);
    }

    private protected abstract NetworkBed NewBed();

    private protected virtual Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);

    private protected async Task<Device> RegisterAsync(string account = TestRelay.Bob, string? token = null, string? callToken = null)
    {
        var request = TestRelay.NewRegistration(account, token, callToken) with { Platform = Bed.Platform, Environment = null };
        if (token is null)
        {
            request = request with { Tokens = Bed.NewTokens() };
        }

        return Assert.IsType<DeviceResult.Done>(await Relay.RegisterAsync(request, Token)).Device;
    }

    private protected async Task<Delivery> WaitForAttemptAsync() =>
        Assert.Single(await Relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: > 0 })));

    private protected async Task<OpenCircuit?> OpenCircuitAsync()
    {
        await using var db = Relay.NewDb();
        return await db.Set<OpenCircuit>().AsNoTracking().SingleOrDefaultAsync(Token);
    }

    /// <summary>Moves the time on, and gives the relay a moment of real time after each step.</summary>
    private protected async Task AdvanceUntilAsync(TimeSpan step, Func<Task<bool>> holds)
    {
        for (var steps = 0; steps < 100; steps++)
        {
            Relay.Advance(step);
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

    private async Task<Device> DeviceAsync()
    {
        await using var db = Relay.NewDb();
        return await db.Set<Device>().AsNoTracking().SingleAsync(Token);
    }
}

public sealed class SqliteAppleNetworkTests : PushNetworkContract
{
    private protected override NetworkBed NewBed() => new AppleBed();
}

public sealed class PostgreSqlAppleNetworkTests(PostgreSqlServer server) : PushNetworkContract
{
    private protected override NetworkBed NewBed() => new AppleBed();

    private protected override async Task<string?> NewDatabaseAsync() => await server.NewDatabaseAsync(Token);
}

public sealed class FcmNetworkContractTests : PushNetworkContract
{
    private protected override NetworkBed NewBed() => new FcmBed();
}

public sealed class WebPushNetworkContractTests : PushNetworkContract
{
    private protected override NetworkBed NewBed() => new WebPushBed();
}

public sealed class JPushNetworkContractTests : PushNetworkContract
{
    private protected override NetworkBed NewBed() => new JPushBed();
}

/// <summary>What Apple's simulator does not do on demand.</summary>
public abstract class LoopbackNetworkContract : PushNetworkContract
{
    private LoopbackNetwork Network => ((LoopbackBed)Bed).Network;

    [Fact]
    public async Task A_dead_call_token_is_forgotten_and_the_call_goes_out_as_an_alert()
    {
        await RegisterAsync(token: "host1:alert", callToken: "host1:call");
        Network.AnswerNext(new PushResult.TokenDead(Channels.Call, null, "loopback_Gone", 404, TimeSpan.Zero));

        await Relay.CommitMessageAsync(null, m => m with { Class = EventClass.Call, CallId = "c1" });

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal((2, 1), (row.Attempts, row.AttemptsExcused));
        Assert.Equal([true, false], Network.Received.Select(n => n.Address.Tokens.ContainsKey(Channels.Call)));
    }

    [Fact]
    public async Task A_quota_that_is_used_up_stops_the_lane_at_once_for_as_long_as_the_network_says_and_no_other_lane()
    {
        await RegisterAsync(token: "host1:a");
        await RegisterAsync("carol@example.com", token: "host2:a");
        Network.AnswerNext(new PushResult.Later(Fault.Quota, TimeSpan.FromMinutes(5), "loopback_Quota", 429, TimeSpan.Zero));

        await Relay.CommitMessageAsync("hello");
        await WaitForAttemptAsync();
        await TestRelay.UntilAsync(async () => await OpenCircuitAsync() is not null, () => "not open");
        await Relay.CommitMessageAsync("hello", m => m with { Account = "carol@example.com" });
        await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted), "carol@example.com");
        Relay.Advance(TimeSpan.FromMinutes(4));

        Assert.Equal(2, Network.Received.Count);
        Assert.Equal(1, Assert.Single(await Relay.RowsAsync()).AttemptsExcused);
        await AdvanceUntilAsync(TimeSpan.FromMinutes(1), async () => (await Relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));
    }

    [Fact]
    public async Task A_server_error_as_the_answer_to_a_probe_leaves_the_circuit_open()
    {
        await RegisterAsync();
        Bed.AnswerNext(NetworkAnswer.Credentials);
        Bed.AnswerNext(NetworkAnswer.ServerError);
        Network.AnswerAlways(new PushResult.Later(Fault.Credentials, null, "loopback_Closed", 403, TimeSpan.Zero));

        await Relay.CommitMessageAsync("hello");
        await TestRelay.UntilAsync(async () => await OpenCircuitAsync() is not null, () => "not open");
        await AdvanceUntilAsync(
            TimeSpan.FromMinutes(1),
            () => Task.FromResult(Network.Received.Count == 2 && Relay.Get<Permits>().InFlight == 0)
        );

        Assert.NotNull(await OpenCircuitAsync());
        Network.AnswerAlways(null);
        await AdvanceUntilAsync(TimeSpan.FromMinutes(1), async () => (await Relay.RowsAsync()).All(r => r.State == DeliveryState.Accepted));
    }

    [Fact]
    public async Task Five_answers_that_never_came_open_the_circuit()
    {
        await RegisterAsync();
        Network.AnswerAlways(new PushResult.Unknown("loopback_Silent", TimeSpan.FromSeconds(10)));

        for (var i = 0; i < LaneCircuit.FailuresMax; i++)
        {
            await Relay.CommitMessageAsync("hello", m => m with { From = $"s{i}@example.com" });
        }

        await TestRelay.UntilAsync(async () => await OpenCircuitAsync() is not null, () => "not open");
        await TestRelay.UntilAsync(() => Task.FromResult(Relay.Get<Permits>().InFlight == 0), () => "in flight");
        Assert.Equal(Fault.Outage, (await OpenCircuitAsync())!.Fault);
        Assert.All(
            await Relay.RowsAsync(),
            row => Assert.True(row.AttemptsExcused == row.Attempts && row.Code is null or "loopback_Silent")
        );
    }

    [Fact]
    public async Task A_network_that_throws_costs_an_attempt_and_no_permit()
    {
        await RegisterAsync();
        Network.AnswerNext((_, _) => throw new InvalidOperationException("a mistake in a network"));

        await Relay.CommitMessageAsync("hello");
        await TestRelay.UntilAsync(
            () => Task.FromResult(Network.Received.Count == 1 && Relay.Get<Permits>().InFlight == 0),
            () => "a permit is out"
        );
        Relay.Advance(TimeSpan.FromSeconds(31));
        Relay.Advance(TimeSpan.FromSeconds(1));

        var row = Assert.Single(await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted)));
        Assert.Equal((2, 0), (row.Attempts, row.AttemptsExcused));
    }

    [Fact]
    public async Task Rows_of_a_lane_that_this_process_never_saw_are_found()
    {
        var device = await RegisterAsync(token: "host9:a");
        var now = await Relay.NowAsync();
        await using (var db = Relay.NewDb())
        {
            // as another node writes it: nothing of it stays in this process
            await db.Database.OpenConnectionAsync(Token);
            var row = Relay.NewRow(device, Guid.CreateVersion7(now), now, Guid.NewGuid());
            await OutboxSql.Of(db).InsertAsync(db, [row], Token);
        }

        Relay.Advance(TimeSpan.FromSeconds(1));

        await Relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
    }

    private protected override NetworkBed NewBed() => new LoopbackBed();
}

public sealed class SqliteLoopbackNetworkTests : LoopbackNetworkContract;

public sealed class PostgreSqlLoopbackNetworkTests(PostgreSqlServer server) : LoopbackNetworkContract
{
    private protected override async Task<string?> NewDatabaseAsync() => await server.NewDatabaseAsync(Token);
}
