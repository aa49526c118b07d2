using System.Globalization;
using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;
using PushRelay.Rig;

namespace PushRelay.Interop.Faults;

/// <summary>What APNs does, or the way to it: F23 to F35 of docs/faults.md.</summary>
[Collection(FaultTestGroup.Name)]
public sealed class ApnsFaultTests(FaultDatabase database)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F23_A_connection_that_fell_silent_while_idle_is_replaced_within_twenty_seconds()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { ApnsProxy = true });
        await bed.SendAsync(20);
        await bed.UntilAlertsAsync(20);

        bed.ApnsProxy!.FreezeOpen();
        var dropped = TimeProvider.System.GetTimestamp();
        var sending = bed.SendAsync(200, 10);

        await bed.UntilAlertsAsync(21);
        Assert.InRange(TimeProvider.System.GetElapsedTime(dropped), TimeSpan.Zero, TimeSpan.FromSeconds(20));
        await sending;
        await bed.JudgeAsync();
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F24_F25_F26_Goaways_resets_cut_answers_and_moving_limits_under_load_lose_nothing()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions
            {
                Devices = 200,
                Simulator = simulator => simulator with { Latency = TimeSpan.FromMilliseconds(2), Seed = 7 },
            }
        );
        ScriptRule[] rules =
        [
            new()
            {
                Rate = 0.01,
                Times = 10,
                Fault = ApnsFault.GoAway,
            },
            new()
            {
                Rate = 0.01,
                Times = 10,
                Fault = ApnsFault.GoAway,
                Processed = false,
            },
            new()
            {
                Rate = 0.01,
                Times = 10,
                Fault = ApnsFault.GoAwayTwice,
                ErrorCode = 2,
                Reason = "Shutdown",
            },
            new()
            {
                Rate = 0.01,
                Times = 10,
                Fault = ApnsFault.Refuse,
            },
            new()
            {
                Rate = 0.01,
                Times = 10,
                Fault = ApnsFault.Reset,
            },
            new()
            {
                Rate = 0.01,
                Times = 5,
                Fault = ApnsFault.CutAnswer,
            },
            new()
            {
                Rate = 0.01,
                Times = 5,
                Fault = ApnsFault.Abort,
            },
            new()
            {
                Rate = 0.02,
                Times = 20,
                Status = 500,
            },
        ];
        Array.ForEach(rules, bed.Simulator.AnswerNext);
        var sending = bed.SendAsync(1000, 200);
        foreach (var (accepted, streams) in ((int, int)[])[(200, 1), (400, 1000), (600, 10)])
        {
            await bed.UntilAlertsAsync(accepted);
            bed.Simulator.SetStreamsMax(streams);
        }

        await sending;
        // what was processed on a connection that then broke is asked for again, under its id
        await bed.JudgeAsync(new OracleTerms { RepeatedMax = 1000 });
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F27_An_APNs_that_never_answers_one_app_does_not_hold_up_another()
    {
        const string Other = "com.example.other";
        await using var silent = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions(), Token);
        silent.AnswerNext(
            new ScriptRule
            {
                Fault = ApnsFault.Stall,
                Processed = false,
                Times = int.MaxValue,
            }
        );
        var authority = Path.GetTempFileName();
        await File.WriteAllTextAsync(authority, silent.CaPem, Token);
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions
            {
                Devices = 60,
                Settings = settings =>
                {
                    var app = RelayNode.App(Other, silent.Endpoint);
                    app["Apns"]!["TrustedCertificateFile"] = authority;
                    settings["Apps"]!.AsArray().Add((JsonNode)app);
                    // what waits for the silent one ends by its time
                    settings["Alerts"] = new JsonObject { ["TimeToLive"] = "00:01:00" };
                },
            }
        );
        // devices 30 and following move to the other app
        var moved = string.Join(", ", Enumerable.Range(30, 30).Select(device => $"'{Rehearsal.Account(device)}'"));
        await bed.Ledger.ScalarAsync($"UPDATE devices SET app = '{Other}', lane = '{Other}/apns' WHERE account IN ({moved})", Token);
        var sent = TimeProvider.System.GetTimestamp();

        await bed.SendAsync(300, 50);

        await bed.UntilAlertsAsync(150);
        Assert.InRange(TimeProvider.System.GetElapsedTime(sent), TimeSpan.Zero, TimeSpan.FromSeconds(12));
        var verdict = await bed.JudgeAsync(OracleTerms.Ending(DeliveryStateNumber.Accepted, DeliveryStateNumber.Expired));
        Assert.Equal((150, 150), (verdict.Ends["accepted/offline"], verdict.Ends["expired/ttl"]));
        File.Delete(authority);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F28_A_storm_of_503_is_waited_out_with_few_requests_and_what_waited_goes_out_after()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Devices = 300 });
        bed.Simulator.AnswerNext(503, times: int.MaxValue);
        var sending = bed.SendAsync(1500, 50);
        await Task.Delay(TimeSpan.FromSeconds(20), TimeProvider.System, Token);
        var during = bed.Alerts.Snapshot().Length;
        var due = bed.Peer.Events;

        bed.Simulator.ClearScript();
        var healed = TimeProvider.System.GetTimestamp();

        Assert.InRange(during, 1, due);
        await bed.UntilAlertsAsync(due);
        Assert.InRange(TimeProvider.System.GetElapsedTime(healed), TimeSpan.Zero, TimeSpan.FromSeconds(60));
        await sending;
        Assert.Equal(0, (await bed.JudgeAsync()).Repeated);
    }

    [Fact]
    public async Task F29_Too_many_requests_for_one_device_delay_that_device_only()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Settings = settings => settings["Dispatch"]!["MaxAttempts"] = 20 }
        );
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Token = Rehearsal.Token(0),
                Status = 429,
                RetryAfter = "3",
                Times = 2,
            }
        );
        var sent = TimeProvider.System.GetTimestamp();

        await bed.SendAsync(80);

        await bed.UntilAlertsAsync(78);
        Assert.InRange(TimeProvider.System.GetElapsedTime(sent), TimeSpan.Zero, TimeSpan.FromSeconds(10));
        await bed.JudgeAsync();
        Assert.DoesNotContain(bed.Alerts.Snapshot(), a => a.Device != 0 && a.Status != 200);
        Assert.InRange(TimeProvider.System.GetElapsedTime(sent), TimeSpan.FromSeconds(3), FaultBed.Patience);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F30_Two_nodes_and_ten_restarts_show_APNs_one_provider_token()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions
            {
                Cluster = await database.GetAsync(),
                Nodes = 2,
                Simulator = simulator => simulator with { ProviderTokensMax = 1 },
            }
        );
        long inFlight = 0;
        for (var restart = 0; restart < 10; restart++)
        {
            await bed.SendAsync(20);
            await bed.UntilAlertsAsync(20 * (restart + 1));
            var node = bed.Nodes[restart % 2];
            await node.KillAsync();
            inFlight += await bed.Ledger.SendingRowsAsync(Token);
            await bed.RestartAsync(restart % 2);
        }

        await bed.JudgeAsync(new OracleTerms { RepeatedMax = inFlight });
        Assert.Equal(1, bed.Simulator.ProviderTokensSeen);
        Assert.DoesNotContain(bed.Alerts.Snapshot(), a => a.Status == 429);
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F31_A_clock_that_is_two_hours_off_and_steps_holds_nothing_up()
    {
        var clock = Path.GetTempFileName();
        await File.WriteAllTextAsync(clock, "-2h", Token);
        try
        {
            await using var bed = await FaultBed.StartAsync(
                new FaultBedOptions
                {
                    Cluster = await database.GetAsync(),
                    Nodes = 2,
                    ClockFile = clock,
                }
            );
            var began = TimeProvider.System.GetTimestamp();
            string[] steps = ["-2h", "+2h", "+0", "-30m"];
            for (var step = 0; step < steps.Length; step++)
            {
                await File.WriteAllTextAsync(clock, steps[step], Token);
                await bed.SendAsync(50);
                await bed.UntilAlertsAsync(50 * (step + 1));
            }

            Assert.True(TimeProvider.System.GetElapsedTime(began) < FaultBed.Lease, "something waited for a lease to end");
            await bed.JudgeAsync();
            Assert.Contains("This machine's clock differs from Apple's by ", bed.Relay.Log(), StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(clock);
        }
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F32_Credentials_that_are_refused_hold_everything_without_cost_until_they_are_good_again()
    {
        await using var bed = await FaultBed.StartAsync(
            new FaultBedOptions { Settings = settings => settings["Dispatch"]!["MaxAttempts"] = 2 }
        );
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Status = 403,
                Reason = "InvalidProviderToken",
                Times = int.MaxValue,
            }
        );
        await bed.SendAsync(100);
        await bed.AcknowledgedAsync();
        await Task.Delay(TimeSpan.FromSeconds(10), TimeProvider.System, Token);
        Assert.Equal(100, await bed.Ledger.OpenRowsAsync(Token));

        bed.Simulator.ClearScript();

        await bed.JudgeAsync();
        Assert.Contains("tokens_refused", bed.Relay.Log(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task F33_F34_A_token_survives_a_refusal_older_than_its_registration_and_no_newer_one()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Devices = 2 });
        var now = TimeProvider.System.GetUtcNow();
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Token = Rehearsal.Token(0),
                Status = 410,
                Timestamp = now.AddHours(-1),
                Times = 1,
            }
        );
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Token = Rehearsal.Token(1),
                Status = 410,
                Timestamp = now.AddHours(1),
                Times = 1,
            }
        );

        await bed.SendAsync(2);
        await bed.AcknowledgedAsync();
        await bed.Ledger.DrainedAsync(FaultBed.Patience, Token);
        var dead = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
        await bed.SendAsync(2);

        var verdict = await bed.JudgeAsync(
            OracleTerms.Ending(DeliveryStateNumber.Accepted, DeliveryStateNumber.Rejected, DeliveryStateNumber.Suppressed) with
            {
                DeadDevices = new Dictionary<int, long> { [1] = dead },
            }
        );
        Assert.Equal(
            (2, 1, 1),
            (verdict.Ends["accepted/offline"], verdict.Ends["rejected/apns_Unregistered"], verdict.Ends["suppressed/device_invalid"])
        );
    }

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task F35_When_every_token_of_an_app_is_bad_the_setting_is_doubted_and_not_the_tokens()
    {
        await using var bed = await FaultBed.StartAsync(new FaultBedOptions { Devices = 60 });
        bed.Simulator.AnswerNext(
            new ScriptRule
            {
                Status = 400,
                Reason = "BadDeviceToken",
                Times = int.MaxValue,
            }
        );
        for (var sent = 10; sent <= 60; sent += 10)
        {
            await bed.SendAsync(10);
            await bed.AcknowledgedAsync();
        }

        await FaultBed.UntilAsync(
            () => Task.FromResult(bed.Relay.Log().Contains("tokens_refused", StringComparison.Ordinal)),
            "the operator is told"
        );
        bed.Simulator.ClearScript();

        var verdict = await bed.JudgeAsync(OracleTerms.Ending(DeliveryStateNumber.Accepted, DeliveryStateNumber.Rejected));
        // what was in flight when the doubt arose may still have been believed
        var invalid = Convert.ToInt32(
            await bed.Ledger.ScalarAsync("SELECT count(*) FROM devices WHERE status = 1", Token),
            CultureInfo.InvariantCulture
        );
        Assert.InRange(invalid, 1, 30);
        Assert.Equal((60 - invalid, invalid), (verdict.Ends["accepted/offline"], verdict.Ends["rejected/apns_BadDeviceToken"]));
    }
}
