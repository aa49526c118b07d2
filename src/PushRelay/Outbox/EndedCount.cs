using Microsoft.EntityFrameworkCore;
using PushRelay.Telemetry;

namespace PushRelay.Outbox;

/// <summary>Counts the rows that come to their end, for the metrics; each row once for each time it ends.</summary>
internal sealed class EndedCount(RelayMetrics metrics, TimeProvider clock)
{
    /// <summary>A row that an attempt, or what was decided before one, has ended.</summary>
    public void Count(RowChange change)
    {
        var row = change.Row;
        metrics.CountEnded(row.App, row.Platform, Names.Of(change.State), change.Reason ?? row.Reason);
        if (change.State == DeliveryState.Accepted)
        {
            metrics.RecordAccepted(row.App ?? "", row.Platform ?? "", clock.GetUtcNow() - row.CreatedAt);
        }
    }

    /// <summary>Rows that were written as ended.</summary>
    public void Count(IEnumerable<Delivery> rows)
    {
        foreach (var same in rows.GroupBy(r => (r.App, r.Platform, r.State, r.Reason)))
        {
            metrics.CountEnded(same.Key.App, same.Key.Platform, Names.Of(same.Key.State), same.Key.Reason, same.Count());
        }
    }

    /// <summary><see cref="Transitions.EndAsync"/>, counted. Where nothing is to be ended nothing is written.</summary>
    public async Task<int> EndAsync(
        IQueryable<Delivery> which,
        DeliveryState state,
        string reason,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var apps = await which
            .GroupBy(d => new { d.App, d.Platform })
            .Select(same => new
            {
                same.Key.App,
                same.Key.Platform,
                Rows = same.Count(),
            })
            .ToListAsync(cancellationToken);
        if (apps.Count == 0)
        {
            return 0;
        }

        var ended = await Transitions.EndAsync(which, state, reason, now, cancellationToken);
        foreach (var app in apps)
        {
            metrics.CountEnded(app.App, app.Platform, Names.Of(state), reason, app.Rows);
        }

        return ended;
    }
}
