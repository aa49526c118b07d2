using System.CommandLine;

namespace PushRelay.Cli;

/// <summary><c>keys rotate</c>: docs/operating.md has the steps before and after it.</summary>
internal static class KeysCommand
{
    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static Command Create(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        var rotate = new Command("rotate", "Seals everything with the first key of Storage:MasterKeyFile; the others can go afterwards.")
        {
            TreatUnmatchedTokensAsErrors = false,
        };
        rotate.SetAction(
            async (parsed, cancellationToken) =>
            {
                await using var app = RelayApp.Build(parsed.GetValue(config), settings(parsed), TimeProvider.System);
                var rotation = ActivatorUtilities.CreateInstance<KeyRotation>(app.Services);
                if (await rotation.RunAsync(Console.Out, cancellationToken) is { } problem)
                {
                    await Console.Error.WriteLineAsync(problem);
                    return 1;
                }

                Console.WriteLine("Everything is sealed with the first key. Take the older ones out of the file on every node.");
                return 0;
            }
        );
        return new Command("keys", "The master key.") { rotate };
    }
}
