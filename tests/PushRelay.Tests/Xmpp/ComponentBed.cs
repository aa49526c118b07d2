using System.Collections.Concurrent;
using System.Threading.Channels;
using System.Xml.Linq;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Xmpp;

/// <summary>A running component, its scripted server, its handler's calls, its clock and its log.</summary>
internal sealed class ComponentBed : IXmppComponentHandler, ILogger<XmppComponent>, IAsyncDisposable
{
    private readonly Channel<string> calls = Channel.CreateUnbounded<string>();
    private readonly CancellationTokenSource stop = new();

    public ComponentBed(Func<XmppComponentOptions, XmppComponentOptions>? change = null)
    {
        var options = new XmppComponentOptions
        {
            Host = "127.0.0.1",
            Port = Server.Port,
            Domain = "push.example.com",
            Secret = "s3cret",
            ServerDomain = "example.com",
        };
        Component = new XmppComponent(change?.Invoke(options) ?? options, this, Clock, this);
    }

    public ScriptedServer Server { get; } = new();

    public ArmedClock Clock { get; } = new();

    public XmppComponent Component { get; }

    public Task Running { get; private set; } = Task.CompletedTask;

    public ConcurrentQueue<(LogLevel Level, string Text)> Log { get; } = new();

    public ConcurrentQueue<XElement> Stanzas { get; } = new();

    public Func<CancellationToken, ValueTask> OnConnected { get; set; } = _ => ValueTask.CompletedTask;

    public Func<XElement, CancellationToken, ValueTask<bool>> OnStanza { get; set; } = (_, _) => ValueTask.FromResult(true);

    public Exception? LastReason { get; private set; }

    public ComponentBed Start()
    {
        Running = Component.RunAsync(stop.Token);
        return this;
    }

    /// <summary>Started and linked; the handler has been told.</summary>
    public async Task<ScriptedLink> LinkAsync()
    {
        Start();
        var link = await Server.AcceptComponentAsync();
        await NextAsync("connected");
        return link;
    }

    public Task StopAsync() => stop.CancelAsync();

    public Task EndAsync() => Running.WaitAsync(ScriptedServer.Patience, TestContext.Current.CancellationToken);

    /// <summary>The handler's next call is this: connected, disconnected, or the stanza's name and id.</summary>
    public async Task NextAsync(string call) =>
        Assert.Equal(call, await calls.Reader.ReadAsync(TestContext.Current.CancellationToken).AsTask().WaitAsync(ScriptedServer.Patience));

    public bool HasNoCall() => !calls.Reader.TryPeek(out _);

    public int CountLog(LogLevel level) => Log.Count(entry => entry.Level == level);

    public async ValueTask ConnectedAsync(CancellationToken cancellationToken)
    {
        await OnConnected(cancellationToken);
        calls.Writer.TryWrite("connected");
    }

    public async ValueTask<bool> StanzaAsync(XElement stanza, CancellationToken cancellationToken)
    {
        Stanzas.Enqueue(stanza);
        calls.Writer.TryWrite($"{stanza.Name.LocalName} {(string?)stanza.Attribute("id")}");
        return await OnStanza(stanza, cancellationToken);
    }

    public ValueTask DisconnectedAsync(Exception? reason, CancellationToken cancellationToken)
    {
        LastReason = reason;
        calls.Writer.TryWrite("disconnected");
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        Server.Dispose();
        var disposing = Component.DisposeAsync().AsTask();
        while (!disposing.IsCompleted)
        {
            Clock.Advance(TimeSpan.FromSeconds(1)); // A clean close waits for a peer that the test has left behind.
            await Task.Yield();
        }

        await disposing;
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
    ) => Log.Enqueue((logLevel, formatter(state, exception)));
}

/// <summary>A clock that stands still until the test moves it, and tells when something waits for it.</summary>
internal sealed class ArmedClock : FakeTimeProvider
{
    private readonly Lock gate = new();
    private readonly List<Armed> armed = [];
    private readonly List<(Func<TimeSpan, bool> Matches, TaskCompletionSource<TimeSpan> Found)> waiting = [];

    /// <summary>Comes when a timer of such a length is running: from then on moving the clock by it has its effect.</summary>
    public async Task<TimeSpan> ArmedAsync(Func<TimeSpan, bool> matches)
    {
        var found = new TaskCompletionSource<TimeSpan>(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (gate)
        {
            if (armed.Find(timer => matches(timer.Due)) is { } running)
            {
                return running.Due;
            }

            waiting.Add((matches, found));
        }

        try
        {
            return await found.Task.WaitAsync(ScriptedServer.Patience, TestContext.Current.CancellationToken);
        }
        catch (TimeoutException)
        {
            lock (gate)
            {
                throw new TimeoutException($"No such timer; running: {string.Join(", ", armed.Select(timer => timer.Due))}");
            }
        }
    }

    public Task<TimeSpan> ArmedAsync(TimeSpan due) => ArmedAsync(other => other == due);

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new Armed(this, dueTime);
        timer.Inner = base.CreateTimer(
            inner =>
            {
                Forget(timer);
                callback(inner);
            },
            state,
            dueTime,
            period
        );
        lock (gate)
        {
            armed.Add(timer);
            foreach (var waiter in waiting.Where(waiter => waiter.Matches(dueTime)).ToList())
            {
                waiting.Remove(waiter);
                waiter.Found.SetResult(dueTime);
            }
        }

        return timer;
    }

    private void Forget(Armed timer)
    {
        lock (gate)
        {
            armed.Remove(timer);
        }
    }

    private sealed class Armed(ArmedClock clock, TimeSpan due) : ITimer
    {
        public TimeSpan Due => due;

        public ITimer Inner { get; set; } = null!;

        public bool Change(TimeSpan dueTime, TimeSpan period) => Inner.Change(dueTime, period);

        public void Dispose()
        {
            clock.Forget(this);
            Inner.Dispose();
        }

        public ValueTask DisposeAsync()
        {
            clock.Forget(this);
            return Inner.DisposeAsync();
        }
    }
}
