using PushRelay.Outbox;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push;

/// <summary>An app on two networks, of which one takes requests and answers none.</summary>
public sealed class StalledNetworkTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_network_that_answers_nothing_leaves_requests_to_the_apps_other_network()
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-network-").FullName;
        await using var jpush = new JPushSimulator();
        await using var fcm = new FcmSimulator();
        await jpush.StartAsync(Token);
        await fcm.StartAsync(Token);
        await using (
            var relay = await TestRelay.OpenAsync(
                null,
                [.. RigBed.Settings(folder, jpush), .. RigBed.Settings(folder, fcm), "--Dispatch:Concurrency=60"]
            )
        )
        {
            relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
            await relay.ServeAsync();
            jpush.AnswerNext(new AnswerRule { Fault = AnswerFault.Stall, Times = 1000 });
            for (var i = 0; i < 70; i++)
            {
                await RegisterAsync(relay, "jpush", $"u{i}@example.com", Guid.NewGuid().ToString("N")[..19]);
            }

            await RegisterAsync(relay, "fcm", TestRelay.Bob, $"fcm-token-{Guid.NewGuid():N}:APA91b");
            for (var i = 0; i < 70; i++)
            {
                await relay.CommitMessageAsync("waits", m => m with { Account = $"u{i}@example.com" });
            }

            await TestRelay.UntilAsync(() => Task.FromResult(jpush.InFlight == 50), () => $"{jpush.InFlight} in flight");
            await relay.CommitMessageAsync("hello");

            Assert.Equal(
                DeliveryState.Accepted,
                Assert.Single(await relay.WaitForRowsAsync(r => r.All(d => d.State == DeliveryState.Accepted))).State
            );
            Assert.Equal((1, 50), (fcm.Received.Count, jpush.InFlightMax));
        }

        Directory.Delete(folder, recursive: true);
    }

    private static async Task RegisterAsync(TestRelay relay, string platform, string account, string token)
    {
        var request = TestRelay.NewRegistration(account, token) with { Platform = platform, Environment = null };
        Assert.IsType<PushRelay.Devices.DeviceResult.Done>(await relay.RegisterAsync(request, Token));
    }
}
