using System.Globalization;
using PushRelay.Interop.Servers;

namespace PushRelay.Interop.EndToEnd;

[Collection(nameof(ProsodyBed))]
public sealed class SessionsOnProsody(ProsodyBed bed) : SessionScenarios(bed);

[Collection(nameof(EjabberdBed))]
public sealed class SessionsOnEjabberd(EjabberdBed bed) : SessionScenarios(bed);

/// <summary>Each thing that can happen to a session: how the relay shows it, and what it means for the next message.</summary>
public abstract class SessionScenarios(ScenarioBed bed)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Bound_without_presence_is_background()
    {
        await using var bob = await bed.PersonAsync();
        await bob.LoginAsync(presence: null);
        await bob.SessionsAsync("background", ["phone active unavailable 0"]);

        await bob.AlertedAsync(await WriteAsync(bob), "background");
    }

    [Theory]
    [InlineData("", "phone active available 0")]
    [InlineData("<priority>7</priority>", "phone active available 7")]
    [InlineData("<show>dnd</show>", "phone active available 0 dnd")]
    public async Task Available_and_active_is_foreground(string presence, string shown)
    {
        await using var bob = await bed.PersonAsync();
        await bob.LoginAsync(presence: presence);
        await bob.SessionsAsync("foreground", [shown]);

        await bob.WithheldAsync(await WriteAsync(bob));

        Assert.Empty(bob.Notifications);
    }

    [Theory]
    [InlineData("<presence><priority>-1</priority></presence>", "phone active available -1")]
    [InlineData("<presence type='unavailable'/>", "phone active unavailable 0")]
    public async Task Connected_but_not_to_be_written_to_is_background(string presence, string shown)
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.LoginAsync();
        await client.SendAsync(presence);
        await bob.SessionsAsync("background", [shown]);

        await bob.AlertedAsync(await WriteAsync(bob), "background");
    }

    [Fact]
    public async Task Inactive_is_alerted_with_the_link_alive_and_active_is_not()
    {
        await using var bob = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await client.CsiAsync("inactive");
        await bob.SessionsAsync("background", ["phone inactive available 0"]);

        await bob.AlertedAsync(await WriteAsync(bob), "background");

        await client.ExpectAsync("message");
        await client.AckAsync();
        await client.CsiAsync("active");
        await bob.SessionsAsync("foreground", ["phone active available 0"]);
        await bob.WithheldAsync(await WriteAsync(bob));
    }

    [Fact]
    public async Task Inactive_and_not_answering_is_alerted_at_once_and_shown_as_hibernating()
    {
        await using var bob = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await client.CsiAsync("inactive");
        await bob.SessionsAsync("phone inactive available 0");

        var id = await WriteAsync(bob);

        await bob.AlertedAsync(id, "background");
        await bob.SessionsAsync("phone hibernating available 0");
        await client.ExpectAsync("message");
        await client.AckAsync();
        await bob.SessionsAsync("phone inactive available 0");
        await bob.NothingButAsync(await bed.AliceAsync(), id);
    }

    [Fact]
    public async Task An_active_client_whose_link_dies_without_a_word_is_alerted_once_it_hibernates()
    {
        await using var bob = await bed.PersonAsync();
        await (await bob.LoginAsync()).EnableSmAsync();
        await bob.SessionsAsync("phone active available 0");

        var id = await WriteAsync(bob);

        await bob.WithheldAsync(id);
        await bob.AlertedAsync(id, "unacked");
        await bob.SessionsAsync("background", ["phone hibernating available 0"]);
        Assert.Single(bob.Notifications);
    }

    [Fact]
    public async Task What_a_lost_link_left_unacknowledged_is_alerted_and_what_was_acknowledged_is_not()
    {
        await using var bob = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await bob.SessionsAsync("phone active available 0");
        var seen = await WriteAsync(bob);
        await client.ExpectAsync("message");
        await client.AckAsync();
        await client.SyncAsync();
        var lost = await WriteAsync(bob);
        await bob.WithheldAsync(lost);

        client.Cut();

        await bob.AlertedAsync(lost, "unacked");
        Assert.Equal([seen, lost, lost], (await bed.Relay.DeliveriesAsync(bob.Account)).Select(r => (string?)r["event"]!["id"]));
    }

    [Fact]
    public async Task Hibernating_is_alerted_once_and_resuming_repeats_nothing()
    {
        await using var bob = await bed.PersonAsync();
        var lost = await bob.HibernateAsync();
        var id = await WriteAsync(bob);
        await bob.AlertedAsync(id, "background");

        var client = await bob.ResumeAsync(lost);

        await bob.SessionsAsync("foreground", ["phone active available 0"]);
        await client.AckAsync();
        await bob.NothingButAsync(await bed.AliceAsync(), id);
        Assert.Single(bob.Notifications);
    }

    [Fact]
    public async Task Resumed_after_inactive_is_active()
    {
        await using var bob = await bed.PersonAsync();
        var lost = await (await bob.LoginAsync()).EnableSmAsync();
        await lost.CsiAsync("inactive");
        await bob.SessionsAsync("phone inactive available 0");
        lost.Cut();
        await bob.SessionsAsync("background", ["phone hibernating available 0"]);

        await bob.ResumeAsync(lost);

        await bob.SessionsAsync("foreground", ["phone active available 0"]);
    }

    [Fact]
    public async Task Metrics_tell_what_happened()
    {
        await using var bob = await bed.PersonAsync();
        await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");
        await bob.WithheldAsync(await WriteAsync(bob));
        await bob.HibernateAsync();
        await bob.AlertedAsync(await WriteAsync(bob), "background");
        await bed.Relay.GetAsync("/health/ready");

        using var open = new HttpClient { BaseAddress = bed.Relay.Client.BaseAddress };
        using var refused = await open.GetAsync("/metrics", Token);
        Assert.Equal(System.Net.HttpStatusCode.Unauthorized, refused.StatusCode);

        var lines = (await bed.Relay.Client.GetStringAsync("/metrics", Token)).Split('\n');
        foreach (
            var (name, labels) in new (string, string[])[]
            {
                ("pushrelay_events_total", ["source=\"bridge\"", "class=\"text\""]),
                (
                    "pushrelay_deliveries_total",
                    ["app=\"com.example.chat\"", "platform=\"apns\"", "state=\"suppressed\"", "reason=\"foreground\""]
                ),
                (
                    "pushrelay_deliveries_total",
                    ["app=\"com.example.chat\"", "platform=\"apns\"", "state=\"accepted\"", "reason=\"background\""]
                ),
                ("pushrelay_attempts_total", ["app=\"com.example.chat\"", "platform=\"apns\"", "status=\"200\"", "reason=\"\""]),
                ("pushrelay_attempt_duration_seconds_count", ["app=\"com.example.chat\"", "platform=\"apns\""]),
                ("pushrelay_event_to_accepted_seconds_bucket", ["app=\"com.example.chat\"", "le=\"300\""]),
                ("pushrelay_sessions", [$"server=\"{XmppServer.Host}\"", "state=\"hibernating\""]),
                ("pushrelay_devices", ["app=\"com.example.chat\"", "platform=\"apns\"", "status=\"active\""]),
                ("pushrelay_registrations_total", ["door=\"operator\"", "result=\"created\""]),
                ("pushrelay_component_connected", [$"domain=\"{XmppServer.Component}\""]),
                ("pushrelay_build_info", ["version=\"0.1.0\""]),
            }
        )
        {
            var found = lines.SingleOrDefault(l =>
                l.StartsWith(name + "{", StringComparison.Ordinal) && labels.All(label => l.Contains(label, StringComparison.Ordinal))
            );
            Assert.True(found is not null, $"{name} {string.Join(", ", labels)} is not in:\n{string.Join('\n', lines)}");
            Assert.True(double.Parse(found.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture) >= 1, found);
        }

        foreach (
            var name in (string[])
                [
                    "pushrelay_outbox_pending",
                    "pushrelay_outbox_oldest_pending_seconds",
                    "pushrelay_clock_skew_seconds",
                    "pushrelay_bridge_gaps_total",
                ]
        )
        {
            Assert.Contains(
                lines,
                l => l.StartsWith(name + "{", StringComparison.Ordinal) || l.StartsWith(name + " ", StringComparison.Ordinal)
            );
        }

        // nobody is named
        Assert.DoesNotContain(lines, l => l.Contains('@') || l.Contains(bob.Token, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_new_login_instead_of_a_resumption_repeats_nothing()
    {
        await using var bob = await bed.PersonAsync();
        await bob.HibernateAsync();
        var id = await WriteAsync(bob);
        await bob.AlertedAsync(id, "background");

        await bob.LoginAsync();

        await bob.SessionsAsync("foreground", ["phone active available 0"]);
        await bob.NothingButAsync(await bed.AliceAsync(), id);
    }

    [Fact]
    public async Task Replaced_by_the_same_resource_the_new_session_is_in_front()
    {
        await using var bob = await bed.PersonAsync();
        var old = await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");

        await bob.LoginAsync(presence: "<priority>1</priority>");

        await old.WaitClosedAsync();
        await bob.SessionsAsync("foreground", ["phone active available 1"]);
        await bob.WithheldAsync(await WriteAsync(bob));
    }

    [Fact]
    public async Task Not_resumed_in_time_is_offline_and_what_was_alerted_is_not_again()
    {
        await using var bob = await bed.PersonAsync(account: $"bob@{XmppServer.BriefHost}");
        var client = await (await bob.LoginAsync()).EnableSmAsync(seconds: 1);
        await bob.SessionsAsync("phone active available 0");
        var id = await WriteAsync(bob);
        await bob.WithheldAsync(id);

        client.Cut();

        await bob.AlertedAsync(id, "unacked");
        await bob.SessionsAsync("offline", []);
        await bob.NothingButAsync(await bed.AliceAsync(), id);
        var rows = (await bed.Relay.DeliveriesAsync(bob.Account)).Where(r => (string?)r["event"]!["id"] == id);
        Assert.Equal(["foreground", "unacked"], rows.Select(r => (string?)r["reason"]));
    }

    [Fact]
    public async Task Kicked_is_offline()
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");

        await bed.Server.KickAsync(client.Jid, Token);

        await client.WaitClosedAsync();
        await client.DisposeAsync();
        await bob.SessionsAsync("offline", []);
        await bob.AlertedAsync(await WriteAsync(bob), "offline");
    }

    [Fact]
    public async Task A_reset_without_stream_management_is_offline()
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");

        client.Cut();

        await bob.SessionsAsync("offline", []);
        await bob.AlertedAsync(await WriteAsync(bob), "offline");
    }

    [Fact]
    public async Task A_closed_stream_is_offline_also_with_stream_management()
    {
        await using var bob = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await bob.SessionsAsync("phone active available 0");

        await client.LogoutAsync();

        await bob.SessionsAsync("offline", []);
        await bob.AlertedAsync(await WriteAsync(bob), "offline");
    }

    [Fact]
    public async Task In_front_again_without_asking_for_push_nothing_is_pushed()
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.LoginAsync();
        await client.AskAsync("set", Enable(bob), to: null);
        await client.LogoutAsync();
        await bob.SessionsAsync("offline", []);
        await bob.AlertedAsync(await WriteAsync(bob), "offline");

        await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");
        await bob.WithheldAsync(await WriteAsync(bob));

        Assert.Single(bob.Notifications);
    }

    [Fact]
    public async Task The_servers_own_push_beside_the_module_alerts_nobody_twice()
    {
        await using var bob = await bed.PersonAsync();
        var client = await (await bob.LoginAsync()).EnableSmAsync();
        await client.AskAsync("set", Enable(bob), to: null);
        await bob.SessionsAsync("phone active available 0");
        client.Cut();
        await bob.SessionsAsync("phone hibernating available 0");

        var id = await WriteAsync(bob);

        await bob.AlertedAsync(id, "background");
        await bob.NothingButAsync(await bed.AliceAsync(), id);
    }

    [Fact]
    public async Task Two_devices_of_one_account_are_both_alerted()
    {
        await using var bob = await bed.PersonAsync();
        await using var tablet = await bed.PersonAsync(account: bob.Account);
        await bob.HibernateAsync();

        var id = await WriteAsync(bob);

        await bed.Relay.UntilAsync(
            async () => (await bed.Relay.DeliveriesAsync(bob.Account)).Count(r => (string?)r["state"] == "accepted") == 2,
            "both are alerted",
            Token
        );
        Assert.All(await bed.Relay.DeliveriesAsync(bob.Account), row => Assert.Equal(id, (string?)row["event"]!["id"]));
        Assert.Single(bob.Notifications);
        Assert.Single(tablet.Notifications);
    }

    [Fact]
    public async Task A_phone_that_sleeps_waits_while_the_desktop_is_in_front_and_hears_nothing_once_it_is_read_there()
    {
        await using var bob = await bed.PersonAsync(resource: "phone");
        await bob.HibernateAsync();
        var desktop = await bob.LoginAsync("desktop");
        await bob.SessionsAsync("foreground", ["desktop active available 0", "phone hibernating available 0"]);

        var id = await WriteAsync(bob);

        var row = await bed.Relay.WaitForAsync(bob.Account, id, "pending");
        Assert.Equal("other_device_foreground", (string?)row["reason"]);
        var alice = await bed.AliceAsync();
        await desktop.MessageAsync(alice.Jid, null, bed.NextId(), extra: $"<displayed xmlns='urn:xmpp:chat-markers:0' id='{id}'/>");
        Assert.Equal("read_elsewhere", (string?)(await bed.Relay.WaitForAsync(bob.Account, id, "cancelled"))["reason"]);
        Assert.Empty(bob.Notifications);
    }

    [Fact]
    public async Task A_server_that_stops_and_starts_leaves_nobody_in_front()
    {
        await using var bob = await bed.PersonAsync();
        await (await bob.LoginAsync()).EnableSmAsync();
        await bob.SessionsAsync("foreground", ["phone active available 0"]);

        await bed.ForgetAliceAsync();
        await bed.Server.StopAsync();
        await bob.SessionsAsync("unknown", []);
        await bed.Server.RestartAsync(Token);

        await bob.SessionsAsync("offline", []);
        await bob.AlertedAsync(await WriteAsync(bob), "offline");
    }

    [Fact]
    public async Task A_relay_that_stands_still_holds_up_no_message()
    {
        await using var bob = await bed.PersonAsync();
        var client = await bob.LoginAsync();
        await bob.SessionsAsync("phone active available 0");
        var (reading, still) = (new List<double>(), new List<double>());
        await LatenciesAsync(client, []); // warm

        for (var round = 0; round < 2; round++)
        {
            await LatenciesAsync(client, reading);
            await bed.Relay.PauseAsync(Token);
            await FillLinkAsync(client);
            await LatenciesAsync(client, still);
            await bed.Relay.ContinueAsync(Token);
            // what it has missed is with it soon
            var continued = TimeProvider.System.GetTimestamp();
            await client.CsiAsync("inactive");
            await bob.SessionsAsync("phone inactive available 0");
            Assert.InRange(TimeProvider.System.GetElapsedTime(continued), TimeSpan.Zero, TimeSpan.FromSeconds(15));
            await client.CsiAsync("active");
        }

        var (p50, p99, p50Still, p99Still) = (Part(reading, 0.5), Part(reading, 0.99), Part(still, 0.5), Part(still, 0.99));
        TestContext.Current.TestOutputHelper!.WriteLine(
            string.Create(
                CultureInfo.InvariantCulture,
                $"p50/p99: reading {p50:f2}/{p99:f2} ms, standing still {p50Still:f2}/{p99Still:f2} ms"
            )
        );
        Assert.InRange(p50Still, 0, (p50 * 2) + 10);
        Assert.InRange(p99Still, 0, (p99 * 3) + 100);
    }

    private static double Part(List<double> values, double part) => values.Order().ElementAt((int)(values.Count * part));

    private static string Enable(Person person)
    {
        var push = person.Device["push"]!;
        return $"<enable xmlns='urn:xmpp:push:0' jid='{push["jid"]}' node='{push["node"]}'><x xmlns='jabber:x:data' type='submit'>"
            + "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
            + $"<field var='secret'><value>{push["secret"]}</value></field></x></enable>";
    }

    /// <summary>12 MB of events: more than the kernel keeps for a process that does not read, less than makes the module give the link up.
    /// Not archived: that takes long.</summary>
    private async Task FillLinkAsync(WireClient to)
    {
        var alice = await bed.AliceAsync();
        var text = new string('x', 8_000);
        for (var n = 0; n < 1_500; n++)
        {
            await alice.SendAsync(
                $"<message to='{to.Jid}' type='chat' id='{bed.NextId()}'><body>{text}</body><no-store xmlns='urn:xmpp:hints'/></message>"
            );
        }

        await LatenciesAsync(to, []);
    }

    /// <summary>Milliseconds from client to client.</summary>
    private async Task LatenciesAsync(WireClient to, List<double> into)
    {
        var alice = await bed.AliceAsync();
        for (var n = 0; n < 200; n++)
        {
            var begun = TimeProvider.System.GetTimestamp();
            var body = bed.NextId();
            await alice.SendAsync($"<message to='{to.Jid}' type='chat' id='{body}'><body>{body}</body></message>");
            await to.ReceiveAsync(body);
            into.Add(TimeProvider.System.GetElapsedTime(begun).TotalMilliseconds);
        }
    }

    /// <summary>A message from Alice, processed by the server.</summary>
    private async Task<string> WriteAsync(Person to)
    {
        var id = bed.NextId();
        await (await bed.AliceAsync()).MessageAsync(to.Account, "hello", id);
        return id;
    }
}
