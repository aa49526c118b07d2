using PushRelay.Settings;

namespace PushRelay.Dispatch;

/// <summary>Settings <c>Dispatch</c>: how deliveries are tried.</summary>
internal sealed class DispatchOptions
{
    /// <summary>
    /// Attempts that ended in 429 TooManyRequests, 500 or the node's death before a delivery is dead; 1 to 100. Outages (503, no
    /// connection,
    /// no answer) do not count: such a delivery ends by its time to live.
    /// </summary>
    public int MaxAttempts { get; set; } = 8;

    /// <summary>Bound of the random wait after the first attempt, doubled for each further one; 100 ms to 1 minute.</summary>
    public TimeSpan BaseDelay { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>The most that <see cref="BaseDelay"/> grows to; 1 second, and no less than that, to 1 hour.</summary>
    public TimeSpan MaxDelay { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>After this long a claimed delivery belongs to nobody again: longer than the slowest send; 15 seconds to 10
    /// minutes.</summary>
    public TimeSpan LeaseDuration { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Requests in flight at most; 1 to 3600.</summary>
    public int Concurrency { get; set; } = 500;

    public void Check()
    {
        SettingsReader.Require("Dispatch:MaxAttempts", MaxAttempts, 1, 100);
        SettingsReader.Require("Dispatch:BaseDelay", BaseDelay, TimeSpan.FromMilliseconds(100), TimeSpan.FromMinutes(1));
        SettingsReader.Require(
            "Dispatch:MaxDelay",
            MaxDelay,
            TimeSpan.FromTicks(Math.Max(BaseDelay.Ticks, TimeSpan.TicksPerSecond)),
            TimeSpan.FromHours(1)
        );
        SettingsReader.Require("Dispatch:LeaseDuration", LeaseDuration, TimeSpan.FromSeconds(15), TimeSpan.FromMinutes(10));
        SettingsReader.Require("Dispatch:Concurrency", Concurrency, 1, 3600);
    }
}

/// <summary>Settings <c>Retention</c>: how long the ledger remembers.</summary>
internal sealed class RetentionOptions
{
    /// <summary>Settled deliveries older than this are deleted; at least 1 hour, which a replay after an outage may need.</summary>
    public TimeSpan Deliveries { get; set; } = TimeSpan.FromDays(30);

    /// <summary>Audit records older than this are deleted; 1 day to 100 years.</summary>
    public TimeSpan Audit { get; set; } = TimeSpan.FromDays(365);

    public void Check() => SettingsReader.Require("Retention:Deliveries", Deliveries, TimeSpan.FromHours(1), TimeSpan.FromDays(3650));
}
