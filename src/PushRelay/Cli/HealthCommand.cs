using System.CommandLine;
using System.Globalization;
using PushRelay.Settings;

namespace PushRelay.Cli;

/// <summary><c>health</c>: asks a running relay whether it is ready; for containers, which have no curl.</summary>
internal static class HealthCommand
{
    private static readonly TimeSpan Wait = TimeSpan.FromSeconds(4);

    private static readonly Option<string?> Url = new("--url")
    {
        Description = "Asks this address instead of the relay's own; 200 is healthy.",
        HelpName = "URL",
    };

    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static Command Create(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        var command = new Command("health", "Asks the running relay whether it is ready: exit code 0 if so.") { Url };
        command.TreatUnmatchedTokensAsErrors = false;
        command.SetAction(
            async (parsed, cancellationToken) =>
            {
                var text =
                    parsed.GetValue(Url) ?? OwnAddress(RelayApp.ReadSettings(parsed.GetValue(config), settings(parsed)).Configuration);
                return Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme is "http" or "https"
                    ? await AskAsync(url, cancellationToken)
                    : throw new SettingsException(
                        null,
                        $"--url is '{text}'; it must be an address such as http://127.0.0.1:8080/health/ready."
                    );
            }
        );
        return command;
    }

    private static async Task<int> AskAsync(Uri url, CancellationToken cancellationToken)
    {
        using var handler = new SocketsHttpHandler { UseProxy = false };
        using var client = new HttpClient(handler) { Timeout = Wait };
        try
        {
            using var answer = await client.GetAsync(url, cancellationToken);
            Console.WriteLine(await answer.Content.ReadAsStringAsync(cancellationToken));
            return answer.IsSuccessStatusCode ? 0 : 1;
        }
        catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException)
        {
            await Console.Error.WriteLineAsync($"{url} does not answer: {exception.Message}");
            return 1;
        }
    }

    /// <summary>The first of <c>Urls</c>, over the loopback interface if it listens on all interfaces.</summary>
    private static string OwnAddress(IConfiguration configuration)
    {
        var first = (configuration["Urls"] ?? "").Split(';')[0];
        try
        {
            var address = BindingAddress.Parse(first);
            var host = address.Host is "*" or "+" or "0.0.0.0" or "[::]" ? "127.0.0.1" : address.Host;
            return string.Create(CultureInfo.InvariantCulture, $"{address.Scheme}://{host}:{address.Port}/health/ready");
        }
        catch (FormatException exception)
        {
            throw new SettingsException("Urls", $"Urls is '{first}'; it must be an address such as http://127.0.0.1:8080.", exception);
        }
    }
}
