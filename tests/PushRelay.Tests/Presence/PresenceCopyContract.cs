using System.Globalization;
using Microsoft.EntityFrameworkCore;
using PushRelay.Cluster;
using PushRelay.Presence;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Presence;

/// <summary>The copy that other nodes go by: complete or unknown, and never old; on both databases.</summary>
public abstract class PresenceCopyContract : IAsyncLifetime
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");
    private static readonly StreamName Other = new(TestRelay.Server, "n2");

    private TestRelay relay = null!;
    private PresenceCopyWriter writer = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private PresenceTracker Tracker => relay.Get<PresenceTracker>();

    private PresenceCopy Copy => relay.Get<PresenceCopy>();

    [Fact]
    public void What_is_borne_is_five_seconds() => Assert.Equal(TimeSpan.FromSeconds(5), PresenceCopy.AgeMax);

    public async ValueTask InitializeAsync()
    {
        relay = await OpenAsync();
        // PostgreSQL goes by the real time, of which a test may take more than five seconds
        Copy.AgeTolerated = TimeSpan.FromMinutes(2);
        await BeginAsync();
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task What_the_holder_knows_the_others_read_a_write_later()
    {
        var phone = Session("s1", SessionState.Inactive) with { Show = "away", Priority = -5, Resource = "Büro \"1\"" };
        Tracker.Replace(Stream, [(TestRelay.Bob, phone), (TestRelay.Bob, Session("s2")), (TestRelay.Alice, Session("s3"))]);
        Assert.False(await writer.WriteAsync(Token));

        var stored = await StoredAsync();
        Assert.Equal(AccountState.Foreground, stored.State);
        Assert.Equal([phone, Session("s2")], stored.Sessions.OrderBy(s => s.Sid, StringComparer.Ordinal));

        Tracker.Apply(Stream, TestRelay.Bob, "s2", null);
        Tracker.Apply(Stream, TestRelay.Bob, "s1", phone with { State = SessionState.Hibernating });
        await writer.WriteAsync(Token);
        stored = await StoredAsync();
        Assert.Equal((AccountState.Background, SessionState.Hibernating), (stored.State, Assert.Single(stored.Sessions).State));
        Assert.Equal(AccountState.Offline, (await StoredAsync("nobody@example.com")).State);
    }

    [Fact]
    public async Task What_is_older_than_is_borne_is_unknown_and_what_did_not_change_is_said_again_in_time()
    {
        Tracker.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);
        await writer.WriteAsync(Token);
        relay.Advance(Copy.AgeTolerated - TimeSpan.FromMinutes(1));
        Assert.Equal(AccountState.Foreground, (await StoredAsync()).State);

        await writer.WriteAsync(Token);
        relay.Advance(Copy.AgeTolerated - TimeSpan.FromMinutes(1));
        Assert.Equal(AccountState.Foreground, (await StoredAsync()).State);

        relay.Advance(TimeSpan.FromSeconds(61));
        Assert.Equal(AccountState.Unknown, (await StoredAsync()).State);
        Assert.Empty((await StoredAsync()).Sessions);
    }

    [Fact]
    public async Task A_stream_that_is_lost_is_unknown_to_the_others_too()
    {
        Tracker.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);
        await writer.WriteAsync(Token);

        Tracker.MarkUnknown(Stream);
        await writer.WriteAsync(Token);

        Assert.Equal(AccountState.Unknown, (await StoredAsync()).State);
    }

    [Fact]
    public async Task A_snapshot_of_many_is_written_in_parts_and_unknown_until_the_last()
    {
        Tracker.Replace(
            Stream,
            [
                .. Enumerable
                    .Range(0, 5000)
                    .Select(i =>
                        (
                            $"u{i.ToString(CultureInfo.InvariantCulture)}@example.com",
                            Session($"s{i.ToString(CultureInfo.InvariantCulture)}")
                        )
                    ),
            ]
        );

        Assert.True(await writer.WriteAsync(Token));
        Assert.True(await writer.WriteAsync(Token));
        Assert.Equal(AccountState.Unknown, (await StoredAsync("u1@example.com")).State);
        Assert.False(await writer.WriteAsync(Token));

        Assert.Equal(AccountState.Foreground, (await StoredAsync("u1@example.com")).State);
        Assert.Equal(AccountState.Foreground, (await StoredAsync("u4999@example.com")).State);
    }

    [Fact]
    public async Task Changes_lost_links_and_times_without_a_relay_are_history_and_a_snapshot_is_not()
    {
        var many = Enumerable.Range(0, 5000).Select(i => ($"u{i}@example.com", Session($"s{i}"))).ToList();
        Tracker.Replace(Stream, [.. many, (TestRelay.Bob, Session("phone"))]);
        while (await writer.WriteAsync(Token)) { }

        Tracker.Apply(Stream, TestRelay.Bob, "phone", Session("phone", SessionState.Inactive));
        await writer.WriteAsync(Token);
        Tracker.Apply(Stream, TestRelay.Bob, "phone", null);
        await writer.WriteAsync(Token);
        Tracker.MarkUnknown(Stream);
        await writer.WriteAsync(Token);
        relay.Advance(TimeSpan.FromSeconds(20));
        // what ended meanwhile would be told
        Tracker.Replace(Stream, [.. many]);
        await writer.WriteAsync(Token);
        Copy.End(writer);
        relay.Advance(TimeSpan.FromMinutes(10));
        await BeginAsync();
        await writer.WriteAsync(Token);

        await using var db = relay.NewDb();
        var history = await db.Set<HistoryEntry>().AsNoTracking().OrderBy(h => h.Id).ToListAsync(Token);
        Assert.Equal(
            [
                "Link  up",
                "Session bob@example.com inactive",
                "Session bob@example.com closed",
                "Link  down",
                "Link  up",
                "Gap  link_down",
                "Gap  relay_down",
            ],
            history
                .Where(h => h.Server == TestRelay.Server)
                .Select(h => (Entry: h, Data: HistoryData.FromJson(h.Data)))
                .Select(h => $"{h.Entry.Kind} {h.Entry.Account} {h.Data.Cause ?? h.Data.State}")
                .Take(7)
        );
    }

    [Fact]
    public async Task What_the_holder_before_wrote_goes_with_the_first_write_of_the_next()
    {
        Tracker.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);
        Tracker.Replace(Other, [(TestRelay.Alice, Session("s2"))]);
        await writer.WriteAsync(Token);
        Copy.End(writer);
        Tracker.Forget(Stream);
        Tracker.Forget(Other);
        Assert.Equal(AccountState.Foreground, (await StoredAsync(TestRelay.Alice)).State);

        await BeginAsync();
        await writer.WriteAsync(Token);
        Assert.Equal(AccountState.Unknown, (await StoredAsync(TestRelay.Alice)).State);
        Tracker.Replace(Stream, []);
        await writer.WriteAsync(Token);

        Assert.Equal(AccountState.Offline, (await StoredAsync(TestRelay.Alice)).State);
        Assert.Equal(AccountState.Offline, (await StoredAsync()).State);
    }

    [Fact]
    public async Task Who_lost_the_link_writes_nothing()
    {
        Tracker.Replace(Stream, [(TestRelay.Bob, Session("s1"))]);
        await writer.WriteAsync(Token);
        relay.Advance(LeaseTable.Duration);
        await relay.Get<LeaseTable>().TakeAsync("link:test", Token);
        Tracker.Apply(Stream, TestRelay.Bob, "s1", null);

        await Assert.ThrowsAsync<LeaseLostException>(() => writer.WriteAsync(Token));
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private static Session Session(string sid, SessionState state = SessionState.Active) =>
        new(sid, "phone", state, true, 0, null, DateTimeOffset.FromUnixTimeSeconds(1_800_000_000));

    private async Task BeginAsync()
    {
        relay.Advance(LeaseTable.Duration);
        writer = Copy.Begin([TestRelay.Server], Assert.NotNull(await relay.Get<LeaseTable>().TakeAsync("link:test", Token)));
    }

    /// <summary>As a node without the link sees it.</summary>
    private Task<AccountPresence> StoredAsync(string account = TestRelay.Bob) => Copy.StoredAsync(TestRelay.Server, account, Token);
}

public sealed class SqlitePresenceCopyTests : PresenceCopyContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlPresenceCopyTests(PostgreSqlServer server) : PresenceCopyContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
