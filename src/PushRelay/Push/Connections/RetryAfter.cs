using System.Globalization;

namespace PushRelay.Push.Connections;

/// <summary>The header <c>Retry-After</c>, RFC 9110 section 10.2.3.</summary>
internal static class RetryAfter
{
    /// <summary>Longer ones are held to this: a network's mistake must not silence an app for days.</summary>
    public static readonly TimeSpan Max = TimeSpan.FromHours(1);

    /// <summary>Seconds or a date, between zero and <see cref="Max"/>; null where it is neither.</summary>
    /// <param name="date">The answer's own <c>Date</c>, against which a date is measured, so that our clock does not matter.</param>
    public static TimeSpan? Read(string? value, string? date, DateTimeOffset now)
    {
        value = value?.Trim();
        if (string.IsNullOrEmpty(value))
        {
            return null;
        }

        if (double.TryParse(value, NumberStyles.Float, CultureInfo.InvariantCulture, out var seconds))
        {
            return double.IsNaN(seconds) ? null : TimeSpan.FromSeconds(Math.Clamp(seconds, 0, Max.TotalSeconds));
        }

        return ReadDate(value) is { } at ? Clamp(at - (ReadDate(date) ?? now)) : null;
    }

    private static TimeSpan Clamp(TimeSpan delay) =>
        delay < TimeSpan.Zero ? TimeSpan.Zero
        : delay > Max ? Max
        : delay;

    private static DateTimeOffset? ReadDate(string? text) =>
        DateTimeOffset.TryParseExact(text, "r", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var date) ? date : null;
}
