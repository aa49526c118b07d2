namespace PushRelay.Settings;

/// <summary>One thing that is wrong with the settings.</summary>
/// <param name="Setting">The full name of the setting; null where it is not about one, such as a wrong command line.</param>
/// <param name="Text">Names the setting, its value (never a secret) and the cure.</param>
internal sealed record SettingsProblem(string? Setting, string Text);

/// <summary>Wrong settings stop the program: with exit code 2, or with 1 where <see cref="MayPass"/> is set.</summary>
internal sealed class SettingsException : Exception
{
    public SettingsException(string? setting, string text, Exception? innerException = null)
        : this([new SettingsProblem(setting, text)], innerException) { }

    public SettingsException(IReadOnlyList<SettingsProblem> problems, Exception? innerException = null)
        : base(string.Join(Environment.NewLine, problems.Select(p => p.Text)), innerException) => Problems = problems;

    public IReadOnlyList<SettingsProblem> Problems { get; }

    /// <summary>What the setting names is unavailable now and may come back, so that a supervisor should start the program again.</summary>
    public bool MayPass { get; init; }
}
