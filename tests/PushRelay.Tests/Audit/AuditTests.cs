using System.Net.Http.Json;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Audit;

namespace PushRelay.Tests.Audit;

/// <summary>What the audit knows beside the changes of devices and tokens: settings, operator keys, and who was refused.</summary>
public sealed class AuditTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-audit-").FullName;

    private int starts;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public async Task A_start_tells_which_settings_and_operator_keys_are_others_than_at_the_last_and_no_secret()
    {
        const string Secret = "another operator's key, long enough";
        await RecordStartAsync();
        var first = await RecordStartAsync();
        Assert.Contains("operator_key.added tests", first);
        Assert.Contains("settings.changed Dispatch", first);
        Assert.Equal(first.Distinct(), first);

        var second = await RecordStartAsync(
            "--Dispatch:MaxAttempts=3",
            "--Api:OperatorKeys:1:Name=backend",
            $"--Api:OperatorKeys:1:Key={Secret}"
        );
        Assert.Equal(
            ["operator_key.added backend", "settings.changed Api", "settings.changed Dispatch"],
            second[first.Count..].Order(StringComparer.Ordinal)
        );

        // the same name with another key is another key
        var third = await RecordStartAsync(
            "--Dispatch:MaxAttempts=3",
            "--Api:OperatorKeys:1:Name=backend",
            $"--Api:OperatorKeys:1:Key={Secret}!"
        );
        Assert.Equal(
            ["operator_key.added backend", "operator_key.removed backend", "settings.changed Api"],
            third[second.Count..].Order(StringComparer.Ordinal)
        );
    }

    [Fact]
    public async Task Who_is_refused_stands_in_the_audit_once_a_minute_for_an_address()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();
        const string Guess = "pra_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        using var stranger = relay.NewClient(Guess);
        await stranger.GetAsync("/v1/devices", Token);
        await stranger.GetAsync("/v1/devices", Token);
        relay.Advance(TimeSpan.FromMinutes(1));
        using var bob = relay.NewClient((await relay.IssueTokenAsync(TestRelay.Bob)).Token);
        await bob.GetAsync("/v1/audit", Token);
        relay.Advance(TimeSpan.FromMinutes(1));
        using var operators = relay.NewClient();

        var records = (await operators.GetFromJsonAsync<Page<AuditResponse>>("/v1/audit", Token))!.Items.Where(r =>
            r.Action.EndsWith(".refused", StringComparison.Ordinal)
        );

        Assert.Equal(
            [
                ("account-token", "route.refused", TestRelay.Bob, "/v1/audit", "forbidden"),
                ("unknown", "credential.refused", null, null, "unauthorized"),
            ],
            records.Select(r => (r.Actor, r.Action, r.Account, r.Target, r.Result))
        );
        Assert.DoesNotContain(Guess, await operators.GetStringAsync("/v1/audit", Token), StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_logged_never_makes_a_second_line()
    {
        // line 101: as RelayLogging writes where output is collected
        using var text = new StringWriter();
        var hostile = "a\n{\"@l\":\"Fatal\"}\rb";
        var logged = new Serilog.Events.LogEvent(
            DateTimeOffset.UnixEpoch,
            Serilog.Events.LogEventLevel.Information,
            null,
            new Serilog.Parsing.MessageTemplateParser().Parse("by {Name}"),
            [new Serilog.Events.LogEventProperty("Name", new Serilog.Events.ScalarValue(hostile))]
        );

        new Serilog.Formatting.Compact.RenderedCompactJsonFormatter().Format(logged, text);

        Assert.Equal(1, text.ToString().Count(c => c is '\n' or '\r'));
        Assert.Equal(hostile, (string?)System.Text.Json.Nodes.JsonNode.Parse(text.ToString())!["Name"]);
    }

    /// <returns>Action and first word of the target of all such records, oldest first.</returns>
    private async Task<List<string>> RecordStartAsync(params string[] settings)
    {
        await using var relay = await TestRelay.OpenAsync(
            null,
            [
                $"--Storage:ConnectionString=Data Source={folder}/relay.db",
                $"--Storage:MasterKeyFile={folder}/master.key",
                "--Apps:0:Apns:KeyFile=" + KeyFile(),
                .. settings,
            ]
        );
        // each start is later than the one before
        relay.Advance(TimeSpan.FromHours(++starts));
        await relay.Get<AccessUpkeep>().RecordSettingsAsync(Token);
        var records = await relay.Get<AuditTrail>().ListAsync(null, null, 200, Token);
        Assert.All(
            records,
            r => Assert.Equal(($"user {Environment.UserName}", Environment.MachineName, "done"), (r.Actor, r.Address, r.Result))
        );
        Assert.DoesNotContain(
            records,
            r => r.Target!.Contains("secret", StringComparison.Ordinal) || r.Target.Contains("operator", StringComparison.Ordinal)
        );
        return [.. records.Reverse().Select(r => $"{r.Action} {r.Target!.Split(' ')[0]}")];
    }

    private string KeyFile()
    {
        var file = Path.Combine(folder, "AuthKey.p8");
        if (!File.Exists(file))
        {
            File.WriteAllText(file, PushRelay.Apns.Simulator.ApnsSimulator.CreateSigningKeyPem());
        }

        return file;
    }
}
