using System.Data.Common;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Npgsql;

namespace PushRelay.Storage;

/// <summary>What follows from an error of the database: wait for it, try the same again at once, or give up.</summary>
internal static class DatabaseErrors
{
    // https://sqlite.org/rescode.html: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN
    private static readonly int[] SqliteOutages = [5, 6, 8, 10, 13, 14];

    // PostgreSQL appendix A: connection exception, insufficient resources, operator intervention, system error
    private static readonly string[] PostgreSqlOutageClasses = ["08", "53", "57", "58"];

    // this process was paused inside a transaction and lost it (25P03); the server is a standby, or about to become the primary (25006)
    private static readonly string[] PostgreSqlOutages = ["25P03", "25006"];

    // PostgreSQL appendix A: unique violation, deadlock, serialization failure
    private static readonly string[] PostgreSqlClashes = ["23505", "40P01", "40001"];

    // PostgreSQL appendix A: data exception, integrity constraint, program limit
    private static readonly string[] PostgreSqlRefusalClasses = ["22", "23", "54"];

    // https://sqlite.org/rescode.html: TOOBIG, CONSTRAINT, MISMATCH
    private static readonly int[] SqliteRefusals = [18, 19, 20];

    /// <summary>The database is away, busy or full: nothing was committed; wait and try again.</summary>
    public static bool IsOutage(Exception exception) =>
        Causes(exception)
            .Any(cause =>
                cause switch
                {
                    TimeoutException => true,
                    SqliteException sqlite => sqlite.IsTransient || SqliteOutages.Contains(sqlite.SqliteErrorCode),
                    PostgresException postgres => postgres.IsTransient
                        || PostgreSqlOutageClasses.Contains(postgres.SqlState[..2])
                        || PostgreSqlOutages.Contains(postgres.SqlState),
                    NpgsqlException => true,
                    DbException other => other.IsTransient,
                    _ => false,
                }
            );

    /// <summary>There is no space for what was to be written: SQLITE_FULL, or PostgreSQL's disk_full.</summary>
    public static bool IsFull(Exception exception) =>
        Causes(exception).Any(cause => cause is SqliteException { SqliteErrorCode: 13 } or PostgresException { SqlState: "53100" });

    /// <summary>
    /// Another transaction wrote the same row, or the two waited for each other: nothing was committed, and the same again will probably
    /// succeed. Also any other change that EF could not save, because it may have failed for one row of many.
    /// </summary>
    public static bool IsClash(Exception exception) =>
        (exception is DbUpdateException && !IsOutage(exception))
        || Causes(exception).Any(cause => cause is PostgresException postgres && PostgreSqlClashes.Contains(postgres.SqlState));

    /// <summary>
    /// True: the database refused the data itself (constraint, range, size), or the error is not from the database: the same will never
    /// succeed. False: any other error of the database; it may be temporary.
    /// </summary>
    public static bool IsRefusal(Exception exception) =>
        Causes(exception).FirstOrDefault(cause => cause is PostgresException or SqliteException) switch
        {
            PostgresException postgres => PostgreSqlRefusalClasses.Contains(postgres.SqlState[..2]),
            SqliteException sqlite => SqliteRefusals.Contains(sqlite.SqliteErrorCode),
            _ => !IsOutage(exception),
        };

    /// <summary>Does something until it succeeds.</summary>
    /// <param name="action">Gets the number of the try, from 1.</param>
    /// <param name="wait">
    /// From the error and the number of the try that it ended: how long to wait before the next; null: give up, and throw it.
    /// </param>
    /// <param name="clock">For the waits.</param>
    /// <param name="cancellationToken">Ends a wait.</param>
    public static async Task<T> RetryAsync<T>(
        Func<int, Task<T>> action,
        Func<Exception, int, TimeSpan?> wait,
        TimeProvider clock,
        CancellationToken cancellationToken
    )
    {
        for (var tries = 1; ; tries++)
        {
            TimeSpan? pause = null;
            try
            {
                return await action(tries);
            }
            catch (Exception exception) when ((pause = wait(exception, tries)) is not null)
            {
                await Task.Delay(pause.GetValueOrDefault(), clock, cancellationToken);
            }
        }
    }

    /// <summary>Runs a transaction again, at once, while it clashes with another node's.</summary>
    /// <param name="action">Gets the number of the try, from 1.</param>
    /// <param name="triesMax">Then the error is thrown.</param>
    public static Task<T> RetryClashesAsync<T>(Func<int, Task<T>> action, int triesMax) =>
        RetryAsync(
            action,
            (exception, tries) => tries < triesMax && IsClash(exception) ? TimeSpan.Zero : null,
            TimeProvider.System,
            CancellationToken.None
        );

    private static IEnumerable<Exception> Causes(Exception exception)
    {
        for (Exception? cause = exception; cause is not null; cause = cause.InnerException)
        {
            yield return cause;
        }
    }
}
