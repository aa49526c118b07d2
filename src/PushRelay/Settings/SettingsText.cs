using System.Globalization;

namespace PushRelay.Settings;

/// <summary>What a setting means, in an operator's words: the one source of schema and documentation.</summary>
internal static class SettingsText
{
    /// <summary>The description, with the bounds or the choices.</summary>
    public static string Meaning(SettingNode node)
    {
        var limits =
            node.Bounds is { } bounds ? $"{InWords(bounds.Min)} to {InWords(bounds.Max)}"
            : node.Type.IsEnum ? Choices(Enum.GetNames(node.Type))
            : "";
        var secret = node.IsSecret ? "secret; " : "";
        return node.Description.Length > 0 && limits.Length > 0
            ? $"{secret}{node.Description}; {limits}"
            : secret + node.Description + limits;
    }

    /// <summary>A value as a settings file has it; null: none.</summary>
    public static string? Value(object? value) =>
        value switch
        {
            TimeSpan duration => duration.ToString("c", CultureInfo.InvariantCulture),
            bool answer => answer ? "true" : "false",
            string or int or Enum => Convert.ToString(value, CultureInfo.InvariantCulture),
            _ => null,
        };

    private static string Choices(string[] names) => $"`{string.Join("`, `", names[..^1])}` or `{names[^1]}`";

    private static string InWords(IComparable value)
    {
        if (value is not TimeSpan duration || duration == TimeSpan.Zero)
        {
            return Convert.ToString(value is TimeSpan ? 0 : value, CultureInfo.InvariantCulture)!;
        }

        const int DaysOfYear = 365;
        var (count, unit) = (duration.Ticks % TimeSpan.TicksPerDay, duration.Ticks % TimeSpan.TicksPerHour, duration.Seconds) switch
        {
            (0, _, _) when duration.Days % DaysOfYear == 0 => (duration.Days / DaysOfYear, "year"),
            (0, _, _) => (duration.Days, "day"),
            (_, 0, _) => ((int)duration.TotalHours, "hour"),
            (_, _, 0) when duration.TotalMinutes >= 1 => ((int)duration.TotalMinutes, "minute"),
            _ when duration.TotalSeconds >= 1 => ((int)duration.TotalSeconds, "second"),
            _ => ((int)duration.TotalMilliseconds, "millisecond"),
        };
        return $"{count.ToString(CultureInfo.InvariantCulture)} {unit}{(count == 1 ? "" : "s")}";
    }
}
