using System.Data.Common;
using Microsoft.Data.Sqlite;
using Npgsql;

namespace PushRelay.Storage;

/// <summary>Tells a database that is away, busy or full, where waiting is the cure, from a statement that will always fail.</summary>
internal static class DatabaseOutage
{
    // https://sqlite.org/rescode.html: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN
    private static readonly int[] SqliteOutages = [5, 6, 8, 10, 13, 14];

    // PostgreSQL appendix A: connection exception, insufficient resources, operator intervention, system error
    private static readonly string[] PostgreSqlOutages = ["08", "53", "57", "58"];

    // this process stood still inside a transaction, and lost it
    private const string IdleInTransaction = "25P03";

    public static bool Is(Exception exception)
    {
        for (var cause = exception; cause is not null; cause = cause.InnerException)
        {
            if (cause is TimeoutException
                || (cause is SqliteException sqlite && SqliteOutages.Contains(sqlite.SqliteErrorCode))
                || (cause is PostgresException postgres && (PostgreSqlOutages.Contains(postgres.SqlState[..2]) || postgres.SqlState == IdleInTransaction))
                || (cause is NpgsqlException and not PostgresException)
                || cause is DbException { IsTransient: true })
            {
                return true;
            }
        }

        return false;
    }
}
