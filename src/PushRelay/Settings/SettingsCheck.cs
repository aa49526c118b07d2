using System.Globalization;

namespace PushRelay.Settings;

/// <summary>What is wrong with the settings, in the order it is found.</summary>
internal sealed class SettingsProblems
{
    private readonly HashSet<string> unreadable = new(StringComparer.OrdinalIgnoreCase);
    private readonly List<SettingsProblem> problems = [];

    public IReadOnlyList<SettingsProblem> All => problems;

    /// <summary>A value that was not taken: what the checks say of the default in its place is left out.</summary>
    /// <param name="setting">Its full name; a secret and the setting that names its file count as one.</param>
    /// <param name="text">The whole sentence, with the cure.</param>
    public void AddUnreadable(string setting, string text)
    {
        unreadable.Add(SecretOf(setting));
        problems.Add(new SettingsProblem(setting, text));
    }

    public void Add(string setting, string text)
    {
        if (!unreadable.Contains(SecretOf(setting)))
        {
            problems.Add(new SettingsProblem(setting, text));
        }
    }

    private static string SecretOf(string setting) =>
        setting.EndsWith("File", StringComparison.OrdinalIgnoreCase) ? setting[..^"File".Length] : setting;
}

/// <summary>What the check of one group of options sees, and where it reports what is wrong.</summary>
/// <param name="path">The group's full name; empty for one at the top.</param>
/// <param name="file">The settings file.</param>
/// <param name="problems">Takes the reports.</param>
/// <param name="extensions">Sections that other modules have registered below this group, whether given or not.</param>
/// <param name="configuration">The settings as they were given.</param>
internal sealed class SettingsCheck(
    string path,
    SettingsFile file,
    SettingsProblems problems,
    IReadOnlyList<SettingsSection> extensions,
    IConfiguration configuration
)
{
    public IReadOnlyList<SettingsSection> Extensions => extensions;

    /// <summary>A path in a setting counts from the folder of the settings file.</summary>
    public string Resolve(string relative) => file.Resolve(relative);

    /// <summary>A value that the message may show.</summary>
    public void Wrong(string name, object? value, string must) =>
        problems.Add(Full(name), string.Create(CultureInfo.InvariantCulture, $"{Full(name)} is '{value}'; it must be {must}."));

    /// <summary>Anything else, and every problem of a secret.</summary>
    /// <param name="name">The setting; empty for the group itself.</param>
    /// <param name="says">Follows the setting's name, and ends with the cure: <c>is missing; give ...</c></param>
    public void Report(string name, string says) => problems.Add(Full(name), $"{Full(name)} {says}");

    /// <summary>How this secret was given, as <c>X</c> or as <c>XFile</c>: a problem names the setting that the operator wrote.</summary>
    public string GivenAs(string secret) => string.IsNullOrEmpty(configuration[Full(secret + "File")]) ? secret : secret + "File";

    /// <summary>For bounds that depend on another setting.</summary>
    public void Between(string name, TimeSpan value, TimeSpan min, TimeSpan max)
    {
        if (value < min || value > max)
        {
            problems.Add(Full(name), SettingsBinder.OutOfRange(Full(name), value, min, max));
        }
    }

    private string Full(string name) => name.Length == 0 ? path : SettingNode.Combine(path, name);
}
