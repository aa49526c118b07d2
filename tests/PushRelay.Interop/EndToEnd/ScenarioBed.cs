using System.Globalization;
using System.Text.Json.Nodes;
using PushRelay.Apns.Simulator;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

public sealed class ProsodyBed() : ScenarioBed("Prosody");

public sealed class EjabberdBed() : ScenarioBed("ejabberd");

[CollectionDefinition(nameof(ProsodyBed))]
public sealed class ProsodyScenarios : ICollectionFixture<ProsodyBed>;

[CollectionDefinition(nameof(EjabberdBed))]
public sealed class EjabberdScenarios : ICollectionFixture<EjabberdBed>;

/// <summary>One server, one relay and one APNs for many cases, each of which takes an account of its own.</summary>
public abstract class ScenarioBed(string kind, bool hasModule = true, params string[] settings) : IAsyncLifetime
{
    private WireClient? alice;
    private int used;
    private int messages;

    internal ApnsSimulator Apns { get; private set; } = null!;

    internal XmppServer Server { get; private set; } = null!;

    internal RelayProcess Relay { get; private set; } = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        Apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [RelayProcess.App] }, Token);
        Server = await XmppServer.OfKindAsync(kind, Token, hasModule);
        Relay = await RelayProcess.StartAsync(
            Apns,
            Server.ComponentPort,
            XmppServer.Host,
            XmppServer.Component,
            Token,
            [$"--Xmpp:Components:0:Servers:1={XmppServer.BriefHost}", .. settings]
        );
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (alice is not null)
        {
            await alice.DisposeAsync();
        }

        await Relay.DisposeAsync();
        await Server.DisposeAsync();
        await Apns.DisposeAsync();
    }

    /// <summary>Who writes; on a link of her own, which is made anew where the server closed it.</summary>
    internal async Task<WireClient> AliceAsync() => alice ??= await WireClient.LoginAsync($"alice@{XmppServer.Host}/desk", Server.C2sPort);

    /// <summary>The server is not there for a moment: her link ends with it.</summary>
    internal async Task ForgetAliceAsync()
    {
        await (alice?.DisposeAsync() ?? ValueTask.CompletedTask);
        alice = null;
    }

    /// <summary>One that no other case has had.</summary>
    internal string NextAccount() => string.Create(CultureInfo.InvariantCulture, $"u{used++}@{XmppServer.Host}");

    /// <summary>Somebody with a phone that is registered, and no session yet.</summary>
    /// <param name="resource">Of the session that the phone is tied to.</param>
    /// <param name="account">Null: one that no other case has had.</param>
    internal async Task<Person> PersonAsync(string? resource = null, string? account = null)
    {
        account ??= NextAccount();
        var token = Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32));
        return new Person(this, account, token, await Relay.RegisterAsync(account, token, resource));
    }

    /// <summary>An id that no other message has.</summary>
    internal string NextId() => string.Create(CultureInfo.InvariantCulture, $"m{messages++}");
}

/// <summary>Somebody who may be alerted, and what the relay and APNs know of it.</summary>
internal sealed class Person(ScenarioBed bed, string account, string token, JsonNode device) : IAsyncDisposable
{
    private readonly List<WireClient> clients = [];

    public string Account => account;

    public string Token => token;

    /// <summary>As the registration answered.</summary>
    public JsonNode Device => device;

    public IEnumerable<ReceivedNotification> Notifications => bed.Apns.Received.Where(n => n.DeviceToken == token);

    /// <param name="resource">Of the new session.</param>
    /// <param name="presence">Children of the first presence; null: none is sent.</param>
    public async Task<WireClient> LoginAsync(string resource = "phone", string? presence = "")
    {
        var client = await WireClient.LoginAsync($"{account}/{resource}", bed.Server.C2sPort, presence);
        clients.Add(client);
        return client;
    }

    /// <summary>A session whose link was lost and that can be resumed, as the relay knows.</summary>
    public async Task<WireClient> HibernateAsync()
    {
        var client = await (await LoginAsync()).EnableSmAsync();
        await SessionsAsync("phone active available 0");
        client.Cut();
        await SessionsAsync("phone hibernating available 0");
        return client;
    }

    public async Task<WireClient> ResumeAsync(WireClient lost)
    {
        var client = await WireClient.ResumeAsync(lost, bed.Server.C2sPort);
        clients.Add(client);
        return client;
    }

    /// <summary>Returns when the relay shows exactly these sessions at GET /v1/accounts/{account}.</summary>
    public Task SessionsAsync(params string[] sessions) => SessionsAsync(null, sessions);

    /// <param name="state">The account's.</param>
    /// <param name="sessions">Resource, state, whether available, priority, and show where there is one.</param>
    public async Task SessionsAsync(string? state, string[] sessions)
    {
        var shown = "";
        try
        {
            await bed.Relay.UntilAsync(
                async () =>
                {
                    var answer = await bed.Relay.GetAsync($"/v1/accounts/{Uri.EscapeDataString(account)}");
                    var found = answer["sessions"]!.AsArray().Select(s => Show(s!)).Order().ToList();
                    shown = $"{answer["state"]}: {string.Join(", ", found)}";
                    return found.SequenceEqual(sessions.Order()) && (state is null || (string?)answer["state"] == state);
                },
                $"{account} is {state} with {string.Join(", ", sessions)}",
                TestContext.Current.CancellationToken
            );
        }
        catch (Xunit.Sdk.XunitException e)
        {
            Assert.Fail($"The relay shows {shown}. {e.Message}");
        }
    }

    /// <summary>Waits for the alert of a message that stands in the ledger with that reason.</summary>
    /// <returns>Its payload.</returns>
    public async Task<JsonNode> AlertedAsync(string id, string reason)
    {
        var row = await bed.Relay.WaitForAsync(account, id, "accepted");
        Assert.Equal(reason, (string?)row["reason"]);
        return JsonNode.Parse(Assert.Single(Notifications, n => n.Headers["apns-id"] == (string?)row["id"]).Payload)!;
    }

    /// <summary>Waits for the row of a message that was withheld, because a session was in front.</summary>
    public async Task WithheldAsync(string id) =>
        Assert.Equal("foreground", (string?)(await bed.Relay.WaitForAsync(account, id, "suppressed"))["reason"]);

    /// <summary>
    /// Has the sender write, and waits for that row: the stream is in order, so whatever was to come of earlier stanzas is there. Then the
    /// ledger has just these messages and that one.
    /// </summary>
    public async Task NothingButAsync(WireClient sender, params string[] ids)
    {
        var last = bed.NextId();
        await sender.MessageAsync(account, "and now", last);
        await bed.Relay.UntilAsync(
            async () => (await bed.Relay.DeliveriesAsync(account)).Any(r => (string?)r["event"]!["id"] == last),
            $"{last} is in the ledger",
            TestContext.Current.CancellationToken
        );
        // what takes an alert away, or changes it, is a row of its own, of the same message
        var messages = (await bed.Relay.DeliveriesAsync(account)).Where(r => (string?)r["reason"] != "update");
        Assert.Equal([.. ids, last], messages.Select(r => (string?)r["event"]!["id"]).Distinct());
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var client in clients)
        {
            await client.DisposeAsync();
        }
    }

    private static string Show(JsonNode session)
    {
        var available = (bool)session["available"]! ? "available" : "unavailable";
        return $"{session["resource"]} {session["state"]} {available} {session["priority"]} {session["show"]}".Trim();
    }
}
