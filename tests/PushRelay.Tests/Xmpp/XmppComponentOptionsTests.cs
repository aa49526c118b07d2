using Microsoft.Extensions.Logging;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

/// <summary>What the options refuse, and the waits between links that follow from them.</summary>
public sealed class XmppComponentOptionsTests
{
    [Fact]
    public void Waits_double_with_full_jitter_up_to_the_bound_and_begin_anew_after_a_link_that_held()
    {
        var policy = new ReconnectPolicy(Options);
        var cut = new EndOfStreamException();

        Assert.Equal([1, 2, 4, 8, 16, 30, 30], Enumerable.Range(0, 7).Select(_ => policy.Next(cut, TimeSpan.Zero, jitter: 1).TotalSeconds));
        Assert.Equal(15, policy.Next(cut, TimeSpan.FromSeconds(29), jitter: 0.5).TotalSeconds);
        Assert.Equal(0.5, policy.Next(cut, TimeSpan.FromSeconds(30), jitter: 0.5).TotalSeconds);
        Assert.Equal(
            60,
            policy.Next(new XmppStreamException("not-authorized", null, fromServer: true), TimeSpan.Zero, jitter: 0).TotalSeconds
        );
        Assert.Equal(5, policy.Next(new XmppStreamException("conflict", null, fromServer: true), TimeSpan.Zero, jitter: 0).TotalSeconds);
        Assert.Equal(2, policy.Next(null, TimeSpan.Zero, jitter: 1).TotalSeconds);
        Assert.Equal(0.01, policy.Next(null, TimeSpan.Zero, jitter: 0).TotalSeconds);
        Assert.Equal(30, Enumerable.Range(0, 100).Select(_ => policy.Next(cut, TimeSpan.Zero, jitter: 1).TotalSeconds).ToList()[^1]);
    }

    [Fact]
    public void Options_that_cannot_work_are_refused_by_name()
    {
        using var logger = LoggerFactory.Create(_ => { });
        foreach (
            var (wrong, name) in new[]
            {
                (Options with { Host = " " }, "Host"),
                (Options with { Port = 0 }, "Port"),
                (Options with { Port = 65536 }, "Port"),
                (Options with { Domain = "a b" }, "Domain"),
                (Options with { Domain = "bob@example.com" }, "Domain"),
                (Options with { Secret = "" }, "Secret"),
                (Options with { ServerDomain = "x/y" }, "ServerDomain"),
                (Options with { PingInterval = TimeSpan.Zero }, "PingInterval"),
                (Options with { StanzaBytesMax = 0 }, "StanzaBytesMax"),
                (Options with { DepthMax = -1 }, "DepthMax"),
            }
        )
        {
            var refused = Assert.ThrowsAny<ArgumentException>(() =>
                new XmppComponent(wrong, new ComponentBed(), TimeProvider.System, logger.CreateLogger<XmppComponent>())
            );
            Assert.Contains(name, refused.Message, StringComparison.Ordinal);
        }
    }

    private static XmppComponentOptions Options =>
        new()
        {
            Host = "127.0.0.1",
            Port = 5347,
            Domain = "push.example.com",
            Secret = "s",
        };
}
