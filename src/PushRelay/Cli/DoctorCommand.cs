using System.CommandLine;
using System.Text.Json;
using PushRelay.Api;
using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Cli;

/// <summary><c>doctor</c>: one line for each check, with the cure if it fails; exit code 0 if none fails, else 1.</summary>
internal static class DoctorCommand
{
    private static readonly Option<bool> Json = new("--json") { Description = "{\"ok\":...,\"checks\":[{\"name\",\"ok\",\"detail\"}]}" };

    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static Command Create(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        var command = new Command("doctor", "Checks everything that an alert needs, also while a relay runs: exit code 0 if all is well.")
        {
            Json,
        };
        command.TreatUnmatchedTokensAsErrors = false;
        command.SetAction(
            async (parsed, cancellationToken) =>
            {
                var checks = await ExamineAsync(parsed.GetValue(config), settings(parsed), TimeProvider.System, cancellationToken);
                Write(checks, parsed.GetValue(Json), Console.Out);
                return checks.All(check => check.Ok) ? 0 : 1;
            }
        );
        return command;
    }

    internal static async Task<IReadOnlyList<DoctorCheck>> ExamineAsync(
        string? settingsFile,
        string[] arguments,
        TimeProvider clock,
        CancellationToken cancellationToken
    )
    {
        var checks = new List<DoctorCheck>();
        try
        {
            // the checks say what they find; the log would say it twice
            await using var app = RelayApp.Build(settingsFile, [.. arguments, "--Serilog:MinimumLevel:Default=Fatal"], clock);
            checks.Add(new DoctorCheck("settings", true, "complete"));
            await foreach (var check in app.Services.GetRequiredService<Doctor>().RunAsync(cancellationToken))
            {
                checks.Add(check);
            }
        }
        catch (SettingsException wrong) when (checks.Count == 0)
        {
            checks.AddRange(
                RelayApp.Explain(wrong, settingsFile, arguments).Select(problem => new DoctorCheck("settings", false, problem))
            );
        }

        return checks;
    }

    internal static void Write(IReadOnlyList<DoctorCheck> checks, bool json, TextWriter output)
    {
        if (json)
        {
            output.WriteLine(JsonSerializer.Serialize(new { ok = checks.All(check => check.Ok), checks }, ApiBody.Json));
            return;
        }

        foreach (var check in checks)
        {
            output.WriteLine($"{(check.Ok ? "ok  " : "FAIL")} {check.Name}: {check.Detail.ReplaceLineEndings(" ")}");
        }
    }
}
