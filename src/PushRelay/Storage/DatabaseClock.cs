using Microsoft.EntityFrameworkCore;

namespace PushRelay.Storage;

/// <summary>
/// The clock that due times, leases and ages are judged by: PostgreSQL's own, so that a node whose clock is off does no harm;
/// on SQLite, which one process uses alone, the process's.
/// </summary>
internal sealed class DatabaseClock(TimeProvider clock)
{
    /// <summary>Added to PostgreSQL's time: zero but in tests.</summary>
    internal TimeSpan Offset { get; set; }

    // clock_timestamp(): now() stands still inside a transaction
    public async ValueTask<DateTimeOffset> NowAsync(RelayDb db, CancellationToken cancellationToken) => db.IsSqlite
        ? clock.GetUtcNow()
        : await db.Database.SqlQuery<DateTimeOffset>($"SELECT clock_timestamp() AS \"Value\"").SingleAsync(cancellationToken) + Offset;

    /// <summary>An instant as a parameter of raw SQL, which EF's conversions do not reach.</summary>
    public static object Parameter(RelayDb db, DateTimeOffset instant) => db.IsSqlite ? instant.UtcTicks : instant.ToUniversalTime();
}
