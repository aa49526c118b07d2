using Microsoft.EntityFrameworkCore;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Tests.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Outbox;

/// <summary>Whatever fails on the way from the insert to the settlement, its permit comes back.</summary>
public abstract class PermitLeakContract : IAsyncLifetime
{
    private const string Trap = "a_trap_of_tests";

    private TestRelay relay = null!;
    private Device device = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private LoopbackNetwork Network => relay.Get<LoopbackNetwork>();

    private Permits Permits => relay.Get<Permits>();

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync(
            await NewDatabaseAsync(),
            LoopbackNetwork.AddTo,
            ["--Apps:0:Loopback:Tokens=10", "--Dispatch:LeaseDuration=00:00:30"]
        );
        var request = TestRelay.NewRegistration(TestRelay.Bob, "host1:a") with { Platform = LoopbackNetwork.Name, Environment = null };
        device = Assert.IsType<DeviceResult.Done>(await relay.RegisterAsync(request, Token)).Device;
        await relay.ServeAsync();
        var row = relay.NewRow(device, Guid.NewGuid(), relay.Clock.GetUtcNow(), Guid.NewGuid());
        await TestRelay.UntilAsync(() => Task.FromResult(TakesOne(row)), () => "the dispatcher has not opened the permits");
    }

    private bool TakesOne(Delivery row)
    {
        using var permit = Permits.TryTake(row);
        return permit is not null;
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
    }

    [Fact]
    public async Task An_insert_that_fails()
    {
        await using (var trap = await TrapAsync("INSERT"))
        {
            await Assert.ThrowsAnyAsync<Exception>(() => AppendAsync(commit: true));
            Assert.Equal(0, Permits.InFlight);
        }

        await WorksAsync();
    }

    [Fact]
    public async Task A_transaction_that_is_not_committed()
    {
        await AppendAsync(commit: false);

        Assert.Equal(0, Permits.InFlight);
        await WorksAsync();
    }

    [Fact]
    public async Task An_ingest_that_is_cancelled()
    {
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            relay.Get<EventIngest>().CommitAsync([new EventBatch(new(TestRelay.Server, ""), [Message()], null)], null, cancelled.Token)
        );

        Assert.Equal(0, Permits.InFlight);
        await WorksAsync();
    }

    [Fact]
    public async Task A_replay_that_is_there_already()
    {
        var message = Message();
        for (var i = 0; i < 2; i++)
        {
            await relay.Get<EventIngest>().CommitAsync([new EventBatch(new(TestRelay.Server, ""), [message], null)], null, Token);
        }

        await SettledAsync();
    }

    [Fact]
    public async Task A_device_that_is_gone()
    {
        await using (var db = relay.NewDb())
        {
            await db.Set<Device>().ExecuteDeleteAsync(Token);
        }

        relay.Get<RecentDevices>().Forget([device.Key]);
        await AppendAsync(commit: true);

        await SettledAsync();
        Assert.Equal(DeliveryState.Cancelled, Assert.Single(await relay.RowsAsync()).State);
    }

    [Fact]
    public async Task A_device_whose_tokens_no_key_opens()
    {
        var tokens = new Dictionary<string, string> { [Channels.Alert] = "host1:a" };
        var unreadable = DeviceTokens.Seal(tokens, Guid.NewGuid(), relay.MasterKey);
        await using (var db = relay.NewDb())
        {
            await db.Set<Device>().ExecuteUpdateAsync(set => set.SetProperty(d => d.Tokens, unreadable), Token);
        }

        relay.Get<RecentDevices>().Forget([device.Key]);
        await AppendAsync(commit: true);

        await TestRelay.UntilAsync(() => Task.FromResult(Permits.InFlight == 0), () => "a permit is out");
        Assert.Equal(DeliveryState.Sending, Assert.Single(await relay.RowsAsync()).State);
        Assert.Empty(Network.Received);
    }

    [Fact]
    public async Task A_settlement_that_is_refused_by_the_database()
    {
        await using (var trap = await TrapAsync("UPDATE"))
        {
            await AppendAsync(commit: true);
            await TestRelay.UntilAsync(() => Task.FromResult(Permits.InFlight == 0), () => "a permit is out");
        }

        Assert.Equal(DeliveryState.Sending, Assert.Single(await relay.RowsAsync()).State);
        Assert.Single(Network.Received);
    }

    [Fact]
    public async Task A_lease_that_ran_out_before_the_answer()
    {
        var answer = new TaskCompletionSource();
        Network.AnswerNext(
            async (notification, _) =>
            {
                await answer.Task;
                return new PushResult.Accepted(null, 200, TimeSpan.Zero);
            }
        );
        await AppendAsync(commit: true);
        await TestRelay.UntilAsync(() => Task.FromResult(Network.Received.Count == 1), () => "not sent");
        relay.Advance(TimeSpan.FromSeconds(31));
        relay.Advance(TimeSpan.FromSeconds(1));
        await TestRelay.UntilAsync(() => Task.FromResult(Network.Received.Count == 2), () => "not sent again");
        answer.SetResult();

        await SettledAsync();
    }

    [Fact]
    public async Task A_stop_that_does_not_wait_for_an_answer()
    {
        Network.AnswerNext(
            async (_, sending) =>
            {
                await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, sending);
                throw new System.Diagnostics.UnreachableException();
            }
        );
        await AppendAsync(commit: true);
        await TestRelay.UntilAsync(() => Task.FromResult(Network.Received.Count == 1), () => "not sent");
        var permits = Permits;

        await relay.DisposeAsync();

        Assert.Equal(0, permits.InFlight);
    }

    private protected abstract Task<string?> NewDatabaseAsync();

    private static RelayEvent.Message Message() =>
        new(TestRelay.Bob, DateTimeOffset.UnixEpoch)
        {
            Key = Guid.NewGuid().ToString(),
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            From = TestRelay.Alice,
            Type = "chat",
            Content = new AlertContent { Body = "hello" },
            Presence = new AccountPresence(AccountState.Offline, []),
        };

    private async Task AppendAsync(bool commit)
    {
        var now = await relay.NowAsync();
        await using var db = relay.NewDb();
        await using var transaction = await db.Database.BeginTransactionAsync(Token);
        var row = relay.NewRow(device, relay.Get<IdSequence>().Next(now), now, Guid.NewGuid());
        using var appended = await relay.Outbox.AppendAsync(db, [row], claim: true, now, Token);
        Assert.Equal(1, Permits.InFlight);
        if (commit)
        {
            await transaction.CommitAsync(Token);
            await relay.Get<ReadyQueue>().PublishAsync(appended, Token);
        }
    }

    private async Task WorksAsync()
    {
        await AppendAsync(commit: true);
        await SettledAsync();
        Assert.Contains(await relay.RowsAsync(), r => r.State == DeliveryState.Accepted);
    }

    private async Task SettledAsync()
    {
        await relay.WaitForRowsAsync(rows => rows.Count > 0 && rows.All(r => r.SettledAt is not null));
        await TestRelay.UntilAsync(() => Task.FromResult(Permits.InFlight == 0), () => $"{Permits.InFlight} permits are out");
    }

    /// <summary>The database refuses this statement on deliveries until the result is disposed of.</summary>
    private async Task<IAsyncDisposable> TrapAsync(string statement)
    {
        string[] set;
        string[] clear;
        await using var db = relay.NewDb();
        if (db.IsSqlite)
        {
            set = [$"CREATE TRIGGER {Trap} BEFORE {statement} ON deliveries BEGIN SELECT RAISE(ABORT, 'trapped'); END"];
            clear = [$"DROP TRIGGER {Trap}"];
        }
        else
        {
            set =
            [
                $"CREATE FUNCTION {Trap}() RETURNS trigger LANGUAGE plpgsql AS "
                    + "$$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = '23514'; END $$",
                $"CREATE TRIGGER {Trap} BEFORE {statement} ON deliveries FOR EACH ROW EXECUTE FUNCTION {Trap}()",
            ];
            clear = [$"DROP TRIGGER {Trap} ON deliveries", $"DROP FUNCTION {Trap}"];
        }

        await ExecuteAsync(set);
        return new Cleared(this, clear);
    }

    private async Task ExecuteAsync(string[] statements)
    {
        await using var db = relay.NewDb();
        foreach (var statement in statements)
        {
            await db.Database.ExecuteSqlRawAsync(statement, Token);
        }
    }

    private sealed class Cleared(PermitLeakContract tests, string[] statements) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync() => await tests.ExecuteAsync(statements);
    }
}

public sealed class SqlitePermitLeakTests : PermitLeakContract
{
    private protected override Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlPermitLeakTests(PostgreSqlServer server) : PermitLeakContract
{
    private protected override async Task<string?> NewDatabaseAsync() =>
        await server.NewDatabaseAsync(TestContext.Current.CancellationToken);
}
