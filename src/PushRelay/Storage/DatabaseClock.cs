using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace PushRelay.Storage;

/// <summary>
/// The clock for due times, leases and ages: PostgreSQL's own, so that a wrong clock of a node has no effect; on SQLite, which one process
/// uses, the clock of the process. Thread-safe.
/// </summary>
internal sealed class DatabaseClock(TimeProvider clock)
{
    /// <summary>Added to PostgreSQL's time; only tests set it.</summary>
    internal TimeSpan Offset { get; set; }

    public async ValueTask<DateTimeOffset> NowAsync(RelayDb db, CancellationToken cancellationToken)
    {
        if (db.IsSqlite)
        {
            return clock.GetUtcNow();
        }

        // read before nearly every transaction; EF would build the query again each time
        await db.Database.OpenConnectionAsync(cancellationToken);
        try
        {
            await using var command = db.Database.GetDbConnection().CreateCommand();
            // now() does not move inside a transaction
            command.CommandText = "SELECT clock_timestamp()";
            command.Transaction = db.Database.CurrentTransaction?.GetDbTransaction();
            return new DateTimeOffset((DateTime)(await command.ExecuteScalarAsync(cancellationToken))!) + Offset;
        }
        finally
        {
            await db.Database.CloseConnectionAsync();
        }
    }

    /// <summary>An instant as a parameter of raw SQL, where EF converts nothing.</summary>
    public static object Parameter(RelayDb db, DateTimeOffset instant) => db.IsSqlite ? instant.UtcTicks : instant.ToUniversalTime();
}
