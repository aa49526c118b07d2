using System.Text;
using System.Text.RegularExpressions;
using NodaTime.TimeZones;
using PushRelay.Api;

namespace PushRelay.Devices;

/// <summary>Checks the members of a device that are the same for every network.</summary>
internal static partial class DeviceRules
{
    private const int ResourceBytesMax = 1023;

    /// <summary>What a device can be called: by the app's installation id, or by an id of ours.</summary>
    public static bool IsId(string text) => InstallationId().IsMatch(text);

    /// <summary>
    /// The language tag (BCP 47) in what an operating system calls a locale: <c>en_US@rg=gbzzzz</c> is <c>en-US</c>, <c>de_DE.UTF-8</c> is
    /// <c>de-DE</c>. Null where there is none, as in <c>C</c>: a hint that cannot be used is no reason to refuse a device.
    /// </summary>
    public static string? NormaliseLocale(string? text)
    {
        var tag = text?.Split('@', '.')[0].Replace('_', '-').Trim() ?? "";
        if (tag.IndexOf("-u-", StringComparison.OrdinalIgnoreCase) is > 0 and var extension)
        {
            tag = tag[..extension];
        }

        if (tag.IndexOf("-x-", StringComparison.OrdinalIgnoreCase) is > 0 and var own)
        {
            tag = tag[..own];
        }

        return Locale().IsMatch(tag) && !string.Equals(tag, "POSIX", StringComparison.OrdinalIgnoreCase) ? tag : null;
    }

    // the form first: on Unix an id is looked up as a path
    public static bool IsTimeZone(string id) =>
        TimeZoneName().IsMatch(id) && TimeZoneInfo.TryFindSystemTimeZoneById(id, out var zone) && zone.HasIanaId;

    /// <summary>The present name of a time zone: phones still say <c>Asia/Calcutta</c>.</summary>
    public static string? NormaliseTimeZone(string? id) =>
        id is not null && TzdbDateTimeZoneSource.Default.CanonicalIdMap.TryGetValue(id, out var present) && IsTimeZone(present)
            ? present
            : id;

    /// <summary>An XMPP resource as it is compared; null where it is none.</summary>
    public static string? NormaliseResource(string? text)
    {
        if (!ApiBody.IsClean(text))
        {
            return null;
        }

        var resource = text.Normalize(NormalizationForm.FormC);
        return Encoding.UTF8.GetByteCount(resource) is >= 1 and <= ResourceBytesMax ? resource : null;
    }

    [GeneratedRegex(@"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    private static partial Regex InstallationId();

    [GeneratedRegex(@"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}\z")]
    private static partial Regex Locale();

    [GeneratedRegex(@"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\z")]
    private static partial Regex TimeZoneName();
}
