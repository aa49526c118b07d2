using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using PushRelay.Settings;

namespace PushRelay.Dispatch;

/// <summary>Settings <c>Dispatch</c>: how deliveries are tried.</summary>
internal sealed class DispatchOptions : ISettings
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromHours(1);

    [Description(
        "attempts that ended in 429 `TooManyRequests`, 500 or a node's death, before a delivery is `dead`. Outages do not count: such a "
            + "delivery ends by its time to live"
    )]
    [Range(1, 100)]
    public int MaxAttempts { get; set; } = 8;

    [Description("the random wait after the first attempt is at most this, doubled for each further one")]
    [Range(typeof(TimeSpan), "00:00:00.100", "00:01:00")]
    public TimeSpan BaseDelay { get; set; } = TimeSpan.FromSeconds(1);

    [Description("the most that `BaseDelay` grows to, and not less than it")]
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00")]
    public TimeSpan MaxDelay { get; set; } = TimeSpan.FromMinutes(10);

    [Description("after this long a delivery that a node took returns to the others; longer than the slowest send")]
    [Range(typeof(TimeSpan), "00:00:15", "00:10:00")]
    public TimeSpan LeaseDuration { get; set; } = TimeSpan.FromSeconds(30);

    [Description("requests in flight at most")]
    [Range(1, 3600)]
    public int Concurrency { get; set; } = 500;

    public void Check(SettingsCheck check) => check.Between(nameof(MaxDelay), MaxDelay, BaseDelay, LongestWait);
}
