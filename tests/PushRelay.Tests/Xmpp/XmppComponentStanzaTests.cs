using System.Text;
using System.Xml.Linq;
using Microsoft.Extensions.Logging;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

/// <summary>What happens to stanzas in both directions while a link holds.</summary>
public sealed class XmppComponentStanzaTests
{
    private const string Addresses = "from='example.com' to='push.example.com'";

    [Fact]
    public async Task Stanzas_come_in_the_order_of_the_stream_one_at_a_time_however_they_are_cut()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        var (inside, most) = (0, 0);
        bed.OnStanza = async (_, _) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref inside));
            await Task.Yield();
            Interlocked.Decrement(ref inside);
            return true;
        };

        await link.WriteAsync(
            string.Concat(Enumerable.Range(0, 100).Select(i => $"<message {Addresses} id='{i}'><body>x</body></message> \n"))
        );
        foreach (var character in $"<message {Addresses} id='last'><body>\u738B</body></message>")
        {
            await link.WriteAsync(character.ToString());
        }

        for (var i = 0; i < 100; i++)
        {
            await bed.NextAsync($"message {i}");
        }

        await bed.NextAsync("message last");
        Assert.Equal(1, most);
        Assert.Equal("\u738B", bed.Stanzas.Last().Element(XmppStanza.Component + "body")!.Value);
    }

    [Theory]
    [InlineData("1")]
    [InlineData("")]
    [InlineData("a&apos;&quot;b&lt;&gt;+/= \u738B&#10;")]
    [InlineData("LONG")]
    [InlineData("rr-1795387256551-9208041659500282951-4cZJLILvWvaq9eiaM+GzU33fkZo=-70306884")]
    public async Task An_iq_nobody_handles_gets_service_unavailable_with_its_id_and_the_link_stays(string id)
    {
        id = id.Replace("LONG", new string('i', 1024), StringComparison.Ordinal);
        await using var bed = new ComponentBed();
        bed.OnStanza = (_, _) => ValueTask.FromResult(false);
        using var link = await bed.LinkAsync();

        await link.WriteAsync(
            $"<iq type='get' id=\"{id}\" from='bob@example.com/x' to='push.example.com'><query xmlns='jabber:iq:version'/></iq>"
        );

        var answer = ParserDriver.Stanza(await link.ReadToAsync("</iq>"));
        Assert.Equal(ParserDriver.Stanza($"<a id=\"{id}\"/>").Attribute("id")!.Value, (string?)answer.Attribute("id"));
        Assert.Equal(
            ("error", "bob@example.com/x", "push.example.com"),
            ((string?)answer.Attribute("type"), (string?)answer.Attribute("to"), (string?)answer.Attribute("from"))
        );
        Assert.NotNull(answer.Element(XmppStanza.Component + "error")!.Element(XmppStanza.StanzaErrors + "service-unavailable"));
    }

    [Fact]
    public async Task Other_stanzas_nobody_handles_are_passed_over_and_each_kind_is_logged_once()
    {
        await using var bed = new ComponentBed();
        bed.OnStanza = (_, _) => ValueTask.FromResult(false);
        using var link = await bed.LinkAsync();

        for (var i = 0; i < 3; i++)
        {
            await link.WriteAsync(
                $"<message {Addresses}><x xmlns='urn:one'/></message><presence {Addresses}/><iq type='result' id='7' {Addresses}/>"
                    + $"<iq type='error' id='8' {Addresses}/><unknown/><p:message xmlns:p='jabber:client'/>"
            );
        }

        for (var i = 0; i < 200; i++)
        {
            await link.WriteAsync($"<message {Addresses}><x xmlns='urn:{i}'/></message>");
        }

        await link.WriteAsync($"<iq type='get' id='end' {Addresses}><ping xmlns='urn:xmpp:ping'/></iq>");
        await link.ExpectAsync("<iq type='result' id='end' from='push.example.com' to='example.com'/>");
        Assert.Equal(64, bed.Log.Count(entry => entry.Text.Contains("not handled", StringComparison.Ordinal)));
        Assert.Equal(1, bed.Log.Count(entry => entry.Text.Contains("urn:one", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_flood_of_presence_is_passed_over_in_bounded_memory()
    {
        await using var bed = new ComponentBed();
        bed.OnStanza = (_, _) => ValueTask.FromResult(false);
        using var link = await bed.LinkAsync();
        var before = GC.GetTotalMemory(forceFullCollection: true);
        var hundred = string.Concat(
            Enumerable.Range(0, 100).Select(i => $"<presence from='bob@example.com/{i}' to='push.example.com'><show>away</show></presence>")
        );

        for (var i = 0; i < 500; i++)
        {
            await link.WriteAsync(hundred);
        }

        await link.WriteAsync($"<iq type='get' id='end' {Addresses}><ping xmlns='urn:xmpp:ping'/></iq>");
        await link.ExpectAsync("<iq type='result' id='end' from='push.example.com' to='example.com'/>");
        // 5 MB of stanzas went by
        Assert.InRange(GC.GetTotalMemory(forceFullCollection: true) - before, long.MinValue, 64_000_000);
    }

    [Theory]
    [InlineData("<iq type='get' from='example.com' to='push.example.com'><a xmlns='b'/></iq>")] // no id
    [InlineData("<iq type='get' id='1' to='push.example.com'><a xmlns='b'/></iq>")] // no from
    [InlineData("<iq type='get' id='1' from='b@d@e' to='push.example.com'><a xmlns='b'/></iq>")]
    [InlineData("<iq type='get' id='1' from='push.example.com' to='push.example.com'><a xmlns='b'/></iq>")] // a loop
    [InlineData("<iq type='get' id='1' from='x@PUSH.example.com/y' to='push.example.com'><a xmlns='b'/></iq>")]
    [InlineData("<iq type='get' id='1' from='example.com'><a xmlns='b'/></iq>")] // no to
    [InlineData("<iq type='get' id='1' from='example.com' to='other.example.com'><a xmlns='b'/></iq>")]
    [InlineData("<message from='push.example.com' to='push.example.com'/>")]
    public async Task A_stanza_that_could_only_make_a_loop_or_cannot_be_answered_is_dropped(string stanza)
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        await link.WriteAsync($"{stanza}<iq type='get' id='end' {Addresses}><ping xmlns='urn:xmpp:ping'/></iq>");

        await link.ExpectAsync("<iq type='result' id='end'");
        Assert.True(bed.HasNoCall());
    }

    [Fact]
    public async Task A_handler_that_throws_costs_one_stanza_and_not_the_link()
    {
        await using var bed = new ComponentBed();
        bed.OnStanza = (stanza, _) =>
            stanza.Attribute("id")!.Value == "1" ? throw new InvalidOperationException("broken") : ValueTask.FromResult(true);
        using var link = await bed.LinkAsync();

        await link.WriteAsync(
            $"<iq type='set' id='1' {Addresses}><a xmlns='b'/></iq><message {Addresses} id='1'/><message {Addresses} id='2'/>"
        );

        await link.ExpectAsync(
            "<iq type='error' id='1' from='push.example.com' to='example.com'><error type='wait'>"
                + "<internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        await bed.NextAsync("iq 1");
        await bed.NextAsync("message 1");
        await bed.NextAsync("message 2");
        Assert.Equal(2, bed.CountLog(LogLevel.Error));
    }

    [Fact]
    public async Task A_sender_of_too_many_requests_is_told_to_wait_then_nothing_whatever_it_asks_and_answers_are_not_counted()
    {
        var verdicts = new Dictionary<string, XmppAdmission>
        {
            ["much@example.com"] = XmppAdmission.Refuse,
            ["more@example.com"] = XmppAdmission.Ignore,
            ["bob@example.com"] = XmppAdmission.Answer,
        };
        var asked = 0;
        await using var bed = new ComponentBed(options =>
            options with
            {
                NamesMax = 1,
                Admit = from =>
                {
                    asked++;
                    return verdicts[from.Bare.ToString()];
                },
            }
        );
        using var link = await bed.LinkAsync();
        string[] kinds = ["<ping xmlns='urn:xmpp:ping'/>", "<a xmlns='b'/>", "<c xmlns='invented'/>"];

        foreach (var from in verdicts.Keys)
        {
            await link.WriteAsync(
                string.Concat(kinds.Select((kind, i) => $"<iq type='get' id='{i}' from='{from}/x' to='push.example.com'>{kind}</iq>"))
            );
            await link.WriteAsync(
                $"<iq type='error' id='7' from='{from}/x' to='push.example.com'/><message from='{from}/x' to='push.example.com' id='m'/>"
            );
        }

        for (var i = 0; i < kinds.Length; i++)
        {
            await link.ExpectAsync(
                $"<iq type='error' id='{i}' from='push.example.com' to='much@example.com/x'><error type='wait'>"
                    + "<resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            );
        }

        await link.ExpectAsync("<iq type='result' id='0' from='push.example.com' to='bob@example.com/x'");
        Assert.Equal(verdicts.Count * kinds.Length, asked);
        string[] handed = ["iq 7", "message m", "iq 7", "message m", "iq 1", "iq 7", "message m"];
        foreach (var call in handed)
        {
            await bed.NextAsync(call);
        }
    }

    [Fact]
    public async Task Invented_names_beyond_the_bound_are_refused_over_all_links_and_known_ones_go_on()
    {
        await using var bed = new ComponentBed(options =>
            options with
            {
                NamesMax = 50,
                KnownNames = [XNamespace.Get("urn:known") + "known"],
            }
        );
        using var link = await bed.LinkAsync();
        for (var i = 0; i < 50; i++)
        {
            await link.WriteAsync($"<message {Addresses} id='{i}' invented{i}=''/>");
            await bed.NextAsync($"message {i}");
        }

        await link.WriteAsync(
            $"<message {Addresses} id='no' another=''/><iq type='set' id='no' {Addresses}><another/></iq>"
                + $"<message {Addresses} id='yes'><known xmlns='urn:known'/></message>"
        );

        Assert.Contains("resource-constraint", await link.ReadToAsync("</iq>"), StringComparison.Ordinal);
        await bed.NextAsync("message yes");
    }

    [Fact]
    public async Task An_answer_that_would_be_too_large_is_not_given_and_the_link_stays()
    {
        await using var bed = new ComponentBed();
        bed.OnStanza = (_, _) => ValueTask.FromResult(false);
        using var link = await bed.LinkAsync();

        await link.WriteAsync(
            $"<iq type='get' {Addresses} id=\"{new string('\'', 100_000)}\"><a xmlns='b'/></iq><iq type='get' id='end' "
                + $"{Addresses}><ping xmlns='urn:xmpp:ping'/></iq>"
        );

        await link.ExpectAsync("<iq type='result' id='end'");
    }

    [Fact]
    public async Task While_the_handler_is_busy_the_socket_fills_up_and_the_silence_is_not_the_servers()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        var release = new TaskCompletionSource();
        bed.OnStanza = async (_, _) =>
        {
            await release.Task;
            return true;
        };
        await link.WriteAsync($"<message {Addresses} id='first'/>");
        await bed.NextAsync("message first");

        var filler = Encoding.UTF8.GetBytes(new string(' ', 64 * 1024));
        var taken = link.Fill(filler);
        bed.Clock.Advance(TimeSpan.FromMinutes(10));

        Assert.InRange(taken, 1, 64 * 1024 * 1024);
        Assert.True(bed.Component.IsConnected);
        release.SetResult();
        await link.WriteAsync($"<message {Addresses} id='second'/>");
        await bed.NextAsync("message second");
    }

    [Fact]
    public async Task Many_senders_at_once_never_mix_their_bytes()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        var sending = Enumerable
            .Range(0, 8)
            .Select(sender =>
                Task.Run(async () =>
                {
                    for (var i = 0; i < 200; i++)
                    {
                        await bed.Component.SendAsync(
                            Message($"{sender}-{i}", new string('x', 500)),
                            TestContext.Current.CancellationToken
                        );
                    }
                })
            )
            .ToList();

        var driver = ParserDriver.Opened();
        while (driver.Stanzas.Count < 1600)
        {
            driver.Feed(await link.ReadToAsync("</message>"));
        }

        await Task.WhenAll(sending);
        foreach (var sender in driver.Stanzas.Select(stanza => stanza.Attribute("id")!.Value.Split('-')).GroupBy(id => id[0]))
        {
            Assert.Equal(Enumerable.Range(0, 200).Select(i => $"{i}"), sender.Select(id => id[1]));
        }
    }

    [Fact]
    public async Task A_sender_waits_for_a_server_that_takes_nothing_and_is_told_when_the_link_is_given_up()
    {
        var limit = TimeSpan.FromSeconds(7);
        await using var bed = new ComponentBed(options => options with { WriteTimeout = limit, PingInterval = TimeSpan.FromHours(1) });
        using var link = await bed.LinkAsync();
        var sent = 0;
        var sending = Task.Run(
            async () =>
            {
                while (true)
                {
                    await bed.Component.SendAsync(Message("1", new string('x', 100_000)), TestContext.Current.CancellationToken);
                    Interlocked.Increment(ref sent);
                }
            },
            TestContext.Current.CancellationToken
        );

        // A write that had to wait at all is timed, so the first such timer need not be the one that nothing ends.
        while (await Task.WhenAny(sending, bed.Clock.ArmedAsync(limit)) != sending)
        {
            Assert.InRange(sent, 0, 1000); // Less than 100 MB: the socket's buffers and one of ours.
            bed.Clock.Advance(limit);
        }

        await Assert.ThrowsAsync<XmppNotConnectedException>(() =>
            sending.WaitAsync(ScriptedServer.Patience, TestContext.Current.CancellationToken)
        );
        await bed.NextAsync("disconnected");
        Assert.IsType<TimeoutException>(bed.LastReason);
    }

    [Fact]
    public async Task Without_a_link_sending_says_so_and_a_bad_stanza_is_the_callers_fault_first()
    {
        await using var bed = new ComponentBed();

        await Assert.ThrowsAsync<XmppNotConnectedException>(async () =>
            await bed.Component.SendAsync(Message("1"), TestContext.Current.CancellationToken)
        );
        await Assert.ThrowsAsync<ArgumentException>(async () =>
            await bed.Component.SendAsync(new XElement("message"), TestContext.Current.CancellationToken)
        );
    }

    [Fact]
    public async Task The_handler_can_send_first_thing_on_a_link()
    {
        await using var bed = new ComponentBed();
        bed.OnConnected = token => bed.Component.SendAsync(Message("first"), token);

        using var link = await bed.LinkAsync();

        await link.ExpectAsync("<message from='push.example.com' to='example.com' id='first'/>");
    }

    [Fact]
    public async Task Stopping_cancels_a_handler_at_work_and_is_no_failure()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        bed.OnStanza = async (_, token) =>
        {
            await Task.Delay(Timeout.InfiniteTimeSpan, bed.Clock, token);
            return true;
        };
        await link.WriteAsync($"<message {Addresses} id='1'/>");
        await bed.NextAsync("message 1");

        await bed.StopAsync();
        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await bed.EndAsync();

        Assert.Equal(0, bed.CountLog(LogLevel.Error));
    }

    internal static XElement Message(string id, string? body = null)
    {
        var message = new XElement(XmppStanza.Component + "message", new XAttribute("to", "example.com"), new XAttribute("id", id));
        if (body is not null)
        {
            message.Add(new XElement(XmppStanza.Component + "body", body));
        }

        return message;
    }
}
