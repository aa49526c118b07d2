using System.Diagnostics;
using System.Globalization;

namespace PushRelay.Rig;

/// <summary>What the kernel says of processes (proc(5)); seconds of CPU, bytes of memory. Nothing of a process that is gone.</summary>
internal static class ProcessFigures
{
    // USER_HZ, which is 100 on every Linux that .NET runs on
    private const double TicksPerSecond = 100;

    /// <summary>User and system time of the process itself.</summary>
    public static double CpuSeconds(int pid) => Stat(pid) is { } stat ? (stat[11] + stat[12]) / TicksPerSecond : 0;

    /// <summary>Of the process and all that it started, also what has ended since.</summary>
    public static double CpuSecondsOfTree(int pid) =>
        (Stat(pid) is { } own ? (own[11] + own[12] + own[13] + own[14]) / TicksPerSecond : 0) + Children(pid).Sum(CpuSecondsOfTree);

    /// <summary>The most memory that was resident at once (VmHWM).</summary>
    public static long PeakBytes(int pid)
    {
        try
        {
            var line = File.ReadLines($"/proc/{Text(pid)}/status").FirstOrDefault(l => l.StartsWith("VmHWM:", StringComparison.Ordinal));
            return line is null
                ? 0
                : 1024 * long.Parse(line.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
        }
        catch (IOException)
        {
            return 0;
        }
    }

    public static IReadOnlyList<int> Children(int pid)
    {
        try
        {
            return
            [
                .. Directory
                    .GetDirectories($"/proc/{Text(pid)}/task")
                    .SelectMany(task => File.ReadAllText(Path.Combine(task, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries))
                    .Select(child => int.Parse(child, CultureInfo.InvariantCulture)),
            ];
        }
        catch (IOException)
        {
            return [];
        }
    }

    public static int OpenFiles(int pid) => Directory.GetFileSystemEntries($"/proc/{Text(pid)}/fd").Length;

    public static string LoadAverage() => File.ReadAllText("/proc/loadavg").Split(' ')[0];

    /// <summary>As <c>kill -SIGNAL</c>.</summary>
    public static void Signal(int pid, string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", Text(pid)]);
        kill.WaitForExit();
    }

    // counted from the state, the third field: the second may hold spaces
    private static long[]? Stat(int pid)
    {
        try
        {
            var text = File.ReadAllText($"/proc/{Text(pid)}/stat");
            var fields = text[(text.LastIndexOf(')') + 2)..].Split(' ');
            return [.. fields.Select(field => long.TryParse(field, CultureInfo.InvariantCulture, out var number) ? number : 0)];
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string Text(int pid) => pid.ToString(CultureInfo.InvariantCulture);
}
