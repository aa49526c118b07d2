namespace PushRelay.Apns.Simulator;

/// <summary>The rules in force and how often each still applies. Safe for concurrent use.</summary>
internal sealed class Script(int seed)
{
    /// <summary>More rules than any test needs; a bound for the control port.</summary>
    public const int RulesMax = 10_000;

    private readonly Lock sync = new();
    private readonly List<Entry> entries = [];
    private readonly Random chance = new(seed);

    /// <summary>All of them, or none.</summary>
    /// <exception cref="ArgumentException">A value is out of its bounds, or there are too many rules.</exception>
    public void Add(params IReadOnlyCollection<ScriptRule> rules)
    {
        if (rules.Any(IsOutOfBounds))
        {
            throw new ArgumentException(
                "skip is not negative, times at least 1, rate above 0 and up to 1, status 200 to 599, delay between 0 and 1 hour."
            );
        }

        lock (sync)
        {
            if (entries.Count + rules.Count > RulesMax)
            {
                throw new ArgumentException($"A script has at most {RulesMax} rules.");
            }

            entries.AddRange(rules.Select(rule => new Entry(rule)));
        }
    }

    /// <summary>The rule for this request, used up once more; null: none.</summary>
    public ScriptRule? Next(string token)
    {
        lock (sync)
        {
            foreach (var entry in entries)
            {
                if (entry.Rule.Token is { } wanted && !wanted.Equals(token, StringComparison.OrdinalIgnoreCase))
                {
                    continue;
                }

                if (entry.Skip > 0)
                {
                    entry.Skip--;
                    continue;
                }

                if (entry.Rule.Rate < 1 && chance.NextDouble() >= entry.Rule.Rate)
                {
                    continue;
                }

                if (entry.Times != int.MaxValue && --entry.Times == 0)
                {
                    entries.Remove(entry);
                }

                return entry.Rule;
            }

            return null;
        }
    }

    /// <summary>What is left, with what is left of each.</summary>
    public IReadOnlyList<ScriptRule> Snapshot()
    {
        lock (sync)
        {
            return [.. entries.Select(entry => entry.Rule with { Skip = entry.Skip, Times = entry.Times })];
        }
    }

    public void Clear()
    {
        lock (sync)
        {
            entries.Clear();
        }
    }

    private static bool IsOutOfBounds(ScriptRule rule) =>
        rule.Skip < 0
        || rule.Times < 1
        || rule.Rate is not (> 0 and <= 1)
        || rule.Status is < 200 or > 599
        || rule.Delay < TimeSpan.Zero
        || rule.Delay > TimeSpan.FromHours(1);

    private sealed class Entry(ScriptRule rule)
    {
        public ScriptRule Rule { get; } = rule;

        public int Skip { get; set; } = rule.Skip;

        public int Times { get; set; } = rule.Times;
    }
}
