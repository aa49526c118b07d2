using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Access;
using PushRelay.Apns.Simulator;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Ledger;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Tests;

/// <summary>
/// The relay's real modules on a real database, with the time in the test's hands. Nothing runs by itself until <see cref="ServeAsync"/>.
/// </summary>
internal sealed class TestRelay : IAsyncDisposable
{
    public const string App = "com.example.chat";
    public const string Server = "example.com";
    public const string Bob = "bob@example.com";
    public const string Alice = "alice@example.com";
    public static readonly Lane Lane = LaneOf(App);
    public const string OperatorKey = "an operator's key for tests";

    public static readonly Caller Operator = new("tests", null, null);

    private readonly string folder;
    private readonly WebApplication app;
    private bool serving;

    private TestRelay(string folder, WebApplication app, FakeTimeProvider clock) => (this.folder, this.app, Clock) = (folder, app, clock);

    public FakeTimeProvider Clock { get; }

    public string Folder => folder;

    /// <summary>The settings that it runs with, for a command beside it.</summary>
    public string[] Arguments { get; private init; } = [];

    public OutboxQueue Outbox => Get<OutboxQueue>();

    public DeviceRegistry Devices => Get<DeviceRegistry>();

    public MasterKey MasterKey => Get<MasterKey>();

    public Uri Address => new(app.Urls.First());

    /// <param name="postgreSql">A connection string; null: SQLite.</param>
    /// <param name="settings">More settings, <c>--A:B=c</c>; a later one wins.</param>
    public static Task<TestRelay> OpenAsync(string? postgreSql = null, params string[] settings) => OpenAsync(postgreSql, null, settings);

    /// <param name="postgreSql">A connection string; null: SQLite.</param>
    /// <param name="more">Modules beside the relay's own.</param>
    /// <param name="settings">More settings, <c>--A:B=c</c>; a later one wins.</param>
    public static async Task<TestRelay> OpenAsync(string? postgreSql, Action<IServiceCollection>? more, string[] settings)
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-test-").FullName;
        // PostgreSQL goes by its own clock, which is the real one
        var clock = new FakeTimeProvider(
            postgreSql is null
                ? DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture)
                : TimeProvider.System.GetUtcNow()
        );
        string[] all = [.. Settings(folder, postgreSql), .. settings];
        try
        {
            return new TestRelay(folder, await RelayApp.OpenAsync(null, all, clock, TestContext.Current.CancellationToken, more), clock)
            {
                Arguments = all,
            };
        }
        catch
        {
            Directory.Delete(folder, recursive: true);
            throw;
        }
    }

    /// <summary>Settings that a relay starts with, with an app whose key is fresh.</summary>
    public static string[] Settings(string folder, string? postgreSql = null)
    {
        var key = Path.Combine(folder, "AuthKey.p8");
        File.WriteAllText(key, ApnsSimulator.CreateSigningKeyPem());
        return
        [
            "--Urls=http://127.0.0.1:0",
            $"--Storage:Provider={(postgreSql is null ? "Sqlite" : "PostgreSql")}",
            $"--Storage:ConnectionString={postgreSql ?? $"Data Source={folder}/relay.db"}",
            $"--Storage:MasterKeyFile={folder}/master.key",
            "--Xmpp:Components:0:Domain=push.example.com",
            "--Xmpp:Components:0:Port=1",
            "--Xmpp:Components:0:Secret=secret",
            $"--Xmpp:Components:0:Servers:0={Server}",
            $"--Apps:0:Id={App}",
            "--Apps:0:Apns:TeamId=ABCDE12345",
            "--Apps:0:Apns:KeyId=FGHIJ67890",
            $"--Apps:0:Apns:KeyFile={key}",
            $"--Apps:0:Apns:BundleId={App}",
            "--Apps:0:Apns:Endpoint=https://127.0.0.1:1",
            "--Apps:0:Apns:SandboxEndpoint=https://127.0.0.1:1",
            "--Api:OperatorKeys:0:Name=tests",
            $"--Api:OperatorKeys:0:Key={OperatorKey}",
            "--Serilog:MinimumLevel:Default=Fatal",
        ];
    }

    public T Get<T>()
        where T : notnull => app.Services.GetRequiredService<T>();

    public RelayDb NewDb() => Get<IDbContextFactory<RelayDb>>().CreateDbContext();

    /// <summary>Moves the time of this process and, on PostgreSQL, the database's as the relay sees it.</summary>
    public void Advance(TimeSpan by)
    {
        // the database's first: what this one's timers start looks at that
        Get<DatabaseClock>().Offset += by;
        Clock.Advance(by);
        // a dispatcher that looked just before may have set its timer just after: real time goes on, this one does not
        Get<WorkSignal>().Wake();
    }

    public async Task<DateTimeOffset> NowAsync()
    {
        await using var db = NewDb();
        return await Get<DatabaseClock>().NowAsync(db, TestContext.Current.CancellationToken);
    }

    /// <summary>As it is stored: a name that must stay.</summary>
    public static Lane LaneOf(string app, bool sandbox = false) => new(sandbox ? $"{app}/apns-sandbox" : $"{app}/apns");

    /// <summary>Lets inserts claim, as a dispatcher does that runs in this process.</summary>
    public Permits OpenPermits(TimeSpan lease, int concurrency = 500)
    {
        var permits = Get<Permits>();
        permits.Open(new DispatchCapacity(concurrency, Get<PushNetworks>().Reachable, Get<PushNetworks>().LaneMax, lease));
        return permits;
    }

    /// <summary>A message for this device, to be appended.</summary>
    public Delivery NewRow(
        Device device,
        Guid id,
        DateTimeOffset now,
        Guid orderingKey,
        TimeSpan? due = null,
        string? eventKey = null,
        string app = App
    ) =>
        new()
        {
            Id = id,
            Server = Server,
            Account = device.Account,
            DeviceKey = device.Key,
            Device = device.Id,
            App = app,
            Platform = device.Platform,
            Lane = LaneOf(app),
            EventKey = eventKey ?? id.ToString(),
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            Sender = Alice,
            Conversation = Alice,
            EventAt = now,
            OrderingKey = orderingKey,
            Content = new AlertContent { Body = "hello" }.Seal(MasterKey, id),
            State = DeliveryState.Pending,
            Reason = Reasons.Offline,
            CreatedAt = now,
            DueAt = now + (due ?? TimeSpan.Zero),
            ExpiresAt = now + TimeSpan.FromDays(1),
        };

    public async Task ServeAsync()
    {
        serving = true;
        await app.StartAsync(TestContext.Current.CancellationToken);
    }

    public HttpClient NewClient(string? key = OperatorKey)
    {
        var client = new HttpClient { BaseAddress = Address };
        if (key is not null)
        {
            client.DefaultRequestHeaders.Authorization = new("Bearer", key);
        }

        return client;
    }

    /// <summary>A token as the account gets it by the command.</summary>
    public async Task<(string Token, AccountToken Kept)> IssueTokenAsync(string account)
    {
        var issue = await Get<AccountTokens>().IssueAsync(account, new Actor("test", null), TestContext.Current.CancellationToken);
        var issued = Assert.IsType<TokenIssue.Issued>(issue);
        return (issued.Secret, issued.Token);
    }

    public static RegistrationRequest NewRegistration(
        string account,
        string? token = null,
        string? callToken = null,
        string app = App,
        string environment = "production"
    )
    {
        var tokens = new Dictionary<string, string> { [Channels.Alert] = token ?? NewToken() };
        if (callToken is not null)
        {
            tokens[Channels.Call] = callToken;
        }

        return new RegistrationRequest
        {
            Account = account,
            App = app,
            Platform = "apns",
            Environment = environment,
            Tokens = tokens,
        };
    }

    public Task<DeviceResult> RegisterAsync(RegistrationRequest request, CancellationToken cancellationToken) =>
        Get<Registrations>().RegisterAsync(request, Operator, cancellationToken);

    public async Task<Device> RegisterAsync(string account = Bob, string? token = null, string? resource = null, string? id = null)
    {
        var request = NewRegistration(account, token) with { Id = id, Resource = resource };
        return Assert.IsType<DeviceResult.Done>(await RegisterAsync(request, TestContext.Current.CancellationToken)).Device;
    }

    /// <summary>Every account's rows, in their order.</summary>
    public async Task<List<Delivery>> AllRowsAsync()
    {
        await using var db = NewDb();
        return await db.Set<Delivery>().AsNoTracking().OrderBy(d => d.Id).ToListAsync(CancellationToken.None);
    }

    public async Task<List<Delivery>> RowsAsync(string account = Bob)
    {
        await using var db = NewDb();
        return await db.Set<Delivery>()
            .AsNoTracking()
            .Where(d => d.Account == account)
            .OrderBy(d => d.Id)
            .ToListAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>The account's rows once <paramref name="settled"/> of them say so; fails after 20 seconds.</summary>
    public async Task<List<Delivery>> WaitForRowsAsync(Func<List<Delivery>, bool> settled, string account = Bob)
    {
        List<Delivery> rows = [];
        await UntilAsync(
            async () => settled(rows = await RowsAsync(account)),
            () => string.Join("; ", rows.Select(r => $"{r.State}/{r.Reason} attempts {r.Attempts} due {r.DueAt:O}"))
        );
        return rows;
    }

    /// <summary>Looks until it holds; fails after 20 seconds with what there is instead.</summary>
    public static async Task UntilAsync(Func<Task<bool>> holds, Func<string> instead)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (!await holds())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(started) < TimeSpan.FromSeconds(20), instead());
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, TestContext.Current.CancellationToken);
        }
    }

    public async Task<IReadOnlyList<DeliveryAttempt>> AttemptsAsync(Guid delivery) =>
        (await Get<DeliveryQueries>().FindAsync(null, delivery, TestContext.Current.CancellationToken))!.Log;

    /// <summary>A message as the bridge reports it, to an account that is offline.</summary>
    public Task CommitMessageAsync(string? body, Func<RelayEvent.Message, RelayEvent.Message>? change = null)
    {
        var message = new RelayEvent.Message(Bob, Clock.GetUtcNow())
        {
            Key = Guid.NewGuid().ToString(),
            Source = EventSource.Bridge,
            Class = EventClass.Text,
            From = Alice,
            Type = "chat",
            Content = new AlertContent { Body = body },
            Presence = new AccountPresence(AccountState.Offline, []),
        };
        return Get<EventIngest>()
            .CommitAsync(
                [new EventBatch(new StreamName(Server, ""), [change is null ? message : change(message)], null)],
                term: null,
                TestContext.Current.CancellationToken
            );
    }

    public static string NewToken() => Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(32));

    public async ValueTask DisposeAsync()
    {
        if (!Directory.Exists(folder))
        {
            // a test that reads the log ends it before
            return;
        }

        var ended = EndAsync();
        while (!ended.IsCompleted)
        {
            // whatever bounds a wait at the end, a drain or a request's deadline, goes by this time, which does not go on by itself
            Clock.Advance(TimeSpan.FromSeconds(1));
            await Task.WhenAny(ended, Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, CancellationToken.None));
        }

        await ended;
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    private async Task EndAsync()
    {
        if (serving)
        {
            await app.StopAsync();
        }

        await app.DisposeAsync();
    }
}
