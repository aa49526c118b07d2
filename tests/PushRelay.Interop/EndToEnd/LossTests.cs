using PushRelay.Apns.Simulator;
using PushRelay.Interop.Faults;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

public sealed class LossOnProsodyTests() : LossTests("Prosody");

// five to ten minutes: ejabberd takes the messages of one sender slowly
[Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
public sealed class LossOnEjabberdTests() : LossTests("ejabberd");

/// <summary>
/// Whatever dies or stands still while thousands of messages are not acknowledged: each is in the ledger exactly once. Real server,
/// real relay, real signals. What the server has processed is what it acknowledged to its sender (XEP-0198), what the relay has is
/// what it acknowledged on the wire; between the two, in the module's queue or under way, are at least <see cref="InFlightMin"/> at
/// every fault. PUSHRELAY_SLOW_TESTS=1 makes the long silences as long as docs/bridge.md says.
/// </summary>
public abstract class LossTests(string kind) : IAsyncLifetime
{
    private const int Messages = 3000;
    private const int InFlightMin = 2000;

    /// <summary>Of the server's, before the link stands still: one stanza of a hundred messages at least, some 250 messages at
    /// most.</summary>
    private const int SomeBytes = 48 * 1024;

    /// <summary>Each lets some 250 messages through: <see cref="InFlightMin"/> must be left at the last.</summary>
    private const int CutsMax = 3;

    private const string Bob = "bob@" + XmppServer.Host;
    private const string Alice = "alice@" + XmppServer.Host;

    private static readonly bool IsSlow = Environment.GetEnvironmentVariable("PUSHRELAY_SLOW_TESTS") == "1";

    /// <summary>The machine may be five times slower.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(4);

    private ApnsSimulator apns = null!;
    private XmppServer server = null!;
    private LinkCutter link = null!;
    private RelayProcess relay = null!;
    private WireClient alice = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private int InFlight => alice.Processed - link.Acknowledged;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [RelayProcess.App] }, Token);
        server = await XmppServer.OfKindAsync(kind, Token);
        link = new LinkCutter(server.ComponentPort);
        relay = await RelayProcess.StartAsync(apns, link.Port, XmppServer.Host, XmppServer.Component, Token);
        alice = await WireClient.LoginAsync(Alice + "/desk", server.C2sPort);
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
        var flood = FloodAsync();
        await ThousandsAreInFlightAsync(acknowledged: 1);

        await relay.KillAsync();
        TheyStillAre();
        link.Release();
        await flood;
        await relay.StartAsync(Token);

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_relay_stands_still_and_goes_on()
    {
        var flood = FloodAsync();
        await ThousandsAreInFlightAsync(acknowledged: 1);

        await relay.PauseAsync(Token);
        link.Release();
        await flood;
        await Task.Delay(TimeSpan.FromSeconds(IsSlow ? 60 : 15), TimeProvider.System, Token);
        TheyStillAre();
        await relay.ContinueAsync(Token);

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_link_is_cut_in_the_middle_again_and_again()
    {
        var flood = FloodAsync();
        for (var cuts = 1; cuts <= CutsMax; cuts++)
        {
            await ThousandsAreInFlightAsync(acknowledged: link.Acknowledged + 1);
            TheyStillAre();
            link.Cut();
            link.Hold(SomeBytes);
        }

        link.Release();
        await flood;

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_module_is_reloaded_under_load()
    {
        var flood = FloodAsync();
        for (var reloads = 1; reloads <= 3; reloads++)
        {
            await ThousandsAreInFlightAsync(acknowledged: reloads == 1 ? 1 : 0);
            await server.ReloadModuleAsync(Token);
            TheyStillAre();
        }

        link.Release();
        await flood;

        await EachIsThereOnceAsync("m", Messages);
    }

    [Fact]
    public async Task The_server_is_killed_and_only_what_was_in_the_memory_of_its_module_is_not_alerted()
    {
        var flood = FloodAsync();
        await ThousandsAreInFlightAsync(acknowledged: 1);

        await server.KillAsync();
        TheyStillAre();
        var (processed, inFlight) = (alice.Processed, InFlight);
        link.Release();
        await alice.DisposeAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => flood);
        await server.RestartAsync(Token);
        alice = await WireClient.LoginAsync(Alice + "/desk", server.C2sPort);
        await alice.FloodAsync(Bob, "n", Messages);

        await EachIsThereOnceAsync("n", Messages);
        var ids = await relay.MessageIdsAsync(Bob);
        Assert.Equal(ids.Count, ids.Distinct().Count());
        var lost = Enumerable.Range(0, processed).Select(n => $"m{n}").Except(ids).ToList();
        // the newest and no other: what the module had not written to its socket yet
        Assert.InRange(lost.Count, 0, inFlight);
        Assert.Equal(Enumerable.Range(processed - lost.Count, lost.Count).Select(n => $"m{n}"), lost);
        await using var bob = await WireClient.LoginAsync(Bob + "/phone", server.C2sPort);
        var offline = await bob.ReceiveUntilAsync($"n{Messages - 1}");
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"{kind}: {processed} acknowledged to the sender, {inFlight} of them not by the relay; of these {lost.Count} not alerted, "
                + $"{lost.Except(offline).Count()} of them not put aside by the server either"
        );
    }

    /// <summary>Starts the messages on their way; the link takes the first of them only.</summary>
    private Task FloodAsync()
    {
        link.Hold(SomeBytes);
        return alice.FloodAsync(Bob, "m", Messages);
    }

    /// <summary>Waits until the relay has some, and so many more are not with it.</summary>
    private async Task ThousandsAreInFlightAsync(int acknowledged)
    {
        var since = TimeProvider.System.GetTimestamp();
        while (InFlight < InFlightMin || link.Acknowledged < acknowledged)
        {
            Assert.True(
                TimeProvider.System.GetElapsedTime(since) < Patience,
                $"{alice.Processed} were sent, {link.Acknowledged} acknowledged.\n{relay.Log}"
            );
            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, Token);
        }
    }

    private void TheyStillAre() => Assert.InRange(InFlight, InFlightMin, Messages);

    private async Task EachIsThereOnceAsync(string prefix, int count)
    {
        var since = TimeProvider.System.GetTimestamp();
        List<string> ids;
        while ((ids = [.. (await relay.MessageIdsAsync(Bob)).Where(id => id.StartsWith(prefix, StringComparison.Ordinal))]).Count < count)
        {
            Assert.True(
                TimeProvider.System.GetElapsedTime(since) < Patience,
                $"{count - ids.Distinct().Count()} of {count} messages are "
                    + $"missing.\n{relay.Log}\n{server.Log[^Math.Min(server.Log.Length, 4000)..]}"
            );
            await Task.Delay(TimeSpan.FromMilliseconds(500), TimeProvider.System, Token);
        }

        Assert.Equal(Enumerable.Range(0, count).Select(n => $"{prefix}{n}").Order(), ids.Order());
    }
}
