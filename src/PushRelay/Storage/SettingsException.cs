namespace PushRelay.Storage;

/// <summary>A setting that stops the start with exit code 2: the message names the setting, its value (never a secret) and the cure.</summary>
internal sealed class SettingsException : Exception
{
    public SettingsException(string message)
        : base(message)
    {
    }

    public SettingsException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
