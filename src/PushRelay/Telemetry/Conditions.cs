using System.Globalization;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace PushRelay.Telemetry;

/// <summary>Something that is wrong now.</summary>
/// <param name="Kind">What.</param>
/// <param name="Subject">Of what; with the kind it names the condition.</param>
/// <param name="Since">When it was raised, by this node's clock.</param>
/// <param name="Detail">The cause, as the module that raised it says; null where that is not known yet. No token, and no address of a
/// user.</param>
internal sealed record Condition(ConditionKind Kind, string Subject, DateTimeOffset Since, string? Detail)
{
    /// <summary>What is wrong and why, as one sentence without its full stop.</summary>
    public string Text
    {
        get
        {
            var sentence = string.Format(CultureInfo.InvariantCulture, Kind.Sentence, Subject);
            return Detail is null ? sentence : $"{sentence}: {Detail}";
        }
    }
}

/// <summary>A condition that was raised, or is over.</summary>
internal sealed record ConditionChange(Condition Condition, bool IsRaised);

/// <summary>
/// The board of what is wrong with this node now. Modules raise and clear conditions on it, as often as they look; it logs each once
/// when it
/// begins and once when it ends. Thread-safe.
/// </summary>
internal sealed partial class Conditions(TimeProvider clock, ILogger<Conditions> logger)
{
    private readonly Lock sync = new();
    private readonly Dictionary<(ConditionKind Kind, string Subject), Condition> raised = [];

    // read without the lock: a clear of what was never raised, on every way that works, costs nothing
    private volatile int count;

    /// <summary>Called for each condition that is raised or cleared, in their order and while the board is locked: hand it over and
    /// return.</summary>
    public event Action<ConditionChange>? Changed;

    /// <summary>
    /// It is so, whether it was before or not. The log says it once: at the first call that has a <paramref name="detail"/>. A later detail
    /// replaces an earlier one.
    /// </summary>
    public void Raise(ConditionKind kind, string subject, string? detail = null)
    {
        lock (sync)
        {
            var before = raised.GetValueOrDefault((kind, subject));
            var condition = before is null
                ? new Condition(kind, subject, clock.GetUtcNow(), detail)
                : before with
                {
                    Detail = detail ?? before.Detail,
                };
            raised[(kind, subject)] = condition;
            count = raised.Count;
            if (detail is not null && before?.Detail is null)
            {
                LogRaised(kind.Level, kind.Name, subject, condition.Text, kind.Cure);
            }

            if (before is null)
            {
                Changed?.Invoke(new ConditionChange(condition, IsRaised: true));
            }
        }
    }

    /// <summary>It is not so, whether it was before or not.</summary>
    public void Clear(ConditionKind kind, string subject)
    {
        if (count == 0)
        {
            return;
        }

        lock (sync)
        {
            if (!raised.Remove((kind, subject), out var condition))
            {
                return;
            }

            count = raised.Count;
            if (condition.Detail is not null)
            {
                var seconds = (clock.GetUtcNow() - condition.Since).TotalSeconds;
                LogCleared(kind.Name, subject, seconds);
            }

            Changed?.Invoke(new ConditionChange(condition, IsRaised: false));
        }
    }

    /// <summary>What is wrong now, by kind and subject.</summary>
    public IReadOnlyList<Condition> Snapshot()
    {
        lock (sync)
        {
            return [.. raised.Values.OrderBy(c => c.Kind.Name, StringComparer.Ordinal).ThenBy(c => c.Subject, StringComparer.Ordinal)];
        }
    }

    /// <summary>Degraded while a condition of one of these kinds lasts, with the sentences of all of them.</summary>
    /// <param name="well">The detail where there is none; null: no detail.</param>
    /// <param name="kinds">Those that the health check is about.</param>
    public HealthCheckResult Health(string? well, params ConditionKind[] kinds)
    {
        var wrong = Snapshot().Where(c => kinds.Contains(c.Kind)).Select(c => c.Text).ToList();
        return wrong.Count == 0 ? HealthCheckResult.Healthy(well) : HealthCheckResult.Degraded(string.Join("; ", wrong));
    }

    [LoggerMessage(Message = "{Kind} ({Subject}): {Text}. Cure: {Cure}")]
    private partial void LogRaised(LogLevel level, string kind, string subject, string text, string cure);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Kind} ({Subject}) is over, after {Seconds:0} s")]
    private partial void LogCleared(string kind, string subject, double seconds);
}
