using Npgsql;
using PushRelay.Rig;

namespace PushRelay.Interop.Faults;

/// <summary>What happens to PostgreSQL under load: F11 to F18 of docs/faults.md.</summary>
[Collection(FaultTestGroup.Name)]
public sealed class DatabaseFaultTests(FaultDatabase database)
{
    private const int Events = 300;

    /// <summary>An answer that could not be stored before its lease was over is asked for again: at most what a node sends at a
    /// time.</summary>
    private static readonly OracleTerms InFlight = new() { RepeatedMax = 500 };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F13_Away_for_longer_than_a_lease_no_answer_that_is_known_is_asked_for_again()
    {
        var cluster = await database.GetAsync();
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Cluster = cluster, Simulator = simulator => simulator with { Latency = TimeSpan.FromMilliseconds(300) } }
        );
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(50);

        await cluster.StopAtOnceAsync(Token);
        var inFlight = bed.Accepted();
        await Task.Delay(FaultBed.Lease + TimeSpan.FromSeconds(10), TimeProvider.System, Token);
        await cluster.StartAsync(Token);

        await ResumedAsync(bed, inFlight);
        await sending;
        await bed.JudgeAsync(new OracleTerms { RepeatedMax = 0 });
    }

    [Fact]
    public async Task F11_Restarted_at_once_under_load_nothing_is_lost_and_it_goes_on_within_ten_seconds()
    {
        var cluster = await database.GetAsync();
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = cluster });
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(50);

        await cluster.StopAtOnceAsync(Token);
        var inFlight = bed.Accepted();
        await cluster.StartAsync(Token);

        await ResumedAsync(bed, inFlight);
        await sending;
        await bed.JudgeAsync(InFlight);
    }

    [Theory]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    [InlineData(true)]
    [InlineData(false)]
    public async Task F12_Killed_under_load_whole_or_one_backend_nothing_is_lost(bool postmaster)
    {
        var cluster = await database.GetAsync();
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = cluster });
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(50);

        var before = bed.Accepted();
        if (postmaster)
        {
            await cluster.KillAsync(Token);
            await cluster.StartAsync(Token);
        }
        else
        {
            var backend = (int)
                (
                    await bed.Ledger.ScalarAsync(
                        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
                            + "backend_type = 'client backend' LIMIT 1",
                        Token
                    )
                )!;
            PostgreSqlCluster.KillBackend(backend);
        }

        await ResumedAsync(bed, before);
        await sending;
        await bed.JudgeAsync(InFlight);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F14_A_black_hole_in_place_of_the_database_is_left_when_the_way_is_free_again()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = await database.GetAsync(), DatabaseProxy = true });
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(50);
        var files = ProcessFigures.OpenFiles(bed.Relay.ProcessId);

        bed.DatabaseProxy!.Freeze();
        var accepted = bed.Accepted();
        await Task.Delay(TimeSpan.FromSeconds(30), TimeProvider.System, Token);
        Assert.InRange(ProcessFigures.OpenFiles(bed.Relay.ProcessId), 0, files + 60);
        bed.DatabaseProxy.Heal();

        await bed.UntilAlertsAsync(Math.Min(Events, accepted + 50));
        await sending;
        await bed.JudgeAsync(InFlight);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F14_Connections_to_the_database_that_fall_silent_are_given_up()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = await database.GetAsync(), DatabaseProxy = true });
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(50);

        bed.DatabaseProxy!.FreezeOpen();

        await bed.UntilAlertsAsync(150);
        await sending;
        await bed.JudgeAsync(InFlight);
    }

    [Fact]
    public async Task F18_With_a_pool_of_two_connections_and_a_locked_table_it_waits_and_goes_on()
    {
        var cluster = await database.GetAsync();
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = cluster, Connection = ";Maximum Pool Size=2" });
        var sending = bed.SendAsync(Events, 100);
        await bed.UntilAlertsAsync(30);
        await using (var connection = (NpgsqlConnection)await bed.Ledger.OpenAsync(Token))
        {
            await using var transaction = await connection.BeginTransactionAsync(Token);
            await using var command = new NpgsqlCommand("LOCK TABLE deliveries IN EXCLUSIVE MODE", connection, transaction);
            await command.ExecuteNonQueryAsync(Token);
            await Task.Delay(TimeSpan.FromSeconds(4), TimeProvider.System, Token);
            await transaction.RollbackAsync(Token);
        }

        await sending;
        Assert.Equal(0, (await bed.JudgeAsync()).Repeated);
    }

    private static async Task ResumedAsync(FaultBed bed, int acceptedBefore)
    {
        var back = TimeProvider.System.GetTimestamp();
        await bed.UntilAlertsAsync(Math.Min(Events, acceptedBefore + 10));
        Assert.InRange(TimeProvider.System.GetElapsedTime(back), TimeSpan.Zero, TimeSpan.FromSeconds(10));
    }
}
