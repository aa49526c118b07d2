using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

public sealed class LossOnProsodyTests() : LossTests("Prosody");

public sealed class LossOnEjabberdTests() : LossTests("ejabberd");

/// <summary>
/// Whatever dies or stands still in the middle of thousands of messages: each is in the ledger exactly once. Real server, real
/// relay, real signals. PUSHRELAY_SLOW_TESTS=1 makes the long silences as long as docs/bridge.md says.
/// </summary>
public abstract class LossTests(string kind) : IAsyncLifetime
{
    private const int Messages = 2500;
    private const string Bob = "bob@" + XmppServer.Host;
    private const string Alice = "alice@" + XmppServer.Host;

    private static readonly bool IsSlow = Environment.GetEnvironmentVariable("PUSHRELAY_SLOW_TESTS") == "1";

    /// <summary>The machine may be five times slower.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(4);

    private ApnsSimulator apns = null!;
    private XmppServer server = null!;
    private LinkCutter link = null!;
    private RelayProcess relay = null!;
    private XmppClient alice = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [RelayProcess.App] }, Token);
        server = await XmppServer.OfKindAsync(kind, Token);
        link = new LinkCutter(server.ComponentPort);
        relay = await RelayProcess.StartAsync(apns, link.Port, XmppServer.Host, XmppServer.Component, Token);
        alice = await XmppClient.LoginAsync(Alice + "/desk", server.C2sPort, streamManagement: false, Token);
        await relay.RegisterAsync(Bob, new string('a', 64));
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await alice.DisposeAsync();
        await relay.DisposeAsync();
        await link.DisposeAsync();
        await server.DisposeAsync();
        await apns.DisposeAsync();
    }

    [Fact]
    public async Task The_relay_is_killed_and_started_again()
    {
        var flood = alice.FloodAsync(Bob, "m", Messages);
        await SomeAreThereAsync(1);

        await relay.KillAsync();
        await flood;
        await relay.StartAsync(Token);

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_relay_stands_still_and_goes_on()
    {
        var flood = alice.FloodAsync(Bob, "m", Messages);
        await SomeAreThereAsync(1);

        await relay.PauseAsync(Token);
        await flood;
        await Task.Delay(TimeSpan.FromSeconds(IsSlow ? 60 : 15), TimeProvider.System, Token);
        await relay.ContinueAsync(Token);

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_link_is_cut_in_the_middle_again_and_again()
    {
        var flood = alice.FloodAsync(Bob, "m", Messages);
        for (var cuts = 1; cuts <= 4; cuts++)
        {
            await SomeAreThereAsync(cuts * Messages / 20);
            link.Cut();
        }

        await flood;

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_module_is_reloaded_under_load()
    {
        var flood = alice.FloodAsync(Bob, "m", Messages);
        for (var reloads = 1; reloads <= 3; reloads++)
        {
            await SomeAreThereAsync(reloads * Messages / 20);
            await server.ReloadModuleAsync(Token);
        }

        await flood;

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_server_is_killed_and_what_the_relay_had_is_there_once_and_what_comes_after()
    {
        var flood = alice.FloodAsync(Bob, "m", Messages);
        await SomeAreThereAsync(Messages / 10);

        await server.KillAsync();
        var before = await relay.MessageIdsAsync(Bob);
        await alice.DisposeAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => flood);
        await server.RestartAsync(Token);
        alice = await XmppClient.LoginAsync(Alice + "/desk", server.C2sPort, streamManagement: false, Token);
        await alice.FloodAsync(Bob, "n", Messages);

        await EachIsThereOnceAsync("n", Messages);
        var after = await relay.MessageIdsAsync(Bob);
        Assert.Equal(after.Count, after.Distinct().Count());
        Assert.Subset(after.ToHashSet(), before.ToHashSet());
    }

    private async Task SomeAreThereAsync(int count)
    {
        var since = TimeProvider.System.GetTimestamp();
        while ((await relay.MessageIdsAsync(Bob)).Count < count)
        {
            Assert.True(TimeProvider.System.GetElapsedTime(since) < Patience, $"{count} messages did not reach the ledger.\n{relay.Log}");
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, Token);
        }
    }

    private async Task EachIsThereOnceAsync(string prefix, int count)
    {
        var since = TimeProvider.System.GetTimestamp();
        List<string> ids;
        while ((ids = [.. (await relay.MessageIdsAsync(Bob)).Where(id => id.StartsWith(prefix, StringComparison.Ordinal))]).Count < count)
        {
            Assert.True(
                TimeProvider.System.GetElapsedTime(since) < Patience,
                $"{count - ids.Distinct().Count()} of {count} messages are missing.\n{relay.Log}\n{server.Log[^Math.Min(server.Log.Length, 4000)..]}");
            await Task.Delay(TimeSpan.FromMilliseconds(500), TimeProvider.System, Token);
        }

        Assert.Equal(Enumerable.Range(0, count).Select(n => $"{prefix}{n}").Order(), ids.Order());
    }
}
