using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Apns.Simulator;
using PushRelay.Cli;
using PushRelay.Settings;
using PushRelay.Telemetry;
using PushRelay.Tests.Bridge;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Cli;

/// <summary><c>pushrelay doctor</c>: what is well has a line that says so, what is not one with the cure.</summary>
public sealed class DoctorTests(PostgreSqlServer postgreSql) : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-doctor-").FullName;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_wrong_setting_is_the_only_line_and_has_the_cure()
    {
        var check = Assert.Single(await ExamineAsync("--Xmpp:Components:0:Port=99999"));

        Assert.Equal(("settings", false), (check.Name, check.Ok));
        Assert.Contains("from 1 to 65535", check.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Xmpp:Components:0:Port", 6)]
    [InlineData("Xmpp:Components:1:Prot", 9)]
    [InlineData("Xmpp:Components:1:Secret", 7)]
    [InlineData("Urls", 2)]
    [InlineData("Storage:MasterKeyFile", null)]
    [InlineData("Xmpp:Other", null)]
    public void What_is_wrong_with_a_setting_is_found_in_the_file(string setting, int? line)
    {
        var file = new SettingsFile(Path.Combine(folder, "settings.json"));
        File.WriteAllText(
            file.Path,
            """
            { // a comment
              "urls": "http://localhost:8080",
              "Xmpp": {
                "Components": [
                  { "Servers": ["a", "b"], "Limits": { "X": 1 },
                    "Port": 99999 },
                  {
                    "Domain": "push.example.com",
                    "Prot": 5347,
                  }
                ] } }
            """
        );

        var problem = new SettingsProblem(setting, $"{setting} is wrong");

        Assert.Equal(
            line is null ? problem.Text : $"{problem.Text} ({file.Path}:{line})",
            RelayApp.ReadSettings(file.Path, []).Locate(problem)
        );
        Assert.Null(new SettingsFile(Path.Combine(folder, "none.json")).LineOf(setting));
    }

    [Fact]
    public async Task A_value_from_elsewhere_is_not_looked_for_in_the_file()
    {
        var file = Path.Combine(folder, "settings.json");
        await File.WriteAllTextAsync(file, """{ "Storage": { "Provider": "Sqlite" }, "Xmpp": { "HeartbeatTimeout": "never" } }""", Token);

        Assert.EndsWith(
            $"({file}:1)",
            Assert.Single(await DoctorCommand.ExamineAsync(file, TestRelay.Settings(folder), TimeProvider.System, Token)).Detail,
            StringComparison.Ordinal
        );
        var check = Assert.Single(
            await DoctorCommand.ExamineAsync(
                file,
                [.. TestRelay.Settings(folder), "--Xmpp:HeartbeatTimeout=never"],
                TimeProvider.System,
                Token
            )
        );
        Assert.Contains("HeartbeatTimeout", check.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(file, check.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("5")]
    [InlineData("""{"Urls" """)]
    [InlineData("""{"\ud800": {"Urls": 1}}""")]
    [InlineData("""]""")]
    public void A_file_that_is_no_settings_file_adds_nothing_to_what_is_wrong(string text)
    {
        var file = new SettingsFile(Path.Combine(folder, "settings.json"));
        File.WriteAllText(file.Path, text);

        Assert.Null(file.LineOf("Storage:MasterKeyFile"));
    }

    [Fact]
    public async Task Before_the_first_start_there_is_no_database_and_none_is_made()
    {
        var checks = await ExamineAsync();

        Assert.Contains("pushrelay migrate", Failing(checks, "storage"), StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(folder, "relay.db*"));
        Assert.Empty(Directory.GetFiles(folder, "master.key"));
    }

    [Fact]
    public async Task A_database_that_is_away_is_named_without_its_password()
    {
        var check = Failing(
            await DoctorCommand.ExamineAsync(
                null,
                TestRelay.Settings(folder, "Host=127.0.0.1;Port=1;Username=relay;Password=hunter2;Timeout=3"),
                TimeProvider.System,
                Token
            ),
            "storage"
        );

        Assert.Contains("PostgreSQL 15", check, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", check, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_schema_that_is_behind_is_not_brought_up_to_date_in_passing()
    {
        var database = await postgreSql.NewDatabaseAsync(Token);

        var checks = await DoctorCommand.ExamineAsync(null, TestRelay.Settings(folder, database), TimeProvider.System, Token);

        Assert.Contains("The schema lacks", Failing(checks, "storage"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_key_than_the_databases_is_said()
    {
        await MigrateAsync();
        await File.WriteAllTextAsync(Path.Combine(folder, "master.key"), new string('0', 64), Token);

        Assert.Contains("another key", Failing(await ExamineAsync(), "key"), StringComparison.Ordinal);
        File.Delete(Path.Combine(folder, "master.key"));
        Assert.Contains("does not exist", Failing(await ExamineAsync(), "key"), StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(folder, "master.key")));
    }

    [Fact]
    public async Task A_clock_that_is_not_the_databases_is_said()
    {
        var database = await postgreSql.NewDatabaseAsync(Token);
        await (await RelayApp.OpenAsync(null, TestRelay.Settings(folder, database), TimeProvider.System, Token)).DisposeAsync();

        var behind = new Microsoft.Extensions.Time.Testing.FakeTimeProvider(TimeProvider.System.GetUtcNow().AddMinutes(-1))
        {
            AutoAdvanceAmount = TimeSpan.FromMilliseconds(1),
        };
        await using var app = RelayApp.Build(null, TestRelay.Settings(folder, database), behind);
        DoctorCheck? clock = null;
        await foreach (var check in app.Services.GetRequiredService<Doctor>().RunAsync(Token))
        {
            if (check.Name == "clock")
            {
                clock = check;
                break;
            }
        }

        Assert.False(clock!.Ok);
        Assert.Contains("s behind the database", clock.Detail, StringComparison.Ordinal);
        Assert.Contains("NTP", clock.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Insecure_settings_are_said()
    {
        await MigrateAsync();
        Assert.Equal(
            "no insecure setting found",
            (await ExamineAsync("--Xmpp:Components:0:Secret=0123456789abcdef")).Single(c => c.Name == "safety").Detail
        );

        Assert.Contains(
            "Xmpp:Components:0:Secret has fewer than 16 characters. Cure: ",
            Failing(await ExamineAsync(), "safety"),
            StringComparison.Ordinal
        );

        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(Path.Combine(folder, "master.key"), UnixFileMode.UserRead | UnixFileMode.OtherRead);
            Assert.Contains("chmod 600", Failing(await ExamineAsync(), "safety"), StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("http://0.0.0.0:8080", "", true)]
    [InlineData("http://*:8080", "", true)]
    [InlineData("http://0.0.0.0:8080", "https://push.example.com", false)]
    [InlineData("http://[::1]:8080", "", false)]
    [InlineData("http://unix:/run/pushrelay.sock", "", false)]
    public async Task That_plain_HTTP_leaves_the_machine_is_said(string url, string publicUrl, bool said)
    {
        await MigrateAsync();

        var check = (
            await ExamineAsync($"--Urls={url}", $"--Api:PublicUrl={publicUrl}", "--Xmpp:Components:0:Secret=0123456789abcdef")
        ).Single(c => c.Name == "safety");

        Assert.True(check.Ok);
        Assert.Equal(
            said,
            check.Detail.StartsWith($"careful: Urls has {url}, plain HTTP beyond this machine. Cure: ", StringComparison.Ordinal)
        );
        Assert.Equal(!said, check.Detail == "no insecure setting found");
    }

    [Fact]
    public async Task A_database_user_who_may_do_anything_is_said()
    {
        var database = await postgreSql.NewDatabaseAsync(Token);
        await (await RelayApp.OpenAsync(null, TestRelay.Settings(folder, database), TimeProvider.System, Token)).DisposeAsync();

        var checks = await DoctorCommand.ExamineAsync(
            null,
            [.. TestRelay.Settings(folder, database), "--Xmpp:Components:0:Secret=0123456789abcdef"],
            TimeProvider.System,
            Token
        );

        Assert.Contains("superuser", checks.Single(c => c.Name == "safety").Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_port_where_nobody_listens_is_said_and_an_APNs_that_is_not_there()
    {
        await MigrateAsync();

        var checks = await ExamineAsync();

        Assert.Contains("check Host and Port", Failing(checks, "link push.example.com"), StringComparison.Ordinal);
        Assert.Contains("cannot be reached", Failing(checks, $"apns {TestRelay.App}"), StringComparison.Ordinal);
        Assert.True(checks.Single(c => c.Name == "clock").Ok);
    }

    [Theory]
    [InlineData("not-authorized", "component_secret")]
    [InlineData("host-unknown", "ejabberd_service")]
    [InlineData("conflict", "its own domain")]
    public async Task A_server_that_refuses_the_component_is_understood(string condition, string cure)
    {
        await MigrateAsync();
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var serving = RefuseAsync(listener, condition);

        var checks = await ExamineAsync($"--Xmpp:Components:0:Port={Port(listener)}");

        Assert.Contains(cure, Failing(checks, "link push.example.com"), StringComparison.Ordinal);
        await serving;
    }

    [Fact]
    public async Task Without_a_relay_the_servers_are_asked_over_a_link_of_its_own()
    {
        await MigrateAsync();
        using var peer = new ScriptedBridge();
        var answering = AnswerAsync(
            peer,
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        );
        var checks = await ExamineAsync($"--Xmpp:Components:0:Port={peer.Port.ToString(CultureInfo.InvariantCulture)}");
        await answering;
        Assert.True(checks.Single(c => c.Name == "link push.example.com").Ok);
        Assert.Contains("service-unavailable", Failing(checks, "server example.com"), StringComparison.Ordinal);

        answering = AnswerAsync(peer, null);
        checks = await ExamineAsync($"--Xmpp:Components:0:Port={peer.Port.ToString(CultureInfo.InvariantCulture)}");
        await answering;
        Assert.Equal(
            "Peer 1, mod_push_relay 1.0.0, 0 sessions, 0 events dropped",
            checks.Single(c => c.Name == "server example.com").Detail
        );
    }

    [Fact]
    public async Task Beside_a_relay_the_link_is_left_alone_and_what_it_wrote_is_read()
    {
        using var peer = new ScriptedBridge();
        var port = $"--Xmpp:Components:0:Port={peer.Port.ToString(CultureInfo.InvariantCulture)}";
        await using var app = await RelayApp.OpenAsync(null, [.. TestRelay.Settings(folder), port], TimeProvider.System, Token);
        await app.StartAsync(Token);
        await peer.AcceptAsync();
        var request = await peer.ExpectSnapshotRequestAsync();
        Assert.Contains("sessions are unknown", Failing(await ExamineAsync(port), "server example.com"), StringComparison.Ordinal);

        await peer.SendAsync(
            "<events xmlns='urn:pushrelay:bridge:1' epoch='e1' snapshot='true'><session jid='bob@example.com/phone' sid='s1' "
                + "state='active' available='true' priority='0'/></events>",
            wrap: true
        );
        await peer.AnswerSnapshotAsync(request, "e1", 0);
        IReadOnlyList<DoctorCheck> checks = [];
        await TestRelay.UntilAsync(
            async () => (checks = await ExamineAsync(port)).Any(c => c is { Name: "server example.com", Ok: true }),
            () => string.Join('\n', checks)
        );

        Assert.True(checks.Single(c => c.Name == "link push.example.com").Ok);
        Assert.StartsWith(
            "Peer 1, mod_push_relay 1.0.0, 1 sessions, 0 events dropped, heard ",
            checks.Single(c => c.Name == "server example.com").Detail,
            StringComparison.Ordinal
        );
        peer.Dispose();
        await app.StopAsync(Token);
    }

    [Fact]
    public async Task Beside_a_relay_that_cannot_link_the_link_is_what_fails()
    {
        await using var relay = await RelayApp.OpenAsync(null, TestRelay.Settings(folder), TimeProvider.System, Token);
        await relay.StartAsync(Token);
        IReadOnlyList<DoctorCheck> checks = [];
        await TestRelay.UntilAsync(
            async () =>
                (checks = await ExamineAsync()).Any(c =>
                    c.Name.StartsWith("link", StringComparison.Ordinal) && c.Detail.StartsWith("Node ", StringComparison.Ordinal)
                ),
            () => string.Join('\n', checks)
        );

        Assert.Contains("its log says why", Failing(checks, "link push.example.com"), StringComparison.Ordinal);
        await relay.StopAsync(Token);
    }

    [Theory]
    [InlineData(false, null, "takes key FGHIJ67890 of team ABCDE12345")]
    [InlineData(true, null, "takes key FGHIJ67890 of team ABCDE12345")]
    [InlineData(true, "--Apps:0:Apns:KeyId=AAAAAAAAAA", "KeyFile must be one key")]
    [InlineData(true, "--Apps:0:Apns:BundleId=com.example.other", "BundleId must be an app of the team")]
    public async Task What_APNs_answers_to_a_token_of_nobody_tells_whether_the_credentials_are_right(
        bool knownOnly,
        string? wrong,
        string says
    )
    {
        var settings = TestRelay.Settings(folder);
        await using var apns = await ApnsSimulator.StartAsync(
            new ApnsSimulatorOptions
            {
                Topics = [TestRelay.App],
                KnownDevicesOnly = knownOnly,
                Keys =
                [
                    new ApnsSimulatorKey(
                        "ABCDE12345",
                        "FGHIJ67890",
                        await File.ReadAllTextAsync(Path.Combine(folder, "AuthKey.p8"), Token)
                    ),
                ],
            },
            Token
        );
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), apns.CaPem, Token);
        settings =
        [
            .. settings,
            $"--Apps:0:Apns:Endpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:SandboxEndpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:TrustedCertificateFile={folder}/ca.pem",
            .. wrong is null ? (string[])[] : [wrong],
        ];
        await (await RelayApp.OpenAsync(null, settings, TimeProvider.System, Token)).DisposeAsync();

        var check = (await DoctorCommand.ExamineAsync(null, settings, TimeProvider.System, Token)).Single(c =>
            c.Name == $"apns {TestRelay.App}"
        );

        Assert.Equal(wrong is null, check.Ok);
        Assert.Contains(says, check.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void A_line_each_or_JSON()
    {
        DoctorCheck[] checks = [new("key", true, "fine"), new("clock", false, "late.\nCure: NTP")];
        var (lines, json) = (new StringWriter(), new StringWriter());

        DoctorCommand.Write(checks, json: false, lines);
        DoctorCommand.Write(checks, json: true, json);

        Assert.Equal($"ok   key: fine{Environment.NewLine}FAIL clock: late. Cure: NTP{Environment.NewLine}", lines.ToString());
        var read = JsonNode.Parse(json.ToString())!;
        Assert.Equal((false, "clock", false), ((bool)read["ok"]!, (string?)read["checks"]![1]!["name"], (bool)read["checks"]![1]!["ok"]!));
    }

    private static string Port(TcpListener listener) => ((IPEndPoint)listener.LocalEndpoint).Port.ToString(CultureInfo.InvariantCulture);

    private static string Failing(IReadOnlyList<DoctorCheck> checks, string name)
    {
        var check = checks.Single(c => c.Name == name);
        Assert.False(check.Ok, check.Detail);
        return check.Detail;
    }

    private static async Task RefuseAsync(TcpListener listener, string condition)
    {
        using var link = await listener.AcceptTcpClientAsync(Token);
        await using var stream = link.GetStream();
        await stream.WriteAsync(
            System.Text.Encoding.UTF8.GetBytes(
                "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' "
                    + "from='push.example.com' id='abc'>"
                    + $"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
            ),
            Token
        );
        var waste = new byte[4096];
        while (await stream.ReadAsync(waste, Token) > 0)
        {
            // to its end
        }
    }

    /// <summary>One link to see whether it is taken, and one over which the server is asked.</summary>
    private static async Task AnswerAsync(ScriptedBridge peer, string? error)
    {
        await peer.AcceptAsync();
        await peer.ExpectEndAsync();
        await peer.AcceptAsync();
        var request = await peer.ExpectSnapshotRequestAsync();
        await (
            error is null
                ? peer.AnswerSnapshotAsync(request, "e1", 0)
                : peer.SendAsync(
                    $"<iq type='error' id='{(string)request.Attribute("id")!}' from='example.com' to='push.example.com'>{error}</iq>"
                )
        );
        await peer.ExpectEndAsync();
    }

    private async Task MigrateAsync() =>
        await (await RelayApp.OpenAsync(null, TestRelay.Settings(folder), TimeProvider.System, Token)).DisposeAsync();

    /// <summary>What it finds, in which no secret stands: line 103 of docs/security.md.</summary>
    private async Task<IReadOnlyList<DoctorCheck>> ExamineAsync(params string[] settings)
    {
        string[] all = [.. TestRelay.Settings(folder), .. settings];
        var checks = await DoctorCommand.ExamineAsync(null, all, TimeProvider.System, Token);
        List<string> secrets = [TestRelay.OperatorKey, File.ReadAllLines(Path.Combine(folder, "AuthKey.p8"))[1]];
        secrets.AddRange(
            all.Where(s => s.StartsWith("--Xmpp:Components:0:Secret=", StringComparison.Ordinal))
                .Select(s => s.Split('=')[1])
                .Where(s => s != "secret")
        );
        if (File.Exists(Path.Combine(folder, "master.key")))
        {
            secrets.Add(File.ReadAllText(Path.Combine(folder, "master.key")).Trim());
        }

        Assert.All(
            secrets,
            secret => Assert.DoesNotContain(checks, check => check.Detail.Contains(secret, StringComparison.OrdinalIgnoreCase))
        );
        return checks;
    }
}
