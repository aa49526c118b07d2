using System.Data.Common;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Npgsql;

namespace PushRelay.Storage;

/// <summary>Tells a database that is away, busy or full, where waiting is the cure, from a statement that will always fail.</summary>
internal static class DatabaseErrors
{
    // https://sqlite.org/rescode.html: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN
    private static readonly int[] SqliteOutages = [5, 6, 8, 10, 13, 14];

    // PostgreSQL appendix A: connection exception, insufficient resources, operator intervention, system error
    private static readonly string[] PostgreSqlOutages = ["08", "53", "57", "58"];

    // this process stood still inside a transaction, and lost it; a standby, or one that is about to become the primary
    private static readonly string[] PostgreSqlStates = ["25P03", "25006"];

    // PostgreSQL appendix A: unique violation, deadlock, serialization failure
    private static readonly string[] PostgreSqlClashes = ["23505", "40P01", "40001"];

    // PostgreSQL appendix A: data exception, integrity constraint, program limit; https://sqlite.org/rescode.html: TOOBIG, CONSTRAINT,
    // MISMATCH
    private static readonly string[] PostgreSqlRefusals = ["22", "23", "54"];
    private static readonly int[] SqliteRefusals = [18, 19, 20];

    public static bool Is(Exception exception)
    {
        for (var cause = exception; cause is not null; cause = cause.InnerException)
        {
            if (
                cause is TimeoutException
                || (cause is SqliteException sqlite && SqliteOutages.Contains(sqlite.SqliteErrorCode))
                || (
                    cause is PostgresException postgres
                    && (PostgreSqlOutages.Contains(postgres.SqlState[..2]) || PostgreSqlStates.Contains(postgres.SqlState))
                )
                || (cause is NpgsqlException and not PostgresException)
                || cause is DbException { IsTransient: true }
            )
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Another transaction wrote the same row, or the two waited for each other: nothing was committed, and the same again will probably
    /// succeed. Also any other statement of EF that the database refused, which it may do because of one row of many.
    /// </summary>
    public static bool IsClash(Exception exception)
    {
        for (var cause = exception; cause is not null; cause = cause.InnerException)
        {
            if (cause is PostgresException postgres && PostgreSqlClashes.Contains(postgres.SqlState))
            {
                return true;
            }
        }

        return exception is DbUpdateException && !Is(exception);
    }

    /// <summary>
    /// The values themselves can never be stored, or were never brought to the database: neither waiting nor another statement helps. All
    /// else that a database says may be of the moment, of its state or of its version.
    /// </summary>
    public static bool IsOfTheValues(Exception exception)
    {
        for (var cause = exception; cause is not null; cause = cause.InnerException)
        {
            if (cause is PostgresException postgres)
            {
                return PostgreSqlRefusals.Contains(postgres.SqlState[..2]);
            }

            if (cause is SqliteException sqlite)
            {
                return SqliteRefusals.Contains(sqlite.SqliteErrorCode);
            }
        }

        return !Is(exception);
    }
}
