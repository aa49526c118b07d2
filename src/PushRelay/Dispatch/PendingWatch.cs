using System.Globalization;
using Microsoft.EntityFrameworkCore;
using PushRelay.Outbox;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Dispatch;

/// <summary>Deliveries that are due and are not sent, though their lane sends.</summary>
internal sealed class PendingWatch(IDbContextFactory<RelayDb> databases, DatabaseClock databaseClock, Conditions conditions) : IWatch
{
    public static readonly TimeSpan Tolerated = TimeSpan.FromSeconds(60);

    private readonly HashSet<string> raised = new(StringComparer.Ordinal);

    public async Task LookAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await databaseClock.NowAsync(db, cancellationToken);
        var late = now - Tolerated;
        var open = (await CircuitTable.AllAsync(db, cancellationToken)).ConvertAll(c => (Push.Lane?)c.Lane);
        var waiting = await db.Set<Delivery>()
            .Where(d => d.State == DeliveryState.Pending && d.DueAt <= late && d.ExpiresAt > now && !open.Contains(d.Lane))
            .GroupBy(d => new { d.App, d.Platform })
            .Select(same => new
            {
                same.Key.App,
                same.Key.Platform,
                Count = same.Count(),
                Oldest = same.Min(d => d.DueAt),
            })
            .ToListAsync(cancellationToken);
        var found = new HashSet<string>(StringComparer.Ordinal);
        foreach (var group in waiting)
        {
            var subject = $"{group.App}/{group.Platform}";
            found.Add(subject);
            var text = string.Create(
                CultureInfo.InvariantCulture,
                $"{group.Count} of them, the oldest for {(now - group.Oldest).TotalSeconds:0} s"
            );
            conditions.Raise(ConditionKind.OldestPending, subject, text);
        }

        foreach (var subject in raised.Except(found))
        {
            conditions.Clear(ConditionKind.OldestPending, subject);
        }

        raised.Clear();
        raised.UnionWith(found);
    }
}
