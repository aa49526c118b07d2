using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Dispatch;

/// <summary>What keeps a relay that runs on and on in order, on whichever database.</summary>
public abstract class HousekeepingContract : IAsyncLifetime
{
    private const int HourlyRows = 300;

    private TestRelay relay = null!;
    private Device device = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync("--Retention:Deliveries=02:00:00");
        device = await relay.RegisterAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task Over_a_day_table_and_indexes_stay_as_large_as_what_is_kept()
    {
        long early = 0,
            late = 0;
        for (var hour = 0; hour < 24; hour++)
        {
            await DeliverAsync();
            relay.Advance(TimeSpan.FromMinutes(59));
            while (await relay.Get<Housekeeping>().PruneAsync(Token) > 0)
            {
                // some at a time
            }

            await CleanAsync();
            late = await BytesAsync();
            early = hour == 5 ? late : early;
        }

        Assert.Equal(2 * HourlyRows, (await relay.RowsAsync()).Count);
        Assert.InRange(late, 0, (long)(early * 1.2));
    }

    [Fact]
    public async Task What_waits_for_an_app_that_is_no_longer_configured_is_not_passed_over_in_silence()
    {
        await AppendAsync(2, "com.example.gone");
        await AppendAsync(1, TestRelay.App);

        Assert.Equal(
            new Dictionary<(string, string), int> { [("com.example.gone", "apns")] = 2 },
            await relay.Get<Housekeeping>().OrphansAsync(Token)
        );
    }

    [Fact]
    public async Task A_lane_that_no_device_is_reached_over_is_forgotten_and_its_condition_ends()
    {
        var gone = new LaneOwner(new Lane($"{TestRelay.App}/apns-gone"), TestRelay.App, "apns");
        var used = new LaneOwner(device.Lane, TestRelay.App, "apns");
        await using var db = relay.NewDb();
        foreach (var owner in new[] { gone, used })
        {
            var opening = new CircuitOpening(Fault.Outage, "apns_503", TimeSpan.FromHours(1), TimeSpan.FromHours(1));
            await CircuitTable.OpenAsync(db, owner, opening, relay.Clock.GetUtcNow(), Token);
            await AcceptingLane.AddAsync(db, owner.Lane, relay.Clock.GetUtcNow(), Token);
        }

        var circuits = relay.Get<LaneCircuits>();
        await circuits.ShareAsync(Token);
        Assert.Contains(gone.Lane.Id, await DescriptionAsync(), StringComparison.Ordinal);

        Assert.Equal(1, await relay.Get<Housekeeping>().ForgetUnusedLanesAsync(Token));

        Assert.Equal([used.Lane], await db.Set<OpenCircuit>().Select(c => c.Lane).ToListAsync(Token));
        Assert.Equal([used.Lane], await db.Set<AcceptingLane>().Select(l => l.Lane).ToListAsync(Token));
        relay.Advance(TimeSpan.FromSeconds(2));
        await circuits.ShareAsync(Token);
        var left = await DescriptionAsync();
        Assert.Contains(used.Lane.Id, left, StringComparison.Ordinal);
        Assert.DoesNotContain(gone.Lane.Id, left, StringComparison.Ordinal);

        async Task<string> DescriptionAsync() => (await circuits.CheckHealthAsync(new HealthCheckContext(), Token)).Description ?? "";
    }

    /// <summary>Settled with a retry before, so that each row is written four times, and each attempt has a row.</summary>
    private async Task DeliverAsync()
    {
        await AppendAsync(HourlyRows, TestRelay.App);
        foreach (
            Settlement settlement in new Settlement[] { new Settlement.Retry(TimeSpan.Zero, Excused: true), new Settlement.Accepted() }
        )
        {
            var rooms = new Dictionary<Lane, int> { [TestRelay.Lane] = HourlyRows };
            var claimed = await relay.Outbox.ClaimAsync(rooms, TimeSpan.FromSeconds(30), TimeSpan.Zero, Token);
            Assert.Equal(HourlyRows, claimed.Count);
            Assert.Empty(await relay.Outbox.SettleAsync([.. claimed.Select(c => new SettledAlert(c, settlement, Attempt(c)))], Token));
        }
    }

    private async Task AppendAsync(int count, string app)
    {
        var now = await relay.NowAsync();
        await using var db = relay.NewDb();
        await using var transaction = await db.Database.BeginTransactionAsync(Token);
        var rows = Enumerable
            .Range(0, count)
            .Select(_ => relay.NewRow(device, relay.Get<IdSequence>().Next(now), now, Guid.NewGuid(), app: app))
            .ToList();
        await relay.Outbox.AppendAsync(db, rows, claim: false, now, Token);
        await transaction.CommitAsync(Token);
    }

    /// <summary>What autovacuum does by itself, sooner or later.</summary>
    private protected abstract Task CleanAsync();

    private protected abstract Task<long> BytesAsync();

    private protected abstract Task<TestRelay> OpenAsync(string setting);

    private protected async Task<long> AskAsync(string sql)
    {
        await using var db = relay.NewDb();
        return (await db.Database.SqlQueryRaw<long>(sql).ToListAsync(Token))[0];
    }

    private protected async Task RunAsync(string sql)
    {
        await using var db = relay.NewDb();
        await db.Database.ExecuteSqlRawAsync(sql, Token);
    }

    private static Attempt Attempt(ClaimedAlert alert) =>
        new()
        {
            DeliveryId = alert.Head.Id,
            Number = alert.Head.Attempts,
            At = alert.Head.CreatedAt,
            DurationMs = 3,
            Status = 200,
            Outcome = "accepted",
        };
}

public sealed class SqliteHousekeepingTests : HousekeepingContract
{
    private protected override Task CleanAsync() => Task.CompletedTask;

    private protected override Task<long> BytesAsync() =>
        AskAsync("SELECT page_count * page_size AS \"Value\" FROM pragma_page_count, pragma_page_size");

    private protected override Task<TestRelay> OpenAsync(string setting) => TestRelay.OpenAsync(null, setting);
}

/// <summary>Alone: a page of an index is used again only when no transaction is open, in any database, that is older than its
/// end.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneOnPostgreSql
{
    public const string Name = "alone on PostgreSQL";
}

[Collection(AloneOnPostgreSql.Name)]
public sealed class PostgreSqlHousekeepingTests(PostgreSqlServer server) : HousekeepingContract
{
    private protected override Task CleanAsync() => RunAsync("VACUUM deliveries, attempts");

    private protected override Task<long> BytesAsync() =>
        AskAsync("SELECT (pg_total_relation_size('deliveries') + pg_total_relation_size('attempts'))::bigint AS \"Value\"");

    private protected override async Task<TestRelay> OpenAsync(string setting) =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken), setting);
}
