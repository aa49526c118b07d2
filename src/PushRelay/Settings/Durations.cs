using System.Globalization;
using System.Text.RegularExpressions;

namespace PushRelay.Settings;

/// <summary>
/// How durations are written: <c>d.hh:mm:ss</c>, <c>hh:mm:ss</c> up to 23:59:59, or a number with <c>ms s m h d</c>. What .NET reads
/// besides is refused: to it <c>24:00:00</c> is 24 days, and <c>5</c> is five.
/// </summary>
internal static partial class Durations
{
    public const string Form = "(d.hh:mm:ss, hh:mm:ss up to 23:59:59, or a number with ms, s, m, h or d)";

    public static bool TryParse(string text, out TimeSpan duration)
    {
        duration = default;
        if (Clock().IsMatch(text))
        {
            return TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out duration);
        }

        if (
            Counted().Match(text) is not { Success: true } counted
            || !double.TryParse(counted.Groups[1].ValueSpan, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var count)
        )
        {
            return false;
        }

        var unit = counted.Groups[2].Value switch
        {
            "ms" => TimeSpan.FromMilliseconds(1),
            "s" => TimeSpan.FromSeconds(1),
            "m" => TimeSpan.FromMinutes(1),
            "h" => TimeSpan.FromHours(1),
            _ => TimeSpan.FromDays(1),
        };
        if (count > TimeSpan.MaxValue / unit)
        {
            return false;
        }

        duration = count * unit;
        return true;
    }

    /// <summary>What the writer of hours beyond a day means, and how it is written; null: something else is wrong.</summary>
    public static string? Advice(string text)
    {
        if (ManyHours().Match(text) is not { Success: true } hours)
        {
            return null;
        }

        var given = TimeSpan.FromHours(double.Parse(hours.Groups[1].ValueSpan, CultureInfo.InvariantCulture));
        return string.Create(
            CultureInfo.InvariantCulture,
            $"hours go up to 23: write {given.ToString("c", CultureInfo.InvariantCulture)} or {given.TotalHours}h"
        );
    }

    [GeneratedRegex(@"^(\d{1,7}\.)?([01]?\d|2[0-3]):[0-5]?\d(:[0-5]?\d(\.\d{1,7})?)?\z")]
    private static partial Regex Clock();

    [GeneratedRegex(@"^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)\z")]
    private static partial Regex Counted();

    [GeneratedRegex(@"^(\d{2,4}):[0-5]\d:[0-5]\d\z")]
    private static partial Regex ManyHours();
}
