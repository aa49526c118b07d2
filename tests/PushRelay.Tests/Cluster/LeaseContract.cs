using Microsoft.EntityFrameworkCore;
using Npgsql;
using PushRelay.Cluster;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Storage;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Cluster;

/// <summary>One holder at a time, and nothing committed by whoever is no longer; holds on both databases.</summary>
public abstract class LeaseContract : IAsyncLifetime
{
    private const string Name = "link:push.example.com";

    private readonly StreamName stream = new(TestRelay.Server, "");

    private protected TestRelay Relay { get; private set; } = null!;

    private protected static CancellationToken Token => TestContext.Current.CancellationToken;

    private protected LeaseTable Leases => Relay.Get<LeaseTable>();

    public async ValueTask InitializeAsync() => Relay = await OpenAsync();

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return Relay.DisposeAsync();
    }

    [Fact]
    public async Task It_is_taken_held_by_renewal_also_after_its_end_and_given_back()
    {
        var term = await TakeAsync();

        Assert.Equal(LeaseRenewal.Held, await Leases.RenewAsync(term, inUse: true, Token));
        Relay.Advance(LeaseTable.Duration * 4);
        Assert.Equal(LeaseRenewal.Held, await Leases.RenewAsync(term, inUse: true, Token));

        await Leases.ReleaseAsync(term, Token);
        await using var db = Relay.NewDb();
        var row = await db.Set<Lease>().AsNoTracking().SingleAsync(Token);
        Assert.Equal(("", term.Term), (row.Holder, row.Term));
        Assert.True(row.ExpiresAt <= await Relay.NowAsync());
    }

    [Fact]
    public async Task A_later_taking_has_a_higher_term_and_the_former_holder_commits_nothing()
    {
        var former = await TakeAsync();
        await Relay.Get<EventIngest>().CommitAsync([Batch(1)], former, Token);
        Relay.Advance(LeaseTable.Duration);
        var present = await TakeAsync();

        Assert.True(present.Term > former.Term);
        Assert.Equal(LeaseRenewal.Lost, await Leases.RenewAsync(former, inUse: true, Token));
        await Assert.ThrowsAsync<LeaseLostException>(() => Relay.Get<EventIngest>().CommitAsync([Batch(2)], former, Token));
        Assert.Equal(1, (await Relay.Get<EventIngest>().PositionAsync(stream, Token))!.Value.Seq);

        await Leases.ReleaseAsync(former, Token);
        await Relay.Get<EventIngest>().CommitAsync([Batch(2)], present, Token);
        Assert.Equal(2, (await Relay.Get<EventIngest>().PositionAsync(stream, Token))!.Value.Seq);
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private protected async Task<LeaseTerm> TakeAsync() => Assert.NotNull(await Leases.TakeAsync(Name, Token));

    private protected static Task<LeaseTerm?> TryTakeAsync(TestRelay relay) => relay.Get<LeaseTable>().TakeAsync(Name, Token);

    private protected EventBatch Batch(long seq) => new(stream, [], new StreamPoint("e", seq));
}

public sealed class SqliteLeaseTests : LeaseContract
{
    [Fact]
    public async Task A_process_that_died_is_not_waited_for_because_the_process_lock_says_that_it_did()
    {
        var former = await TakeAsync();

        Assert.Equal(former.Term + 1, (await TakeAsync()).Term);
    }

    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlLeaseTests(PostgreSqlServer server) : LeaseContract
{
    private string database = "";

    [Fact]
    public async Task A_second_node_waits_for_its_end_and_the_holder_hears_of_it()
    {
        var first = await TakeAsync();
        await using var second = await TestRelay.OpenAsync(database, $"--Storage:MasterKeyFile={Relay.Folder}/master.key");
        // the second's start may have taken long
        await Leases.RenewAsync(first, inUse: true, Token);

        Assert.Null(await TryTakeAsync(second));
        Assert.Equal(LeaseRenewal.HeldAndAwaited, await Leases.RenewAsync(first, inUse: true, Token));
        second.Advance(LeaseTable.Duration);

        Assert.Equal(first.Term + 1, (await TryTakeAsync(second))!.Value.Term);
        Assert.Null(await TryTakeAsync(Relay));
    }

    [Fact]
    public async Task Of_nodes_that_take_it_at_once_one_gets_it()
    {
        await using var second = await TestRelay.OpenAsync(database, $"--Storage:MasterKeyFile={Relay.Folder}/master.key");

        var both = await Task.WhenAll(TryTakeAsync(Relay), TryTakeAsync(second));

        Assert.Single(both, term => term is not null);
    }

    [Fact]
    public async Task A_transaction_that_shows_its_term_cannot_be_overtaken_and_one_that_stands_still_is_ended()
    {
        var first = await TakeAsync();
        await using var second = await TestRelay.OpenAsync(database, $"--Storage:MasterKeyFile={Relay.Folder}/master.key");
        second.Advance(LeaseTable.Duration);
        await using var db = Relay.NewDb();
        await using var transaction = await db.Database.BeginTransactionAsync(Token);
        await Leases.FenceAsync(db, first, Token);
        // as if the process stood still, but sooner than in ten seconds
        await db.Database.ExecuteSqlAsync($"SET LOCAL idle_in_transaction_session_timeout = 200", Token);

        Assert.Equal(first.Term + 1, (await TryTakeAsync(second))!.Value.Term);
        var refused = await Assert.ThrowsAnyAsync<NpgsqlException>(() => transaction.CommitAsync(Token));
        Assert.True(DatabaseErrors.IsOutage(refused));
    }

    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(database = await server.NewDatabaseAsync(Token));
}
