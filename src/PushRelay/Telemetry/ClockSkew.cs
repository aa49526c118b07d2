using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Globalization;

namespace PushRelay.Telemetry;

/// <summary>How far this machine's clock is from others: a condition from <see cref="Tolerated"/> on, and a gauge. Thread-safe.</summary>
internal sealed class ClockSkew
{
    public const string Database = "database";
    public const string Network = "network";

    /// <summary>Provider tokens and JWTs are refused when a clock is much further off.</summary>
    public static readonly TimeSpan Tolerated = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<string, TimeSpan> ahead = new(StringComparer.Ordinal);
    private readonly Conditions conditions;

    public ClockSkew(Conditions conditions, IMeterFactory meters)
    {
        this.conditions = conditions;
        meters
            .Create(RelayMetrics.MeterName)
            .CreateObservableGauge(
                "pushrelay.clock_skew",
                () => ahead.Select(a => new Measurement<double>(a.Value.TotalSeconds, new KeyValuePair<string, object?>("against", a.Key))),
                "s",
                "How far this machine's clock is ahead."
            );
    }

    /// <param name="against"><see cref="Database"/> or <see cref="Network"/>.</param>
    /// <param name="isAhead">This machine's clock is ahead of it by so much; below zero: behind.</param>
    public void Observe(string against, TimeSpan isAhead)
    {
        ahead[against] = isAhead;
        if (isAhead.Duration() >= Tolerated)
        {
            var direction = isAhead > TimeSpan.Zero ? "ahead of" : "behind";
            var text = string.Create(
                CultureInfo.InvariantCulture,
                $"this machine's clock is {isAhead.Duration().TotalSeconds:0} s {direction} the clock of the {against}"
            );
            conditions.Raise(ConditionKind.ClockSkew, against, text);
        }
        else
        {
            conditions.Clear(ConditionKind.ClockSkew, against);
        }
    }
}
