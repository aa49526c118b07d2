using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using PushRelay.Api;
using PushRelay.Settings;

namespace PushRelay.Cli;

/// <summary><c>config check</c>, <c>config show</c> and <c>config schema</c>: the settings, without starting.</summary>
internal static class ConfigCommand
{
    private static readonly Option<bool> Json = new("--json") { Description = "[{\"name\",\"value\",\"from\"}]" };

    private static readonly JsonSerializerOptions Schema = new()
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static Command Create(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        var check = new Command("check", "Says everything that is wrong with the settings, as a start would: exit code 0 if nothing is.")
        {
            TreatUnmatchedTokensAsErrors = false,
        };
        check.SetAction(
            async (parsed, _) =>
            {
                await using (RelayApp.Build(parsed.GetValue(config), settings(parsed), TimeProvider.System)) { }

                await parsed.InvocationConfiguration.Output.WriteLineAsync("The settings are complete.");
                return 0;
            }
        );
        var show = new Command("show", "Prints every setting in force, secrets hidden, and where each comes from.") { Json };
        show.TreatUnmatchedTokensAsErrors = false;
        show.SetAction(parsed =>
            Show(
                RelayApp.ReadSettings(parsed.GetValue(config), settings(parsed)),
                parsed.GetValue(Json),
                parsed.InvocationConfiguration.Output
            )
        );
        var schema = new Command("schema", "Prints a JSON Schema (2020-12) of all settings.");
        schema.SetAction(parsed =>
            parsed.InvocationConfiguration.Output.WriteLine(SettingsSchema.Of(RelayApp.AllSettings()).ToJsonString(Schema))
        );
        return new Command("config", "Checks, shows or describes the settings.") { check, show, schema };
    }

    /// <exception cref="SettingsException">After the listing, where something in it is wrong.</exception>
    internal static void Show(SettingsSource source, bool json, TextWriter output)
    {
        var root = RelayApp.AllSettings();
        var problems = source.Bind(root);
        var settings = new SettingsInForce(source).All(root).ToList();
        if (json)
        {
            output.WriteLine(JsonSerializer.Serialize(settings, ApiBody.Json));
        }
        else
        {
            settings.ForEach(setting =>
                output.WriteLine($"{setting.Name} = {setting.Value?.ReplaceLineEndings(" ")}".TrimEnd() + $"  ({setting.From})")
            );
        }

        if (problems.All.Count > 0)
        {
            throw new SettingsException(problems.All);
        }
    }
}
