using System.Threading.Channels;
using System.Xml.Linq;
using Microsoft.Extensions.Logging;
using PushRelay.Interop.Servers;
using PushRelay.Xmpp;

namespace PushRelay.Interop.Xmpp;

/// <summary>A component on a real Prosody.</summary>
public sealed class ProsodyComponentTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task With_the_right_secret_it_is_linked_and_an_iq_goes_there_and_back()
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions(), Token);
        await using var run = new Run(prosody);
        await run.NextAsync("connected");

        await run.Component.SendAsync(
            new XElement(
                XmppStanza.Component + "iq",
                new XAttribute("type", "get"),
                new XAttribute("id", "a'\"<&>\u738B"),
                new XAttribute("to", ProsodyServer.Host),
                new XElement(XmppStanza.Ping + "ping")
            ),
            Token
        );

        await run.NextAsync("iq result a'\"<&>\u738B");
        Assert.True(run.Component.IsConnected);
    }

    [Theory]
    [InlineData(ProsodyServer.Component, "wrong", "setting Secret")]
    [InlineData("nobody.example.test", "secret", "setting Domain")]
    public async Task A_refusal_is_an_error_that_names_the_setting_and_is_not_repeated_at_once(string domain, string secret, string told)
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions(), Token);
        await using var run = new Run(prosody, options => options with { Domain = domain, Secret = secret });

        var text = await run.LoggedAsync(LogLevel.Error);

        Assert.Contains(told, text, StringComparison.Ordinal);
        Assert.Contains("00:01:00", text, StringComparison.Ordinal);
        Assert.DoesNotContain(
            secret,
            text.Replace("component_secret", "", StringComparison.Ordinal).Replace("the secret of", "", StringComparison.Ordinal),
            StringComparison.Ordinal
        );
        Assert.False(run.Component.IsConnected);
    }

    [Fact]
    public async Task When_Prosody_is_killed_the_handler_is_told_and_the_link_comes_back_with_the_server()
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions(), Token);
        await using var run = new Run(prosody);
        await run.NextAsync("connected");

        await prosody.KillAsync();
        await run.NextAsync("disconnected");
        Assert.False(run.Component.IsConnected);
        await prosody.RestartAsync(Token);

        await run.NextAsync("connected");
    }

    [Fact]
    public async Task When_Prosody_is_stopped_in_order_the_link_comes_back_too()
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions(), Token);
        await using var run = new Run(prosody);
        await run.NextAsync("connected");

        await prosody.StopAsync();
        await run.NextAsync("disconnected");
        await prosody.RestartAsync(Token);

        await run.NextAsync("connected");
    }

    [Fact]
    public async Task A_stopped_component_leaves_in_order()
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions { LogLevel = "debug" }, Token);
        await using var run = new Run(prosody);
        await run.NextAsync("connected");

        await run.StopAsync();

        await run.NextAsync("disconnected");
        Assert.Null(run.LastReason);
        await prosody.LoggedAsync("Received </stream:stream>", 1, Token);
    }

    [Theory]
    [InlineData(null)]
    [InlineData(ProsodyServer.Host)]
    public async Task A_silent_link_is_pinged_and_lives(string? serverDomain)
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions { LogLevel = "debug" }, Token);
        await using var run = new Run(
            prosody,
            options => options with { ServerDomain = serverDomain, PingInterval = TimeSpan.FromMilliseconds(50) }
        );
        await run.NextAsync("connected");

        // The next ping is only sent when bytes have come for the last: five of them are four answers.
        await prosody.LoggedAsync("component-ping", 5, Token);

        Assert.True(run.Component.IsConnected);
        Assert.True(run.HasNoCall());
    }

    [Fact]
    public async Task Of_two_links_of_one_domain_the_older_is_told_of_the_conflict()
    {
        await using var prosody = await ProsodyServer.StartAsync(new ProsodyOptions(), Token);
        await using var first = new Run(prosody);
        await first.NextAsync("connected");
        await using var second = new Run(prosody);
        await second.NextAsync("connected");

        await first.NextAsync("disconnected");

        Assert.Equal("conflict", Assert.IsType<XmppStreamException>(first.LastReason).Condition);
        Assert.Contains("Another link", await first.LoggedAsync(LogLevel.Warning), StringComparison.Ordinal);
        Assert.True(second.Component.IsConnected);
    }

    /// <summary>A running component and what its handler and log were told.</summary>
    private sealed class Run : IXmppComponentHandler, ILogger<XmppComponent>, IAsyncDisposable
    {
        private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

        private readonly Channel<string> calls = Channel.CreateUnbounded<string>();
        private readonly Channel<(LogLevel Level, string Text)> log = Channel.CreateUnbounded<(LogLevel, string)>();
        private readonly CancellationTokenSource stop = new();
        private readonly ProsodyServer prosody;
        private readonly Task running;

        public Run(ProsodyServer prosody, Func<XmppComponentOptions, XmppComponentOptions>? change = null)
        {
            this.prosody = prosody;
            var options = new XmppComponentOptions
            {
                Host = "127.0.0.1",
                Port = prosody.ComponentPort,
                Domain = ProsodyServer.Component,
                Secret = "secret",
            };
            Component = new XmppComponent(change?.Invoke(options) ?? options, this, TimeProvider.System, this);
            running = Component.RunAsync(stop.Token);
        }

        public XmppComponent Component { get; }

        public Exception? LastReason { get; private set; }

        public bool HasNoCall() => !calls.Reader.TryPeek(out _);

        public async Task NextAsync(string call)
        {
            try
            {
                Assert.Equal(call, await calls.Reader.ReadAsync(Token).AsTask().WaitAsync(Patience, Token));
            }
            catch (TimeoutException)
            {
                Assert.Fail($"no {call} came; Prosody says:\n{prosody.Log}");
            }
        }

        public async Task<string> LoggedAsync(LogLevel level)
        {
            while (true)
            {
                var entry = await log.Reader.ReadAsync(Token).AsTask().WaitAsync(Patience, Token);
                if (entry.Level == level)
                {
                    return entry.Text;
                }
            }
        }

        public async Task StopAsync()
        {
            await stop.CancelAsync();
            await running.WaitAsync(Patience, Token);
        }

        public ValueTask ConnectedAsync(CancellationToken cancellationToken) => Call("connected");

        public async ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken)
        {
            await Call($"{stanza.Name.LocalName} {(string?)stanza.Attribute("type")} {(string?)stanza.Attribute("id")}");
            return true;
        }

        public ValueTask DisconnectedAsync(Exception? reason, CancellationToken cancellationToken)
        {
            LastReason = reason;
            return Call("disconnected");
        }

        public async ValueTask DisposeAsync()
        {
            await Component.DisposeAsync();
            stop.Dispose();
        }

        IDisposable? ILogger.BeginScope<TState>(TState state) => null;

        bool ILogger.IsEnabled(LogLevel logLevel) => true;

        void ILogger.Log<TState>(
            LogLevel logLevel,
            EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter
        ) => log.Writer.TryWrite((logLevel, formatter(state, exception)));

        private ValueTask Call(string call)
        {
            calls.Writer.TryWrite(call);
            return ValueTask.CompletedTask;
        }
    }
}
