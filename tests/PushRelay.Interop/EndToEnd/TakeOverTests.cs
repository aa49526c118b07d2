using System.Globalization;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;
using PushRelay.Tests.Storage;

namespace PushRelay.Interop.EndToEnd;

/// <summary>
/// Two relays on one PostgreSQL and one real server, which would give the link to both: one has it, and what the server holds when that
/// one dies goes to the other.
/// </summary>
public sealed class TakeOverTests(PostgreSqlServer postgreSql) : IAsyncLifetime
{
    private const string Bob = "bob@" + ProsodyServer.Host;
    private const string Alice = "alice@" + ProsodyServer.Host;
    private const string Linked = "is linked to the server";

    private readonly string token = Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32));
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-two-").FullName;
    private readonly List<IAsyncDisposable> running = [];
    private ApnsSimulator apns = null!;
    private RelayProcess first = null!;
    private RelayProcess second = null!;
    private XmppClient alice = null!;

    public static TheoryData<string> Servers => ["prosody", "ejabberd"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() =>
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [RelayProcess.App] }, Token);

    public async ValueTask DisposeAsync()
    {
        for (var i = running.Count - 1; i >= 0; i--)
        {
            await running[i].DisposeAsync();
        }

        await apns.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Killed_the_other_connects_within_a_lease_and_nothing_is_lost(string server)
    {
        await StartAsync(server);
        await alice.SendAsync(Bob, "before", "m1");
        await second.WaitForAsync(Bob, "m1", "accepted");

        await first.KillAsync();
        var killed = TimeProvider.System.GetTimestamp();
        var ids = Enumerable.Range(2, 20).Select(i => $"m{i.ToString(CultureInfo.InvariantCulture)}").ToList();
        foreach (var id in ids)
        {
            await alice.SendAsync(Bob, "meanwhile", id);
        }

        await second.LoggedAsync(Linked, Token);
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{server}: linked {TimeProvider.System.GetElapsedTime(killed).TotalSeconds:0.0} s after the kill"
        );
        await second.UntilAsync(
            async () =>
            {
                var sent = (await second.DeliveriesAsync(Bob))
                    .Where(r => (string?)r["state"] is "accepted" or "coalesced")
                    .Select(r => (string?)r["event"]!["id"]);
                return !ids.Except(sent).Any();
            },
            "all of them are sent, some as one alert",
            Token
        );

        await IsOnceEachAsync(second, ["m1", .. ids]);
        Assert.Equal("background", await second.StateOfAsync(Bob));
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Standing_still_for_longer_than_its_lease_it_commits_nothing_when_it_goes_on_and_leaves_the_link_to_the_other(
        string server
    )
    {
        await StartAsync(server);
        await first.SignalAsync("STOP", Token);
        await alice.SendAsync(Bob, "meanwhile", "m1");
        await second.WaitForAsync(Bob, "m1", "accepted");

        await first.SignalAsync("CONT", Token);
        // told by its lease, or by the server that the other's link has pushed out
        await first.LoggedAsync("stands by", Token);
        await alice.SendAsync(Bob, "afterwards", "m2");
        await second.WaitForAsync(Bob, "m2", "accepted");

        await IsOnceEachAsync(second, ["m1", "m2"]);
        Assert.Equal(1, second.Log.Split(Linked).Length - 1);
        Assert.Equal("background", await first.StateOfAsync(Bob));
    }

    [Fact]
    public async Task Stopped_in_order_it_gives_the_link_back_at_once()
    {
        await StartAsync("prosody");
        var stopped = TimeProvider.System.GetTimestamp();

        Assert.Equal(0, await first.TerminateAsync(Token));
        await second.LoggedAsync(Linked, Token);

        TestContext.Current.TestOutputHelper?.WriteLine(
            $"linked {TimeProvider.System.GetElapsedTime(stopped).TotalSeconds:0.0} s after the stop"
        );
        await alice.SendAsync(Bob, "afterwards", "m1");
        await second.WaitForAsync(Bob, "m1", "accepted");
    }

    /// <summary>Both relays run, the first has the link; Bob's app is in the background.</summary>
    private async Task StartAsync(string server)
    {
        var modules = Path.Combine(AppContext.BaseDirectory, "modules", server);
        int c2s,
            component;
        if (server == "prosody")
        {
            // its configuration says component_conflict_resolve = "kick_old"
            var prosody = Keep(await ProsodyServer.StartAsync(modules, Token));
            (c2s, component) = (prosody.C2sPort, prosody.ComponentPort);
        }
        else
        {
            var ejabberd = Keep(await EjabberdServer.StartAsync(modules, Token));
            (c2s, component) = (ejabberd.C2sPort, ejabberd.ComponentPort);
        }

        string[] settings =
        [
            "--Storage:Provider=PostgreSql",
            $"--Storage:ConnectionString={await postgreSql.NewDatabaseAsync(Token)}",
            $"--Storage:MasterKeyFile={folder}/master.key",
        ];
        first = Keep(await RelayProcess.StartAsync(apns, component, ProsodyServer.Host, ProsodyServer.Component, Token, settings));
        second = Keep(await RelayProcess.StartAsync(apns, component, ProsodyServer.Host, ProsodyServer.Component, Token, settings));
        await second.LoggedAsync("this one stands by", Token);
        alice = Keep(await XmppClient.LoginAsync(Alice + "/desk", c2s, streamManagement: false, Token));
        await first.RegisterAsync(Bob, token);
        var bob = Keep(await XmppClient.LoginAsync(Bob + "/phone", c2s, streamManagement: false, Token));
        await bob.PresenceAsync();
        await bob.InactiveAsync();
        foreach (var relay in (RelayProcess[])[first, second])
        {
            await relay.UntilAsync(async () => await relay.StateOfAsync(Bob) == "background", "Bob is in the background", Token);
        }
    }

    private T Keep<T>(T started)
        where T : IAsyncDisposable
    {
        running.Add(started);
        return started;
    }

    private static async Task IsOnceEachAsync(RelayProcess relay, IReadOnlyCollection<string> ids) =>
        Assert.Equal(
            ids.Order(StringComparer.Ordinal),
            (await relay.DeliveriesAsync(Bob)).Select(row => (string)row["event"]!["id"]!).Order(StringComparer.Ordinal)
        );
}
