using System.CommandLine;
using System.Net.Sockets;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Cli;

/// <summary>The program's commands. Exit codes: 0 done, 1 failed, 2 wrong usage or settings.</summary>
internal static class RelayCommands
{
    private const int Done = 0;
    private const int Failed = 1;
    private const int Usage = 2;

    private static readonly Option<string?> Config = new("--config")
    {
        Description = "The settings file; without it appsettings.json in the program's folder.",
        HelpName = "FILE",
        Recursive = true,
    };

    /// <param name="arguments">The command line.</param>
    /// <param name="errors">Takes the problems of it and of the settings, one a line.</param>
    /// <param name="output">Takes what <c>config</c> prints; the console's if null.</param>
    public static async Task<int> RunAsync(string[] arguments, TextWriter errors, TextWriter? output = null)
    {
        var root = new RootCommand(
            "PushRelay: push alerts for XMPP accounts that are not in front of anyone. Settings: --Section:Key=value"
        )
        {
            TreatUnmatchedTokensAsErrors = false,
        };
        root.Add(Config);
        root.SetAction(ServeAsync);
        root.Add(Serve());
        root.Add(Migrate());
        root.Add(HealthCommand.Create(Config, Settings));
        root.Add(DoctorCommand.Create(Config, Settings));
        root.Add(ConfigCommand.Create(Config, Settings));
        root.Add(KeysCommand.Create(Config, Settings));
        root.Add(WebPushCommand.Create());
        root.Add(SimulatorCommand.Create());
        foreach (var command in LedgerCommands.All(Config, Settings))
        {
            root.Add(command);
        }

        var parsed = root.Parse(arguments);
        try
        {
            if (parsed.Errors.Count > 0)
            {
                parsed.Errors.ToList().ForEach(error => errors.WriteLine(error.Message));
                return Usage;
            }

            return await parsed.InvokeAsync(
                new InvocationConfiguration
                {
                    EnableDefaultExceptionHandler = false,
                    ProcessTerminationTimeout = null,
                    Output = output ?? Console.Out,
                    Error = errors,
                }
            );
        }
        catch (SettingsException wrong)
        {
            foreach (var problem in RelayApp.Explain(wrong, parsed.GetValue(Config), [.. parsed.UnmatchedTokens]))
            {
                await errors.WriteLineAsync(problem);
            }

            return wrong.MayPass ? Failed : Usage;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            await errors.WriteLineAsync(
                exception is IOException or UnauthorizedAccessException ? exception.Message : $"PushRelay failed: {exception}"
            );
            return Failed;
        }
    }

    private static Command Serve()
    {
        var command = new Command("serve", "Runs the relay; the default.") { TreatUnmatchedTokensAsErrors = false };
        command.SetAction(ServeAsync);
        return command;
    }

    private static Command Migrate()
    {
        var command = new Command("migrate", "Brings the database schema up to date.") { TreatUnmatchedTokensAsErrors = false };
        command.SetAction(
            async (parsed, cancellationToken) =>
            {
                await using var app = RelayApp.Build(parsed.GetValue(Config), Settings(parsed), TimeProvider.System);
                var applied = await app.Services.GetRequiredService<Migrator>().MigrateAsync(cancellationToken);
                foreach (var migration in applied)
                {
                    Console.WriteLine(migration);
                }

                Console.WriteLine(applied.Count == 0 ? "The schema is up to date." : $"Applied {applied.Count} migrations.");
                return Done;
            }
        );
        return command;
    }

    private static async Task<int> ServeAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        await using var app = await RelayApp.OpenAsync(parsed.GetValue(Config), Settings(parsed), TimeProvider.System, cancellationToken);
        try
        {
            await app.StartAsync(cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or SocketException or FormatException or InvalidOperationException)
        {
            throw new SettingsException(
                "Urls",
                $"Urls is '{app.Configuration["Urls"]}', where the relay cannot listen: {exception.Message} Cure: name an address of "
                    + $"this machine and a free port, such as http://127.0.0.1:8080.",
                exception
            );
        }

        await app.WaitForShutdownAsync(CancellationToken.None);
        return Done;
    }

    /// <summary>The settings on the command line, <c>--Section:Key=value</c>; any other unknown word is an error.</summary>
    private static string[] Settings(ParseResult parsed)
    {
        var tokens = parsed.UnmatchedTokens;
        var wrong = tokens.FirstOrDefault(t =>
            !(t.StartsWith("--", StringComparison.Ordinal) && t.Contains('=', StringComparison.Ordinal))
        );
        return wrong is null
            ? [.. tokens]
            : throw new SettingsException(
                null,
                $"'{wrong}' is neither a command nor a setting; a setting looks like --Urls=http://127.0.0.1:8080. Try --help."
            );
    }
}
