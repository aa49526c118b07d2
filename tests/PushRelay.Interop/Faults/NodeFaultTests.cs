using PushRelay.Rig;

namespace PushRelay.Interop.Faults;

/// <summary>What happens to the relay's own process: F1 to F10 of docs/faults.md.</summary>
[Collection(FaultTestGroup.Name)]
public sealed class NodeFaultTests(FaultDatabase database)
{
    private static readonly TimeSpan LeaseAndAHalf = FaultBed.Lease * 1.5;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public Task F1_Killed_at_a_random_moment_under_load_on_SQLite() => KilledAsync(kills: 1, postgreSql: false);

    [Theory]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    [InlineData(true)]
    [InlineData(false)]
    public Task F1_Killed_again_and_again_under_load(bool postgreSql) => KilledAsync(kills: 4, postgreSql);

    [Fact]
    public Task F2_Killed_after_the_answer_before_it_is_stored_the_alert_is_sent_again_under_its_id() =>
        KilledAtAsync("after_provider_200", repeated: 1);

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public Task F3_Killed_after_the_claim_before_the_request_the_alert_is_sent_once() => KilledAtAsync("after_claim", repeated: 0);

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F4_Killed_after_the_commit_before_the_acknowledgement_the_replay_makes_no_second_row()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Devices = 5, Failpoint = "before_ack=kill" });
        await bed.SendAsync(5);
        await bed.Relay.ExitAsync(Token);
        Assert.Equal(5, await bed.Ledger.CountAsync("1 = 1", Token));
        Assert.Equal(0, bed.Peer.EventsAcknowledged);
        var sending = await bed.Ledger.SendingRowsAsync(Token);

        await bed.RestartAsync();

        await bed.JudgeAsync(new OracleTerms { RepeatedMax = sending });
    }

    [Theory]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    [InlineData(true)]
    [InlineData(false)]
    public async Task F5_Killed_within_a_settlement_all_of_the_batch_is_settled_or_none(bool postgreSql)
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Cluster = postgreSql ? await database.GetAsync() : null, Failpoint = "mid_settle=kill" }
        );
        await bed.SendAsync(40);
        await bed.Relay.ExitAsync(Token);
        // it was the first settlement
        Assert.Equal(0, await bed.Ledger.CountAsync("state = 2", Token));
        var sending = await bed.Ledger.SendingRowsAsync(Token);

        await bed.RestartAsync();

        await bed.JudgeAsync(new OracleTerms { RepeatedMax = sending });
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F6_Stopped_for_longer_than_its_leases_the_other_node_sends_and_it_settles_nothing_after()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions
            {
                Cluster = await database.GetAsync(),
                Nodes = 2,
                Simulator = simulator => simulator with { Latency = TimeSpan.FromSeconds(1) },
            }
        );
        var sending = bed.SendAsync(200, 100);
        await FaultBed.UntilAsync(async () => await bed.Ledger.SendingRowsAsync(Token) > 0, "something is in flight");
        bed.Relay.Signal("STOP");
        await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, Token);
        var held = await bed.Ledger.SendingRowsAsync(Token);
        var stopped = TimeProvider.System.GetTimestamp();

        await FaultBed.UntilAsync(
            async () => await bed.Ledger.OpenRowsAsync(Token) == 0,
            "the other node has sent what the stopped one held"
        );
        Assert.InRange(TimeProvider.System.GetElapsedTime(stopped), TimeSpan.Zero, TimeSpan.FromSeconds(35));
        var remaining = LeaseAndAHalf - TimeProvider.System.GetElapsedTime(stopped);
        await Task.Delay(remaining > TimeSpan.Zero ? remaining : TimeSpan.Zero, TimeProvider.System, Token);
        bed.Relay.Signal("CONT");

        await sending;
        var verdict = await bed.JudgeAsync(new OracleTerms { RepeatedMax = held });
        Assert.InRange(verdict.Repeated, 0, held);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F7_Hanging_between_the_look_at_the_lease_and_the_request_one_alert_at_most_goes_out_by_the_other_node()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions
            {
                Cluster = await database.GetAsync(),
                Nodes = 2,
                Failpoint = "before_send=hang",
            }
        );

        await bed.SendAsync(40);

        await bed.JudgeAsync(new OracleTerms { RepeatedMax = 1 });
    }

    [Fact]
    public async Task F8_Terminated_under_load_it_ends_in_order_and_nothing_goes_out_twice()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Simulator = simulator => simulator with { Latency = TimeSpan.FromMilliseconds(200) } }
        );
        var sending = bed.SendAsync(200, 100);
        await bed.UntilAlertsAsync(20);
        var asked = TimeProvider.System.GetTimestamp();

        Assert.Equal(0, await bed.Relay.TerminateAsync(Token));

        Assert.InRange(TimeProvider.System.GetElapsedTime(asked), TimeSpan.Zero, TimeSpan.FromSeconds(10));
        Assert.Equal(0, await bed.Ledger.SendingRowsAsync(Token));
        await bed.RestartAsync();
        await sending;
        Assert.Equal(0, (await bed.JudgeAsync()).Repeated);
        Assert.Equal(0, await bed.Ledger.CountAsync("attempts > 1", Token));
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F9_A_row_that_fails_every_time_ends_as_dead_and_holds_up_no_other()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Settings = settings => settings["Dispatch"]!["MaxAttempts"] = 2 }
        );
        // what is sealed for another row cannot be opened
        await bed.Ledger.ScalarAsync(
            $"UPDATE devices SET tokens = (SELECT tokens FROM devices WHERE account = '{Rehearsal.Account(1)}') WHERE account = "
                + $"'{Rehearsal.Account(0)}'",
            Token
        );
        var sent = TimeProvider.System.GetTimestamp();

        await bed.SendAsync(40);

        await bed.UntilAlertsAsync(39);
        Assert.InRange(TimeProvider.System.GetElapsedTime(sent), TimeSpan.Zero, FaultBed.Lease);
        var verdict = await bed.JudgeAsync(OracleTerms.Ending(DeliveryStateNumber.Accepted, DeliveryStateNumber.Dead));
        Assert.Equal((39, 1), (verdict.Ends["accepted/offline"], verdict.Ends["dead/attempts_exhausted"]));
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F10_Two_nodes_share_a_backlog_and_each_alert_goes_out_once()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = await database.GetAsync(), Nodes = 2 });
        bed.Simulator.AnswerNext(503, times: 1_000_000);
        await bed.SendAsync(200);
        await bed.AcknowledgedAsync();

        bed.Simulator.ClearScript();

        Assert.Equal(0, (await bed.JudgeAsync()).Repeated);
    }

    private async Task KilledAsync(int kills, bool postgreSql)
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Cluster = postgreSql ? await database.GetAsync() : null });
        var random = new Random(TestContext.Current.Test!.UniqueID.GetHashCode(StringComparison.Ordinal));
        var sending = bed.SendAsync(300, 100);
        long inFlight = 0;
        for (var kill = 1; kill <= kills; kill++)
        {
            await bed.UntilAlertsAsync(300 * kill / (kills + 1));
            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(200)), TimeProvider.System, Token);
            await bed.Relay.KillAsync();
            inFlight += await bed.Ledger.SendingRowsAsync(Token);
            await bed.RestartAsync();
        }

        await sending;
        await bed.AcknowledgedAsync();
        var acknowledged = TimeProvider.System.GetTimestamp();
        await bed.JudgeAsync(new OracleTerms { RepeatedMax = inFlight });
        Assert.InRange(TimeProvider.System.GetElapsedTime(acknowledged), TimeSpan.Zero, TimeSpan.FromSeconds(35));
    }

    private static async Task KilledAtAsync(string failpoint, int repeated)
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Devices = 1, Failpoint = $"{failpoint}=kill" });
        await bed.SendAsync(1);
        await bed.Relay.ExitAsync(Token);
        Assert.Equal(repeated, bed.Accepted());
        var died = TimeProvider.System.GetTimestamp();

        await bed.RestartAsync();
        await bed.UntilAlertsAsync(repeated + 1);

        Assert.InRange(TimeProvider.System.GetElapsedTime(died), TimeSpan.Zero, TimeSpan.FromSeconds(35));
        var verdict = await bed.JudgeAsync(new OracleTerms { RepeatedMax = repeated });
        Assert.Equal(repeated, verdict.Repeated);
        Assert.Single(bed.Simulator.Received.Select(r => (r.Headers["apns-id"], r.Headers["apns-collapse-id"])).Distinct());
    }
}
