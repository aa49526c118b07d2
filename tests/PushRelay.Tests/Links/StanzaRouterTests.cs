using System.Xml.Linq;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Links;
using PushRelay.Tests.Xmpp;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Links;

/// <summary>Which stanza goes where, and how many requests run at once.</summary>
public sealed class StanzaRouterTests
{
    private const string Ask = "<ask xmlns='urn:test'/>";

    private readonly FakeTimeProvider clock = new();
    private readonly List<XElement> sent = [];
    private readonly AskHandler handler = new();
    private readonly ReadWorker worker = new();
    private readonly LinkInbox inbox;
    private readonly StanzaRouter router;

    public StanzaRouterTests()
    {
        inbox = new LinkInbox(clock);
        router = new StanzaRouter(
            ["example.com"],
            "push.example.com",
            [handler],
            [(worker, inbox)],
            (stanza, _) =>
            {
                lock (sent)
                {
                    sent.Add(stanza);
                }

                return Task.CompletedTask;
            },
            clock,
            NullLogger<StanzaRouter>.Instance
        );
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    // an IQ request goes to the handler that takes it
    [InlineData("<iq type='get' from='bob@example.com/a'>", Ask, "answered bob@example.com")]
    [InlineData("<iq type='set' from='bob@example.com/a'>", Ask, "nobody")]
    [InlineData("<iq type='get' from='example.com'>", Ask, "answered")]
    [InlineData("<iq type='get' from='bob@elsewhere.example/a'>", Ask, "answered")]
    [InlineData("<iq type='get' from='bob@example.com/a'>", "<other xmlns='urn:test'/>", "nobody")]
    [InlineData("<iq type='get' from='bob@example.com/a'>", "", "nobody")]
    // the server keeps this account apart from one that it would be here
    [InlineData("<iq type='get' from='ᲒᲘ@example.com/a'>", Ask, "answered")]
    [InlineData("<iq type='get' from='გი@example.com/a'>", Ask, "answered გი@example.com")]
    // RFC 6120 section 8.2.3: a result or an error is never answered
    [InlineData("<iq type='result' from='bob@example.com/a'>", Ask, "nobody")]
    [InlineData("<iq type='error' from='bob@example.com/a'>", Ask, "nobody")]
    // all else goes to the worker that takes it, from the link's servers only
    [InlineData("<iq type='result' from='example.com'>", "<read xmlns='urn:test'/>", "read")]
    [InlineData("<message from='example.com'>", "<read xmlns='urn:test'/>", "read")]
    [InlineData("<presence from='example.com'>", "<read xmlns='urn:test'/>", "read")]
    [InlineData("<message from='bob@example.com'>", "<read xmlns='urn:test'/>", "nobody")]
    [InlineData("<message from='elsewhere.example'>", "<read xmlns='urn:test'/>", "nobody")]
    [InlineData("<message from='example.com'>", "<body>hello</body>", "nobody")]
    [InlineData("<iq type='get' from='example.com'>", "<read xmlns='urn:test'/>", "nobody")]
    public async Task A_stanza_goes_to_whoever_takes_it(string start, string payload, string expected)
    {
        var name = start[1..start.IndexOf(' ', StringComparison.Ordinal)];
        var taken = await router.RouteAsync(ParserDriver.Stanza($"{start[..^1]} id='1' to='push.example.com'>{payload}</{name}>"), Token);

        Assert.Equal(
            expected,
            !taken ? "nobody"
                : inbox.TryRead(out var item) && item is LinkEvent.Received ? "read"
                : $"answered {handler.Accounts.Single()}".TrimEnd()
        );
        Assert.Equal(expected.StartsWith("answered", StringComparison.Ordinal) ? 1 : 0, sent.Count);
    }

    [Fact]
    public async Task Requests_that_take_long_keep_no_other_sender_out_and_each_is_answered_once()
    {
        handler.Permits = new RequestPermits(inAll: 5, perSender: 2);
        var held = handler.Hold();

        await AskAsync("bob@example.com/1", "bob@example.com/2", "bob@example.com/3");
        Assert.Equal(["resource-constraint"], Conditions());
        await AskAsync("alice@example.com/x", "eve@one.example", "eve@two.example", "eve@three.example");
        Assert.Equal(["resource-constraint", "resource-constraint"], Conditions());
        await AskAsync("carol@example.com/x");
        Assert.Equal(3, Conditions().Count);

        held.SetResult();
        await TestRelay.UntilAsync(() => Task.FromResult(Conditions().Count == 8), () => $"{Conditions().Count} answers");
        Assert.Equal(5, Conditions().Count(c => c is null));
        await AskAsync("bob@example.com/4");
        await TestRelay.UntilAsync(() => Task.FromResult(Conditions().Count == 9), () => $"{Conditions().Count} answers");
        Assert.Null(Conditions()[^1]);
    }

    [Fact]
    public async Task A_request_that_fails_or_is_not_done_in_time_is_answered_that_it_may_be_repeated()
    {
        handler.Permits = new RequestPermits(inAll: 5, perSender: 5);
        handler.Hold();
        await AskAsync("bob@example.com/1");
        await TestRelay.UntilAsync(() => Task.FromResult(handler.Accounts.Count == 1), () => "the request does not run");
        clock.Advance(StanzaRouter.RequestDeadline);
        await TestRelay.UntilAsync(() => Task.FromResult(Conditions().Count == 1), () => "no answer");

        handler.Hold().SetException(new InvalidOperationException("a fault"));
        await AskAsync("bob@example.com/1");
        await TestRelay.UntilAsync(() => Task.FromResult(Conditions().Count == 2), () => "no answer");

        Assert.Equal(["internal-server-error", "internal-server-error"], Conditions());
    }

    private async Task AskAsync(params string[] senders)
    {
        foreach (var sender in senders)
        {
            Assert.True(
                await router.RouteAsync(
                    ParserDriver.Stanza($"<iq type='get' id='1' from='{sender}' to='push.example.com'>{Ask}</iq>"),
                    Token
                )
            );
        }
    }

    private List<string?> Conditions()
    {
        lock (sent)
        {
            return [.. sent.Select(XmppStanza.ConditionOf)];
        }
    }

    private sealed class AskHandler : IIqHandler
    {
        private volatile Task work = Task.CompletedTask;

        public List<string?> Accounts { get; } = [];

        public IReadOnlyCollection<XName> Names => [];

        public RequestPermits? Permits { get; set; }

        public TaskCompletionSource Hold()
        {
            var held = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            work = held.Task;
            return held;
        }

        public bool Takes(IqType type, XElement payload) => type == IqType.Get && payload.Name.LocalName == "ask";

        public async Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken)
        {
            lock (Accounts)
            {
                Accounts.Add(request.Account);
            }

            await work.WaitAsync(cancellationToken);
            return new IqAnswer.Result(null);
        }
    }

    private sealed class ReadWorker : ILinkWorker
    {
        public IReadOnlyCollection<XName> Names => [];

        public bool Takes(XElement stanza) => stanza.Elements().Any(e => e.Name.LocalName == "read");

        public Task RunAsync(ServerLink link, LinkInbox inbox, CancellationToken stoppingToken) => Task.CompletedTask;
    }
}
