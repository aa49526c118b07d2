using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace PushRelay.Storage;

/// <summary>
/// The clock that due times, leases and ages are judged by: PostgreSQL's own, so that a node whose clock is off does no harm;
/// on SQLite, which one process uses alone, the process's.
/// </summary>
internal sealed class DatabaseClock(TimeProvider clock)
{
    /// <summary>Added to PostgreSQL's time: zero but in tests.</summary>
    internal TimeSpan Offset { get; set; }

    public async ValueTask<DateTimeOffset> NowAsync(RelayDb db, CancellationToken cancellationToken)
    {
        if (db.IsSqlite)
        {
            return clock.GetUtcNow();
        }

        // asked before nearly everything, and not through EF: that would build its query anew each time
        await db.Database.OpenConnectionAsync(cancellationToken);
        try
        {
            await using var command = db.Database.GetDbConnection().CreateCommand();
            // now() stands still inside a transaction
            command.CommandText = "SELECT clock_timestamp()";
            command.Transaction = db.Database.CurrentTransaction?.GetDbTransaction();
            return new DateTimeOffset((DateTime)(await command.ExecuteScalarAsync(cancellationToken))!) + Offset;
        }
        finally
        {
            await db.Database.CloseConnectionAsync();
        }
    }

    /// <summary>An instant as a parameter of raw SQL, which EF's conversions do not reach.</summary>
    public static object Parameter(RelayDb db, DateTimeOffset instant) => db.IsSqlite ? instant.UtcTicks : instant.ToUniversalTime();
}
