namespace PushRelay.Settings;

/// <summary>A setting that stops the start with exit code 2, or 1 where it <see cref="MayPass"/>: the message names the setting, its value
/// (never a secret) and the cure.</summary>
internal sealed class SettingsException : Exception
{
    /// <summary>What the setting names is away, and may come back: who supervises the process shall start it again.</summary>
    public bool MayPass { get; init; }

    public SettingsException(string message)
        : base(message) { }

    public SettingsException(string message, Exception innerException)
        : base(message, innerException) { }
}
