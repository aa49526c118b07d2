using System.Xml.Linq;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Links;

namespace PushRelay.Tests.Links;

/// <summary>What a worker reads of its link, and how the parts of a link end together.</summary>
public sealed class LinkInboxTests
{
    private readonly LinkInbox inbox = new(new FakeTimeProvider());

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Events_are_read_in_their_order()
    {
        await inbox.ConnectedAsync(Token);
        await inbox.ReceivedAsync(new XElement("a"), Token);
        inbox.Disconnected();

        Assert.Equal([typeof(LinkEvent.Connected), typeof(LinkEvent.Received), typeof(LinkEvent.Disconnected)], Read());
        Assert.True(inbox.IsEmpty);
    }

    [Fact]
    public async Task A_full_inbox_lets_nothing_more_in_and_its_reader_sees_the_end_of_the_link_first()
    {
        for (var i = 0; i < LinkInbox.EventsMax; i++)
        {
            await inbox.ReceivedAsync(new XElement("a"), Token);
        }

        var waiting = inbox.ReceivedAsync(new XElement("b"), Token).AsTask();
        Assert.False(waiting.IsCompleted);
        inbox.Disconnected();

        Assert.True(inbox.TryRead(out var first));
        Assert.IsType<LinkEvent.Disconnected>(first);
        Assert.Equal(LinkEvents(LinkInbox.EventsMax + 1), Read());
        await waiting;
    }

    [Fact]
    public async Task The_first_part_that_ends_or_fails_ends_the_others()
    {
        var ended = new List<string>();
        await FirstToEnd.RunAsync([UntilStoppedAsync, _ => Task.CompletedTask], Token);
        Assert.Equal(["stopped"], ended);

        await Assert.ThrowsAsync<InvalidOperationException>(() =>
            FirstToEnd.RunAsync([UntilStoppedAsync, _ => Task.FromException(new InvalidOperationException("a fault"))], Token)
        );
        Assert.Equal(["stopped", "stopped"], ended);

        async Task UntilStoppedAsync(CancellationToken stoppingToken)
        {
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, stoppingToken)
                .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            ended.Add("stopped");
        }
    }

    private static IEnumerable<Type> LinkEvents(int received) => Enumerable.Repeat(typeof(LinkEvent.Received), received);

    private List<Type> Read()
    {
        var read = new List<Type>();
        while (inbox.TryRead(out var item))
        {
            read.Add(item.GetType());
        }

        return read;
    }
}
