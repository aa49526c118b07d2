using System.Text.Json;
using System.Text.Json.Nodes;
using Json.Schema;
using PushRelay.Cli;
using PushRelay.Settings;

namespace PushRelay.Tests.Cli;

/// <summary><c>config check</c>, <c>show</c>, <c>schema</c>, and the documentation that has the same source.</summary>
public sealed class ConfigCommandTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-config-").FullName;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static string Shipped => Path.Combine(Repository.Root, "appsettings.json");

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public async Task Everything_that_is_wrong_is_told_at_once_each_with_its_line()
    {
        var file = await WriteAsync(
            """
            { "Dispatch": { "MaxAttempts": "many",
                            "Concurrency": 0,
                            "BaseDelay": "00:00:20", "MaxDelay": "00:00:10",
                            "Concurency": 7 },
              "Alerts": { "OtherDeviceForeground": "Maybe" },
              "Xmpp": { "Components": [ { "Domain": "push.example.com",
                                          "SecretFile": "nowhere.secret", "Servers": [ "a@b" ] } ] },
              "Apps": [ { "Id": "com.example.chat" } ],
              "Api": { "OperatorKeys": [ { "Name": "ops", "Key": "CANARY" } ] },
              "Serilog": { "MinimumLevel": "Loud" } }
            """
        );

        var (code, output, errors) = await RunAsync("check", "--config", file);

        Assert.Equal((2, ""), (code, output));
        var lines = errors.Split(Environment.NewLine, StringSplitOptions.RemoveEmptyEntries);
        Assert.Collection(
            lines.Order(StringComparer.Ordinal),
            line => AssertLine(line, "Alerts:OtherDeviceForeground is 'Maybe'", 5),
            line => AssertLine(line, "Api:OperatorKeys:0:Key has 6 characters", 9),
            line => AssertLine(line, "Apps:0 has no push network; give it one of: Apns", 8),
            line => AssertLine(line, "Dispatch:Concurrency is 0; it must be from 1 to 3600", 2),
            line => AssertLine(line, "Dispatch:MaxAttempts is 'many'; it must be a whole number", 1),
            line => AssertLine(line, "Dispatch:MaxDelay is 00:00:10; it must be from 00:00:20", 3),
            line => AssertLine(line, "Setting Serilog cannot be used", 10),
            line => AssertLine(line, "There is no setting Dispatch:Concurency. The nearest name is Dispatch:Concurrency", 4),
            line => AssertLine(line, "Xmpp:Components:0:SecretFile is 'nowhere.secret', which cannot be read", 7),
            line => AssertLine(line, "Xmpp:Components:0:Servers:0 is 'a@b'; it must be a domain", 7)
        );
        Assert.DoesNotContain("CANARY", errors, StringComparison.Ordinal);

        void AssertLine(string line, string begins, int number)
        {
            Assert.StartsWith(begins, line, StringComparison.Ordinal);
            Assert.EndsWith($" ({file}:{number})", line, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task The_shipped_settings_are_complete()
    {
        var (code, output, errors) = await RunAsync("check", "--config", Shipped);

        Assert.Equal((0, "The settings are complete.", ""), (code, output.Trim(), errors));
        Assert.Empty(Directory.GetFiles(folder));
    }

    [Fact]
    public async Task What_is_in_force_is_shown_with_where_it_comes_from_and_no_secret()
    {
        await File.WriteAllTextAsync(Path.Combine(folder, "ops.key"), "CANARY in a file of its own", Token);
        var key = TestRelay.Settings(folder).Single(s => s.Contains("Apns:KeyFile", StringComparison.Ordinal));
        var file = await WriteAsync(
            """
            { "Storage": { "ConnectionString": "Data Source=CANARY.db" },
              "Dispatch": { "MaxAttempts": 17, "Concurrency": 40 },
              "Api": { "OperatorKeys": [ { "Name": "ops", "KeyFile": "ops.key" } ],
                       "Jwt": { "SigningKey": "CANARY 0123456789 0123456789 0123456789" } },
              "Serilog": { "MinimumLevel": { "Default": "Debug" },
                           "WriteTo": [ { "Name": "Console", "Args": { "outputTemplate": "CANARY" } } ] } }
            """
        );
        string[] settings =
        [
            "--Dispatch:Concurrency=41",
            "--Apps:0:Id=com.example.chat",
            "--Apps:0:Apns:TeamId=ABCDE12345",
            "--Apps:0:Apns:KeyId=FGHIJ67890",
            "--Apps:0:Apns:BundleId=com.example.chat",
            key,
        ];

        var (code, output, errors) = await RunAsync(["show", "--config", file, .. settings]);
        var (_, json, _) = await RunAsync(["show", "--json", "--config", file, .. settings]);

        Assert.Equal((0, ""), (code, errors));
        Assert.DoesNotContain("CANARY", output + json, StringComparison.Ordinal);
        var lines = output.Split(Environment.NewLine);
        Assert.Contains("Urls = http://127.0.0.1:8080  (default)", lines);
        Assert.Contains($"Storage:ConnectionString = (hidden)  ({file}:1)", lines);
        Assert.Contains($"Dispatch:MaxAttempts = 17  ({file}:2)", lines);
        Assert.Contains("Dispatch:Concurrency = 41  (command line)", lines);
        Assert.Contains("Dispatch:BaseDelay = 00:00:01  (default)", lines);
        Assert.Contains($"Api:OperatorKeys:0:Key = (hidden)  ({folder}/ops.key)", lines);
        Assert.Contains($"Serilog:MinimumLevel:Default = Debug  ({file}:5)", lines);
        Assert.Contains("Apps:0:Apns:TeamId = ABCDE12345  (command line)", lines);
        Assert.Contains("Xmpp:Components =  (default)", lines);
        Assert.Equal(
            "command line",
            (string?)JsonNode.Parse(json)!.AsArray().Single(s => (string?)s!["name"] == "Dispatch:Concurrency")!["from"]
        );
    }

    [Fact]
    public async Task What_is_wrong_is_told_after_what_is_shown()
    {
        var (code, output, errors) = await RunAsync("show", "--config", Shipped, "--Dispatch:Concurrency=0");

        Assert.Equal(2, code);
        Assert.Contains("Dispatch:Concurrency = 0  (command line)", output, StringComparison.Ordinal);
        Assert.StartsWith("Dispatch:Concurrency is 0;", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_environment_variable_is_named_as_where_a_setting_comes_from()
    {
        using var process = System.Diagnostics.Process.Start(
            new System.Diagnostics.ProcessStartInfo(
                "dotnet",
                [Path.Combine(AppContext.BaseDirectory, "pushrelay.dll"), "config", "show", "--config", Shipped]
            )
            {
                RedirectStandardOutput = true,
                Environment = { ["DISPATCH__CONCURRENCY"] = "77" },
            }
        )!;

        var output = await process.StandardOutput.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);

        Assert.Contains("Dispatch:Concurrency = 77  (environment variable Dispatch__Concurrency)", output, StringComparison.Ordinal);
    }

    [Fact]
    public void The_shipped_settings_and_what_the_documentation_says_pass_the_schema()
    {
        AssertValid(File.ReadAllText(Shipped), valid: true);
        AssertValid(
            """
            { "$schema": "pushrelay.schema.json",
              "Apps": [ { "Id": "com.example.chat", "Alert": { "Preview": "Sender" },
                          "Apns": { "TeamId": "ABCDE12345", "KeyId": "FGHIJ67890", "KeyFile": "a.p8", "BundleId": "com.example.chat",
                                    "Endpoint": null } } ],
              "Api": { "OperatorKeys": [ { "Name": "ops", "KeyFile": "ops.key" } ] },
              "Serilog": { "Using": [ "Anything" ] } }
            """,
            valid: true
        );
    }

    [Theory]
    [InlineData("""{ "Dispatch": { "Concurrency": 0 } }""")]
    [InlineData("""{ "Dispatch": { "Concurrency": "many" } }""")]
    [InlineData("""{ "Dispatch": { "Concurency": 10 } }""")]
    [InlineData("""{ "Dispatch": { "BaseDelay": "soon" } }""")]
    [InlineData("""{ "Dispatch": { "BaseDelay": "00:75:00" } }""")]
    [InlineData("""{ "Dispach": {} }""")]
    [InlineData("""{ "Alerts": { "OtherDeviceForeground": "Maybe" } }""")]
    [InlineData("""{ "Apps": { "Id": "com.example.chat" } }""")]
    [InlineData("""{ "Apps": [ { "Apns": { "TeamsId": "ABCDE12345" } } ] }""")]
    [InlineData("""{ "Xmpp": { "Components": [ { "Port": 70000 } ] } }""")]
    public void Wrong_settings_fail_the_schema(string settings) => AssertValid(settings, valid: false);

    [Fact]
    public void Every_setting_has_a_text_and_defaults_that_pass_their_own_bounds()
    {
        foreach (var node in RelayApp.AllSettings().All().Where(n => n.Kind is SettingKind.Value or SettingKind.Library))
        {
            Assert.True(node.Description.Length > 0, node.Path);
            Assert.True(
                node.Bounds is not { } bounds || (bounds.Min.CompareTo(node.Default) <= 0 && bounds.Max.CompareTo(node.Default) >= 0),
                node.Path
            );
        }
    }

    [Fact]
    public void The_table_of_settings_in_the_documentation_is_that_of_the_program()
    {
        var documented = File.ReadLines(Path.Combine(Repository.Root, "docs", "operating.md"))
            .SkipWhile(line => !line.StartsWith("| setting |", StringComparison.Ordinal))
            .Skip(2)
            .TakeWhile(line => line.StartsWith('|'));
        var rows = RelayApp.AllSettings().All().Where(n => n.Kind is SettingKind.Value or SettingKind.Library).Select(Row);

        Assert.Equal(string.Join('\n', rows), string.Join('\n', documented));
    }

    [Fact]
    public void One_settings_section_is_bound_once()
    {
        var twice = Assert.Throws<InvalidOperationException>(() =>
            SettingNode.Root([new("Dispatch", typeof(object), "one"), new("Dispatch", typeof(object), "another")])
        );
        Assert.Contains("Dispatch", twice.Message, StringComparison.Ordinal);

        var types = RelayApp.AllSettings().All().Where(n => n.Kind == SettingKind.Group).Select(n => n.Type).ToList();
        Assert.Equal(types.Distinct().Count(), types.Count);
        Assert.DoesNotContain(
            Directory.EnumerateFiles(Path.Combine(Repository.Root, "src", "PushRelay"), "*.cs", SearchOption.AllDirectories),
            file =>
                File.ReadAllText(file) is var text
                && (
                    text.Contains(".Bind(configuration", StringComparison.Ordinal)
                    || text.Contains("BindConfiguration(", StringComparison.Ordinal)
                    || text.Contains("AddOptions<", StringComparison.Ordinal)
                        && text.Contains("Configure<IConfiguration", StringComparison.Ordinal)
                )
        );
    }

    private static string Row(SettingNode node)
    {
        var file = node.IsSecret ? $" or `{node.Name}File`" : "";
        var shown = node.Default is "" or null ? "" : $"`{SettingsText.Value(node.Default)}`";
        return $"| `{node.Path}`{file} | {shown} | {SettingsText.Meaning(node).Replace("|", "\\|", StringComparison.Ordinal)} |".Replace(
            " |  | ",
            " | | ",
            StringComparison.Ordinal
        );
    }

    private static void AssertValid(string settings, bool valid)
    {
        var schema = JsonSchema.FromText(SettingsSchema.Of(RelayApp.AllSettings()).ToJsonString());
        using var document = JsonDocument.Parse(
            settings,
            new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true }
        );

        var results = schema.Evaluate(document.RootElement, new EvaluationOptions { OutputFormat = OutputFormat.List });

        Assert.True(
            results.IsValid == valid,
            string.Join(
                '\n',
                (results.Details ?? []).Where(d => d.Errors is not null).Select(d => $"{d.InstanceLocation} {d.Errors!.First()}")
            )
        );
    }

    private static async Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments)
    {
        await using var errors = new StringWriter();
        await using var output = new StringWriter();
        var code = await RelayCommands.RunAsync(["config", .. arguments], errors, output);
        return (code, output.ToString(), errors.ToString());
    }

    private async Task<string> WriteAsync(string settings)
    {
        var file = Path.Combine(folder, "settings.json");
        await File.WriteAllTextAsync(file, settings, Token);
        return file;
    }
}
