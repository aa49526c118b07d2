using System.Globalization;
using PushRelay.Settings;

namespace PushRelay.Storage;

/// <summary>
/// Lets one process at a time serve a SQLite database: an exclusive lock of a file next to it, which the kernel releases when the process
/// dies.
/// </summary>
internal sealed class ProcessLock : IDisposable
{
    private const string Setting = "Storage:ConnectionString";

    private readonly FileStream file;

    private ProcessLock(FileStream file) => this.file = file;

    /// <exception cref="SettingsException">Another process holds it, or the file cannot be made.</exception>
    public static ProcessLock Take(string dataSource)
    {
        // a link to the file is another name for it, not another database
        var target = File.Exists(dataSource) ? File.ResolveLinkTarget(dataSource, returnFinalTarget: true) : null;
        var file = target?.FullName ?? Path.GetFullPath(dataSource);
        var path = Path.Combine(Path.GetDirectoryName(file)!, "pushrelay.lock");
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException(
                Setting,
                $"{Setting} needs the folder of {path}, which cannot be made: {exception.Message} Cure: name a file in a folder that this "
                    + "user may write.",
                exception
            );
        }

        try
        {
            var held = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            // a locked file cannot be read: the second process finds our process id in a file next to it
            File.WriteAllText(HolderFile(path), Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
            return new ProcessLock(held);
        }
        catch (IOException exception)
        {
            throw new SettingsException(
                Setting,
                $"{Setting} names a SQLite database that a relay already uses ({path} is locked{Holder(path)}). Cure: stop that one, or "
                    + "use PostgreSQL to run several.",
                exception
            );
        }
        catch (UnauthorizedAccessException exception)
        {
            throw new SettingsException(
                Setting,
                $"{Setting}: {path} cannot be written: {exception.Message} Cure: name a folder that this user may write.",
                exception
            );
        }
    }

    public void Dispose() => file.Dispose();

    private static string Holder(string path) => File.Exists(HolderFile(path)) ? $" by process {File.ReadAllText(HolderFile(path))}" : "";

    private static string HolderFile(string path) => Path.ChangeExtension(path, ".pid");
}
