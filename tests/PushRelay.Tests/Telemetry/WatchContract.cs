using System.Globalization;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apns.Simulator;
using PushRelay.Bridge;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Storage;
using PushRelay.Telemetry;
using PushRelay.Tests.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Telemetry;

/// <summary>Each condition from its cause: raised, shown, cured and over.</summary>
public abstract class WatchContract : IAsyncLifetime
{
    private static readonly StreamName Stream = new(TestRelay.Server, "");

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-watch-").FullName;
    private ApnsSimulator apns = null!;
    private string? database;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        var ca = Path.Combine(folder, "ca.pem");
        await File.WriteAllTextAsync(ca, apns.CaPem, Token);
        database = await NewDatabaseAsync();
        var endpoint = apns.Endpoint.GetLeftPart(UriPartial.Authority);
        relay = await TestRelay.OpenAsync(
            database,
            $"--Apps:0:Apns:Endpoint={endpoint}",
            $"--Apps:0:Apns:SandboxEndpoint={endpoint}",
            $"--Apps:0:Apns:TrustedCertificateFile={ca}"
        );
        // the simulator judges the age of a provider token by the real time
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
        await apns.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_condition_has_the_same_text_in_the_list_and_in_the_metrics_and_is_over_in_both()
    {
        await relay.ServeAsync();
        using var client = relay.NewClient();
        relay.Get<PresenceTracker>().Replace(Stream, [], new StreamSource("Prosody 0.12.3", "0.9.4", 0), relay.Clock.GetUtcNow());
        await LookAsync<ModuleWatch>();

        var list = await client.GetFromJsonAsync<JsonNode>("/v1/conditions", Token);
        var item = Assert.Single(list!["items"]!.AsArray(), i => (string?)i!["kind"] == "module_outdated")!;
        Assert.Equal("example.com", (string?)item["subject"]);
        Assert.Contains("the server has version 0.9.4, this relay comes with 1.0.0", (string)item["detail"]!, StringComparison.Ordinal);
        Assert.Equal(ConditionKind.ModuleOutdated.Cure, (string?)item["cure"]);
        const string Line = "pushrelay_condition{kind=\"module_outdated\",subject=\"example.com\"} 1";
        Assert.Contains(Line.Split('{')[1].Split('}')[0], await client.GetStringAsync("/metrics", Token), StringComparison.Ordinal);

        relay.Get<PresenceTracker>().Replace(Stream, [], new StreamSource("Prosody 0.12.3", "1.0.0", 0), relay.Clock.GetUtcNow());
        await LookAsync<ModuleWatch>();

        Assert.DoesNotContain("module_outdated", await client.GetStringAsync("/v1/conditions", Token), StringComparison.Ordinal);
        Assert.DoesNotContain("module_outdated", await client.GetStringAsync("/metrics", Token), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Events_that_a_module_dropped_are_a_condition_for_ten_minutes()
    {
        relay.Get<PresenceTracker>().Replace(Stream, [], new StreamSource("Prosody 0.12.3", "1.0.0", 17), relay.Clock.GetUtcNow());
        await LookAsync<ModuleWatch>();
        Assert.Contains("17 since", Text(ConditionKind.EventsDropped, TestRelay.Server), StringComparison.Ordinal);

        relay.Advance(ModuleWatch.DroppedLasts);
        await LookAsync<ModuleWatch>();

        Assert.Null(Text(ConditionKind.EventsDropped, TestRelay.Server));
    }

    [Fact]
    public async Task A_delivery_that_is_due_for_a_minute_is_a_condition_until_it_is_sent()
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello");
        await LookAsync<PendingWatch>();
        Assert.Null(Text(ConditionKind.OldestPending, "com.example.chat/apns"));

        await using (var db = relay.NewDb())
        {
            // as if it had come a minute ago: the simulator refuses provider tokens of a later time
            var due = await relay.NowAsync() - PendingWatch.Tolerated;
            await db.Set<Delivery>().ExecuteUpdateAsync(set => set.SetProperty(d => d.DueAt, due), Token);
        }

        await LookAsync<PendingWatch>();
        Assert.Contains("1 of them", Text(ConditionKind.OldestPending, "com.example.chat/apns"), StringComparison.Ordinal);

        await relay.ServeAsync();
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        await LookAsync<PendingWatch>();

        Assert.Null(Text(ConditionKind.OldestPending, "com.example.chat/apns"));
    }

    [Fact]
    public async Task Deliveries_behind_an_open_circuit_are_no_oldest_pending()
    {
        await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello");
        await using (var db = relay.NewDb())
        {
            await CircuitTable.OpenAsync(
                db,
                new LaneOwner(TestRelay.Lane, TestRelay.App, "apns"),
                new CircuitOpening(Fault.Outage, "apns_connect_failed", TimeSpan.FromMinutes(5), TimeSpan.FromMinutes(5)),
                await relay.NowAsync(),
                Token
            );
        }

        relay.Advance(PendingWatch.Tolerated + TimeSpan.FromSeconds(3));
        await LookAsync<PendingWatch>();

        Assert.Null(Text(ConditionKind.OldestPending, "com.example.chat/apns"));
    }

    [Fact]
    public async Task Twenty_dead_tokens_of_one_environment_are_a_mismatch_for_an_hour()
    {
        await relay.ServeAsync();
        apns.AnswerNext(400, "BadDeviceToken", ApnsComplaints.TokensMin);
        for (var i = 0; i < ApnsComplaints.TokensMin; i++)
        {
            var account = string.Create(CultureInfo.InvariantCulture, $"user{i}@example.com");
            await relay.RegisterAsync(account);
            await relay.CommitMessageAsync("hello", m => m with { Account = account });
        }

        await UntilAsync(ConditionKind.EnvironmentMismatch, "BadDeviceToken 20 times");

        relay.Advance(ApnsComplaints.Within);
        await LookAsync<ApnsComplaints>();
        Assert.Null(Text(ConditionKind.EnvironmentMismatch, "com.example.chat/apns"));
    }

    [Fact]
    public async Task A_key_that_somebody_else_uses_is_contested_at_the_second_refusal()
    {
        apns.AnswerNext(429, "TooManyProviderTokenUpdates", 2);
        var alert = Notifications.Message(TestRelay.NewToken()) with
        {
            Lane = TestRelay.Lane,
            ExpiresAt = relay.Clock.GetUtcNow().AddHours(1),
        };
        await relay.Get<ApnsNetwork>().SendAsync(alert, Token);
        Assert.Null(Text(ConditionKind.KeyContested, "com.example.chat/apns"));

        await relay.Get<ApnsNetwork>().SendAsync(alert, Token);
        Assert.Contains("2 times", Text(ConditionKind.KeyContested, "com.example.chat/apns"), StringComparison.Ordinal);

        relay.Advance(ApnsComplaints.Within);
        await LookAsync<ApnsComplaints>();
        Assert.Null(Text(ConditionKind.KeyContested, "com.example.chat/apns"));
    }

    [Fact]
    public async Task A_certificate_of_the_settings_is_a_condition_thirty_days_before_its_end()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var now = relay.Clock.GetUtcNow();
        using var certificate = new CertificateRequest("CN=ca", key, HashAlgorithmName.SHA256).CreateSelfSigned(now, now.AddDays(40));
        var file = Path.Combine(folder, "ca.pem");
        await File.WriteAllTextAsync(file, certificate.ExportCertificatePem(), Token);
        await LookAsync<CertificateWatch>();
        Assert.Null(Text(ConditionKind.KeyExpiring, file));

        relay.Advance(TimeSpan.FromDays(11));
        await LookAsync<CertificateWatch>();
        Assert.Contains("its end is", Text(ConditionKind.KeyExpiring, file), StringComparison.Ordinal);

        using var renewed = new CertificateRequest("CN=ca", key, HashAlgorithmName.SHA256).CreateSelfSigned(now, now.AddDays(400));
        await File.WriteAllTextAsync(file, renewed.ExportCertificatePem(), Token);
        relay.Advance(TimeSpan.FromMinutes(10));
        await LookAsync<CertificateWatch>();
        Assert.Null(Text(ConditionKind.KeyExpiring, file));
    }

    [Fact]
    public async Task Failures_of_the_database_are_one_condition_once_nothing_was_committed_for_some_seconds()
    {
        var failures = relay.Get<DatabaseFailures>();
        failures.Add("claims", new IOException("connection refused"));
        failures.Add("events", new IOException("connection refused"));
        Assert.Null(Text(ConditionKind.DatabaseDown, "database"));

        relay.Advance(Watches.Every);
        await LookAsync<DatabaseFailures>();
        Assert.Equal(
            "the database takes no changes: connection refused (work that waits: claims, events)",
            Text(ConditionKind.DatabaseDown, "database")
        );

        failures.Remove("claims");
        Assert.NotNull(Text(ConditionKind.DatabaseDown, "database"));
        failures.Remove("events");
        Assert.Null(Text(ConditionKind.DatabaseDown, "database"));
    }

    private protected abstract Task<string?> NewDatabaseAsync();

    private protected TestRelay Relay => relay;

    private protected Task LookAsync<T>()
        where T : IWatch => relay.Get<T>().LookAsync(Token);

    private protected string? Text(ConditionKind kind, string subject) =>
        relay.Get<Conditions>().Snapshot().SingleOrDefault(c => c.Kind == kind && c.Subject == subject)?.Text;

    private Task UntilAsync(ConditionKind kind, string text) =>
        TestRelay.UntilAsync(
            () => Task.FromResult(Text(kind, "com.example.chat/apns")?.Contains(text, StringComparison.Ordinal) == true),
            () => $"no {kind.Name}"
        );
}

public sealed class SqliteWatchTests : WatchContract
{
    private protected override Task<string?> NewDatabaseAsync() => Task.FromResult<string?>(null);

    [Fact]
    public async Task A_write_that_finds_no_space_is_disk_low_until_one_succeeds()
    {
        await using var db = Relay.NewDb();
        await db.Database.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await db.Database.ExecuteSqlRawAsync("PRAGMA max_page_count = 1", TestContext.Current.CancellationToken);
        var full = await Assert.ThrowsAnyAsync<Exception>(() =>
            db.Database.ExecuteSqlRawAsync("CREATE TABLE big AS SELECT randomblob(1000000) AS x", TestContext.Current.CancellationToken)
        );

        Relay.Get<DatabaseFailures>().Add("events", full);
        await LookAsync<StorageWatch>();
        Assert.Contains("full", Text(ConditionKind.DiskLow, "database"), StringComparison.Ordinal);

        Relay.Get<DatabaseFailures>().Remove("events");
        await LookAsync<StorageWatch>();
        Assert.Null(Text(ConditionKind.DiskLow, "database"));
    }

    [Theory]
    [InlineData(100, 199, true)]
    [InlineData(100, 201, false)]
    [InlineData(10_000, 499, true)]
    [InlineData(10_000, 501, false)]
    public void A_disk_is_low_below_200_MB_and_below_5_percent(long total, long free, bool low) =>
        Assert.Equal(low, StorageWatch.IsLow(free * 1_000_000, total * 1_000_000));

    [Theory]
    [InlineData("0.9.9", true)]
    [InlineData("1.0.0", false)]
    [InlineData("1.0.1-dev", false)]
    [InlineData("1.1.0", false)]
    [InlineData("unknown", false)]
    public void A_module_is_outdated_by_its_minor_version(string module, bool old) => Assert.Equal(old, ModuleWatch.IsOld(module));

    [Fact]
    public void The_module_that_is_released_with_the_relay_has_the_version_that_is_expected()
    {
        var erlang = File.ReadAllText(Path.Combine(Repository.Root, "src/modules/ejabberd/mod_push_relay.erl"));
        Assert.Contains($"MODULE_VERSION, <<\"{BridgeProtocol.ModuleVersion}\">>", erlang, StringComparison.Ordinal);
    }
}

public sealed class PostgreSqlWatchTests(PostgreSqlServer server) : WatchContract
{
    private protected override async Task<string?> NewDatabaseAsync() =>
        await server.NewDatabaseAsync(TestContext.Current.CancellationToken);

    [Fact]
    public async Task A_clock_that_is_six_seconds_from_the_databases_is_a_condition_until_it_is_right()
    {
        Relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow() + TimeSpan.FromSeconds(60));
        await LookAsync<StorageWatch>();
        Assert.Contains("s ahead of the clock of the database", Text(ConditionKind.ClockSkew, "database"), StringComparison.Ordinal);

        Relay.Get<DatabaseClock>().Offset = Relay.Clock.GetUtcNow() - TimeProvider.System.GetUtcNow();
        await LookAsync<StorageWatch>();

        Assert.Null(Text(ConditionKind.ClockSkew, "database"));
    }
}
