using System.Globalization;
using Microsoft.Extensions.Configuration.CommandLine;
using Microsoft.Extensions.Configuration.EnvironmentVariables;
using Microsoft.Extensions.Configuration.Json;

namespace PushRelay.Settings;

/// <summary>The settings as they were given: the file, then the environment, then the command line, then files with secrets.</summary>
internal sealed class SettingsSource
{
    private const string FileSuffix = "File";

    private readonly IConfigurationRoot configuration;
    private readonly Dictionary<string, string> secretFiles = new(StringComparer.OrdinalIgnoreCase);

    private SettingsSource(IConfigurationRoot configuration, SettingsFile file) => (this.configuration, File) = (configuration, file);

    public SettingsFile File { get; }

    public IConfigurationRoot Configuration => configuration;

    /// <param name="configuration">Emptied and filled.</param>
    /// <param name="file">Must be there.</param>
    /// <param name="arguments">Settings as <c>--Section:Key=value</c>.</param>
    /// <exception cref="SettingsException">The file is not there, or no JSON.</exception>
    public static SettingsSource Read(ConfigurationManager configuration, SettingsFile file, string[] arguments)
    {
        configuration.Sources.Clear();
        try
        {
            configuration.AddJsonFile(file.Path, optional: false).AddEnvironmentVariables().AddCommandLine(arguments);
        }
        catch (FileNotFoundException exception)
        {
            throw new SettingsException(null, $"There is no settings file {file.Path}. Cure: name one with --config FILE.", exception);
        }
        catch (InvalidDataException exception)
        {
            throw new SettingsException(
                null,
                $"The settings file {file.Path} is no valid JSON: {exception.GetBaseException().Message}",
                exception
            );
        }

        return new SettingsSource(configuration, file);
    }

    /// <summary>Reads files with secrets, checks all names and values, and makes the options of every section.</summary>
    /// <returns>Everything that is wrong; empty: nothing is.</returns>
    public SettingsProblems Bind(SettingNode root)
    {
        var problems = new SettingsProblems();
        SettingsNames.Check(configuration, root, problems);
        ReadSecretFiles(root, problems);
        new SettingsBinder(configuration, File, problems).BindAll(root);
        return problems;
    }

    /// <summary>For each secret <c>X</c> whose <c>XFile</c> is given: the text of that file, without line ends at its end.</summary>
    private void ReadSecretFiles(SettingNode root, SettingsProblems problems)
    {
        var secrets = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        foreach (var (name, path) in configuration.AsEnumerable())
        {
            var setting = name.EndsWith(FileSuffix, StringComparison.OrdinalIgnoreCase) ? name[..^FileSuffix.Length] : "";
            if (string.IsNullOrEmpty(path) || root.Find(setting) is not { IsSecret: true })
            {
                continue;
            }

            var full = File.Resolve(path);
            try
            {
                var text = System.IO.File.ReadAllText(full).TrimEnd('\r', '\n');
                if (text.Length == 0)
                {
                    problems.AddUnreadable(name, $"{name} is '{path}', which is empty ({full}); it must hold the secret.");
                }

                (secrets[setting], secretFiles[setting]) = (text, full);
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                problems.AddUnreadable(
                    name,
                    $"{name} is '{path}', which cannot be read ({full}): {exception.Message} Cure: name a file that this user may read."
                );
            }
        }

        // the host reads Urls by itself, and has another default
        var defaults = root
            .Tops.SelectMany(top => top.Children)
            .Where(setting => string.IsNullOrEmpty(configuration[setting.Path]))
            .Select(setting => KeyValuePair.Create(setting.Path, setting.Default?.ToString()));
        ((IConfigurationBuilder)configuration).AddInMemoryCollection(secrets.Concat(defaults));
    }

    /// <summary>Where a setting's value comes from; null: it is not given, so that its default is in force.</summary>
    public string? Origin(string setting)
    {
        if (secretFiles.TryGetValue(setting, out var secretFile))
        {
            return secretFile;
        }

        return configuration.Providers.LastOrDefault(provider => provider.TryGet(setting, out _)) switch
        {
            JsonConfigurationProvider => At(setting),
            EnvironmentVariablesConfigurationProvider =>
                $"environment variable {setting.Replace(ConfigurationPath.KeyDelimiter, "__", StringComparison.Ordinal)}",
            CommandLineConfigurationProvider => "command line",
            _ => null,
        };
    }

    /// <summary>The problem, with file and line where the setting is from there; a missing setting has the line of its group.</summary>
    public string Locate(SettingsProblem problem)
    {
        for (var setting = problem.Setting; setting is not null; setting = ConfigurationPath.GetParentPath(setting))
        {
            // for a section: every source that has a part of it
            var provider = configuration.Providers.LastOrDefault(p => p.TryGet(setting, out _) || p.GetChildKeys([], setting).Any());
            if (provider is not (null or JsonConfigurationProvider))
            {
                break;
            }

            var isSection = setting != problem.Setting && !setting.Contains(ConfigurationPath.KeyDelimiter, StringComparison.Ordinal);
            if (!isSection && File.LineOf(setting) is not null)
            {
                return $"{problem.Text} ({At(setting)})";
            }
        }

        return problem.Text;
    }

    private string At(string setting) => string.Create(CultureInfo.InvariantCulture, $"{File.Path}:{File.LineOf(setting)}");
}
