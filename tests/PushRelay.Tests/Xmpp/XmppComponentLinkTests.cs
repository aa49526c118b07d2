using Microsoft.Extensions.Logging;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

/// <summary>How a link comes to be, ends and comes back.</summary>
public sealed class XmppComponentLinkTests
{
    private static readonly TimeSpan Second = TimeSpan.FromSeconds(1);

    [Fact]
    public async Task The_digest_is_of_the_unescaped_stream_id_and_the_secret()
    {
        await using var bed = new ComponentBed(options => options with { Secret = "p\u00E4ss" }).Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();
        await link.WriteAsync(ScriptedLink.Header("a&amp;b&lt;"));

        await link.ExpectAsync($"<handshake>{ScriptedServer.Digest("a&b<", "p\u00E4ss")}</handshake>");
        Assert.False(bed.Component.IsConnected);
        await link.WriteAsync("<handshake/>");
        await bed.NextAsync("connected");

        Assert.True(bed.Component.IsConnected);
        Assert.Equal(bed.Clock.GetUtcNow(), bed.Component.ConnectedSince);
    }

    [Fact]
    public async Task A_handshake_byte_by_byte_and_stanzas_right_behind_it_are_understood()
    {
        await using var bed = new ComponentBed().Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();
        foreach (var character in ScriptedLink.Header("1"))
        {
            await link.WriteAsync(character.ToString());
        }

        await link.ReadToAsync("</handshake>");
        await link.WriteAsync(
            "<handshake></handshake><message from='a' to='push.example.com' id='1'/><message from='a' to='push.example.com' id='2'/>"
        );

        await bed.NextAsync("connected");
        await bed.NextAsync("message 1");
        await bed.NextAsync("message 2");
    }

    [Theory]
    [InlineData("not-authorized", 60, LogLevel.Error, "setting Secret")]
    [InlineData("host-unknown", 60, LogLevel.Error, "setting Domain")]
    [InlineData("conflict", 5, LogLevel.Warning, "Another link")]
    public async Task A_refusal_waits_its_time_and_is_told_with_its_cure(string condition, int seconds, LogLevel level, string told)
    {
        await using var bed = new ComponentBed().Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();
        await link.WriteAsync(
            ScriptedLink.Header("1") + StreamError(condition, "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>bob@example.com</text>")
        );
        await link.ReadToAsync("</stream:stream>");
        link.Dispose();

        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(seconds));

        Assert.Contains(bed.Log, entry => entry.Level == level && entry.Text.Contains(told, StringComparison.Ordinal));
        Assert.DoesNotContain(bed.Log, entry => entry.Level > LogLevel.Debug && entry.Text.Contains("bob", StringComparison.Ordinal));
        Assert.DoesNotContain(bed.Log, entry => entry.Text.Contains("s3cret", StringComparison.Ordinal));
        bed.Clock.Advance(TimeSpan.FromSeconds(seconds));
        using var again = await bed.Server.AcceptComponentAsync();
        await bed.NextAsync("connected");
    }

    [Fact]
    public async Task Without_a_stream_id_no_digest_is_sent()
    {
        await using var bed = new ComponentBed().Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();
        await link.WriteAsync(ScriptedLink.Header("") + StreamError("host-unknown"));

        await link.ExpectAsync("</stream:stream>");
        link.Dispose();

        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(60));
    }

    [Fact]
    public async Task See_other_host_is_never_followed()
    {
        using var trap = new ScriptedServer();
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        var followed = trap.AcceptAsync();

        await link.WriteAsync(
            $"<stream:error><see-other-host "
                + $"xmlns='urn:ietf:params:xml:ns:xmpp-streams'>127.0.0.1:{trap.Port}</see-other-host></stream:error></stream:stream>"
        );
        await link.ReadToAsync("</stream:stream>");
        link.Dispose();
        await bed.NextAsync("disconnected");
        await bed.Clock.ArmedAsync(IsFirstWait);
        bed.Clock.Advance(Second);
        using var again = await bed.Server.AcceptComponentAsync();

        Assert.False(followed.IsCompleted);
        Assert.Equal("see-other-host", Assert.IsType<XmppStreamException>(bed.LastReason).Condition);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_cut_link_is_told_and_comes_back(bool reset)
    {
        await using var bed = new ComponentBed();
        var link = await bed.LinkAsync();

        if (reset)
        {
            link.Cut();
        }
        else
        {
            link.Dispose();
        }

        await bed.NextAsync("disconnected");
        Assert.NotNull(bed.LastReason);
        Assert.False(bed.Component.IsConnected);
        Assert.Null(bed.Component.ConnectedSince);
        await bed.Clock.ArmedAsync(IsFirstWait);
        bed.Clock.Advance(Second);
        using var again = await bed.Server.AcceptComponentAsync();
        await bed.NextAsync("connected");
        Assert.True(bed.Component.IsConnected);
    }

    [Fact]
    public async Task A_server_that_closes_in_order_gets_the_closing_tag_and_gives_no_reason()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        await link.WriteAsync("</stream:stream>");

        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await bed.NextAsync("disconnected");
        Assert.Null(bed.LastReason);
        await bed.Clock.ArmedAsync(IsFirstWait);
    }

    [Fact]
    public async Task A_server_that_is_not_there_is_tried_again_without_burning_time()
    {
        await using var bed = new ComponentBed();
        bed.Server.Dispose();
        bed.Start();

        foreach (var ceiling in new[] { 1, 2, 4, 8, 16, 30, 30 })
        {
            await bed.Clock.ArmedAsync(due => due < TimeSpan.FromSeconds(ceiling) && due != Options.ConnectTimeout);
            bed.Clock.Advance(TimeSpan.FromSeconds(ceiling));
        }

        Assert.InRange(bed.CountLog(LogLevel.Warning), 7, 8);
        Assert.False(bed.Component.IsConnected);
    }

    [Fact]
    public async Task A_server_that_says_nothing_is_left_after_the_handshake_timeout()
    {
        await using var bed = new ComponentBed().Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();

        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(10));
        bed.Clock.Advance(TimeSpan.FromSeconds(10));

        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await bed.Clock.ArmedAsync(IsFirstWait);
        Assert.Contains(bed.Log, entry => entry.Text.Contains("No handshake within 10 s", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("HTTP/1.1 400 Bad Request\r\n\r\n", "not-well-formed")]
    [InlineData("<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", "restricted-xml")]
    [InlineData("<?xml version='1.0' encoding='UTF-16'?>", "unsupported-encoding")]
    [InlineData("<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client' id='1'>", "invalid-namespace")]
    public async Task What_is_no_component_port_gets_the_stream_error(string answer, string condition)
    {
        await using var bed = new ComponentBed().Start();
        using var link = await bed.Server.AcceptAsync();
        await link.ExpectHeaderAsync();

        await link.WriteAsync(answer);

        await link.ExpectAsync($"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>");
        link.Dispose();
        await bed.Clock.ArmedAsync(IsFirstWait);
    }

    [Theory]
    [InlineData("<message from='a' to='push.example.com'>&lol;</message>", "restricted-xml")]
    [InlineData("<message></iq>", "not-well-formed")]
    [InlineData("<message>\u0000</message>", "not-well-formed")]
    [InlineData("hello", "bad-format")]
    public async Task A_stream_at_fault_gets_the_stream_error_and_a_new_link(string bytes, string condition)
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        await link.WriteAsync(bytes);

        await link.ExpectAsync($"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>");
        link.Dispose();
        await bed.NextAsync("disconnected");
        Assert.Equal(
            (condition, false),
            (((XmppStreamException)bed.LastReason!).Condition, ((XmppStreamException)bed.LastReason).FromServer)
        );
        await bed.Clock.ArmedAsync(IsFirstWait);
        bed.Clock.Advance(Second);
        using var again = await bed.Server.AcceptComponentAsync();
        await bed.NextAsync("connected");
    }

    [Fact]
    public async Task A_tag_of_ten_megabytes_is_answered_with_policy_violation_although_the_server_goes_on_writing()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        await link.WriteAsync("<message a='");
        var writing = link.WriteAsync(
            new byte[10 * 1024 * 1024]
                .AsMemory()
                .ToArray()
                .Select(_ => (byte)'x')
                .ToArray()
        );

        await link.ExpectAsync(
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
        );
        await writing;
        link.Dispose();
        await bed.NextAsync("disconnected");
    }

    [Fact]
    public async Task Silence_is_pinged_and_an_answer_of_any_kind_keeps_the_link()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        foreach (
            var answer in new[]
            {
                "<iq type='result' id='component-ping' from='example.com' to='push.example.com'/>",
                "<iq type='error' id='component-ping' from='example.com' to='push.example.com'><error/></iq>",
                " ",
            }
        )
        {
            await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(30));
            bed.Clock.Advance(TimeSpan.FromSeconds(30));
            await link.ExpectAsync(
                "<iq from='push.example.com' type='get' id='component-ping' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>"
            );
            await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(10));
            await link.WriteAsync(answer);
        }

        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(30));
        Assert.True(bed.HasNoCall());
        Assert.True(bed.Component.IsConnected);
    }

    [Fact]
    public async Task A_server_that_answers_no_ping_is_left()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(30));
        bed.Clock.Advance(TimeSpan.FromSeconds(30));
        await link.ReadToAsync("</iq>");
        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(10));

        bed.Clock.Advance(TimeSpan.FromSeconds(10));

        await bed.NextAsync("disconnected"); // Told before the wait for a close that will not come.
        await link.ExpectAsync("</stream:stream>");
        await bed.Clock.ArmedAsync(Second);
        bed.Clock.Advance(Second);
        await bed.Clock.ArmedAsync(IsFirstWait);
        Assert.IsType<TimeoutException>(bed.LastReason);
    }

    [Fact]
    public async Task Without_a_server_domain_the_ping_goes_round_through_the_server()
    {
        await using var bed = new ComponentBed(options => options with { ServerDomain = null });
        using var link = await bed.LinkAsync();
        await bed.Clock.ArmedAsync(TimeSpan.FromSeconds(30));
        bed.Clock.Advance(TimeSpan.FromSeconds(30));

        var ping = await link.ReadToAsync("</iq>");
        await link.WriteAsync(ping);
        await link.WriteAsync("<message from='a' to='push.example.com' id='1'/>");

        Assert.Contains("to='push.example.com'", ping, StringComparison.Ordinal);
        await bed.NextAsync("message 1");
        Assert.DoesNotContain(bed.Log, entry => entry.Text.Contains("not handled", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Stopping_closes_the_stream_in_order_after_what_was_sent()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        await bed.Component.SendAsync(XmppComponentStanzaTests.Message("1"), TestContext.Current.CancellationToken);

        await bed.StopAsync();

        await link.ExpectAsync("<message from='push.example.com' to='example.com' id='1'/></stream:stream>");
        await link.WriteAsync("</stream:stream>");
        link.Dispose();
        await bed.EndAsync();
        await bed.NextAsync("disconnected");
        Assert.Null(bed.LastReason);
        Assert.Equal(0, bed.CountLog(LogLevel.Warning) + bed.CountLog(LogLevel.Error));
    }

    [Fact]
    public async Task Stopping_waits_a_second_at_most_for_a_server_that_does_not_close()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();

        await bed.StopAsync();
        await link.ExpectAsync("</stream:stream>");
        await bed.Clock.ArmedAsync(Second);
        bed.Clock.Advance(Second);

        await bed.EndAsync();
    }

    [Fact]
    public async Task Stopping_ends_the_wait_for_the_next_attempt_and_a_handshake_at_once()
    {
        await using var waiting = new ComponentBed();
        waiting.Server.Dispose();
        waiting.Start();
        await waiting.Clock.ArmedAsync(IsFirstWait);
        await waiting.StopAsync();
        await waiting.EndAsync();

        await using var shaking = new ComponentBed().Start();
        using var link = await shaking.Server.AcceptAsync();
        await link.ExpectHeaderAsync();
        await shaking.StopAsync();
        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await shaking.EndAsync();
        Assert.True(shaking.HasNoCall());
    }

    [Fact]
    public async Task Disposing_stops_a_running_component_and_it_runs_only_once()
    {
        await using var bed = new ComponentBed();
        using var link = await bed.LinkAsync();
        await Assert.ThrowsAsync<InvalidOperationException>(() => bed.Component.RunAsync(TestContext.Current.CancellationToken));

        var disposing = bed.Component.DisposeAsync();
        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await disposing;

        Assert.True(bed.Running.IsCompletedSuccessfully);
    }

    [Fact]
    public async Task A_handler_that_fails_at_the_start_ends_the_link_and_gets_another()
    {
        await using var bed = new ComponentBed();
        var fails = true;
        bed.OnConnected = _ => fails ? throw new InvalidOperationException("not yet") : ValueTask.CompletedTask;
        bed.Start();
        using var link = await bed.Server.AcceptComponentAsync();
        await link.ExpectAsync("</stream:stream>");
        link.Dispose();
        await bed.NextAsync("disconnected");

        fails = false;
        await bed.Clock.ArmedAsync(IsFirstWait);
        bed.Clock.Advance(Second);
        using var again = await bed.Server.AcceptComponentAsync();
        await bed.NextAsync("connected");
        Assert.Equal(1, bed.CountLog(LogLevel.Error));
    }

    private static XmppComponentOptions Options =>
        new()
        {
            Host = "127.0.0.1",
            Port = 5347,
            Domain = "push.example.com",
            Secret = "s",
        };

    // The random wait after a first failure; a second to the dot is the close timeout.
    private static bool IsFirstWait(TimeSpan due) => due < Second;

    private static string StreamError(string condition, string text = "") =>
        $"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>{text}</stream:error></stream:stream>";
}
