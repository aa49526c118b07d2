using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Telemetry;

namespace PushRelay.Tests.Telemetry;

public sealed class ConditionsTests
{
    private const string Domain = "push.example.com";
    private readonly FakeTimeProvider clock = new();
    private readonly Lines log = new();
    private readonly List<string> changes = [];
    private readonly Conditions conditions;

    public ConditionsTests()
    {
        conditions = new Conditions(clock, log);
        conditions.Changed += change =>
            changes.Add($"{(change.IsRaised ? "+" : "-")}{change.Condition.Kind.Name} {change.Condition.Subject}");
    }

    [Fact]
    public void A_condition_that_is_raised_again_and_again_is_one_since_the_first_time_and_logged_once()
    {
        var since = clock.GetUtcNow();
        for (var i = 0; i < 3; i++)
        {
            conditions.Raise(ConditionKind.LinkDown, Domain, $"attempt {i}");
            clock.Advance(TimeSpan.FromSeconds(1));
        }

        var condition = Assert.Single(conditions.Snapshot());
        Assert.Equal((since, "attempt 2"), (condition.Since, condition.Detail));
        Assert.Equal("component push.example.com is not connected: attempt 2", condition.Text);
        Assert.Contains("attempt 0", Assert.Single(log), StringComparison.Ordinal);
        Assert.Equal(["+link_down push.example.com"], changes);
    }

    [Fact]
    public void A_condition_that_is_over_is_logged_once_with_how_long_it_lasted()
    {
        conditions.Raise(ConditionKind.DatabaseDown, "database", "connection refused");
        clock.Advance(TimeSpan.FromSeconds(90));

        conditions.Clear(ConditionKind.DatabaseDown, "database");
        conditions.Clear(ConditionKind.DatabaseDown, "database");

        Assert.Empty(conditions.Snapshot());
        Assert.Equal(
            [
                "Error: database_down (database): the database takes no changes: connection refused. Cure: "
                    + ConditionKind.DatabaseDown.Cure,
                "Information: database_down (database) is over, after 90 s",
            ],
            log
        );
        Assert.Equal(["+database_down database", "-database_down database"], changes);
    }

    [Fact]
    public void What_is_over_before_its_reason_is_known_is_not_logged()
    {
        conditions.Raise(ConditionKind.ServerUnknown, "example.com");
        conditions.Clear(ConditionKind.ServerUnknown, "example.com");

        Assert.Empty(log);
        Assert.Equal(2, changes.Count);
    }

    [Fact]
    public void The_reason_is_logged_when_it_becomes_known()
    {
        conditions.Raise(ConditionKind.ServerUnknown, "example.com");
        conditions.Raise(ConditionKind.ServerUnknown, "example.com", "it answers service-unavailable");
        conditions.Raise(ConditionKind.ServerUnknown, "example.com");

        Assert.Contains("service-unavailable", Assert.Single(log), StringComparison.Ordinal);
        Assert.Equal("it answers service-unavailable", Assert.Single(conditions.Snapshot()).Detail);
        Assert.Single(changes);
    }

    [Fact]
    public void The_board_is_sorted_by_kind_and_subject_and_each_subject_is_a_condition_of_its_own()
    {
        conditions.Raise(ConditionKind.ServerUnknown, "b");
        conditions.Raise(ConditionKind.ServerUnknown, "a");
        conditions.Raise(ConditionKind.LinkDown, "z");
        conditions.Raise(ConditionKind.ServerUnknown, "c");
        conditions.Clear(ConditionKind.ServerUnknown, "b");

        Assert.Equal(
            [("link_down", "z"), ("server_unknown", "a"), ("server_unknown", "c")],
            conditions.Snapshot().Select(c => (c.Kind.Name, c.Subject))
        );
    }

    [Fact]
    public void Health_is_degraded_by_the_kinds_it_is_about_and_by_no_other()
    {
        conditions.Raise(ConditionKind.DatabaseDown, "database", "connection refused");
        conditions.Raise(ConditionKind.LinkDown, Domain);

        var links = conditions.Health("all is well", ConditionKind.LinkDown, ConditionKind.ServerUnknown);
        var apps = conditions.Health("every app may send", ConditionKind.CircuitOpen);

        Assert.Equal((HealthStatus.Degraded, "component push.example.com is not connected"), (links.Status, links.Description));
        Assert.Equal((HealthStatus.Healthy, "every app may send"), (apps.Status, apps.Description));
    }

    private sealed class Lines : List<string>, ILogger<Conditions>
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(
            LogLevel logLevel,
            EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter
        ) => Add($"{logLevel}: {formatter(state, exception)}");
    }
}
