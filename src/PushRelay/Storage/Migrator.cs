using System.Data.Common;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using PushRelay.Settings;

namespace PushRelay.Storage;

/// <summary>
/// Brings the database's schema up to date, and says whether it is. Everything that is wrong there is a <see cref="SettingsException"/>
/// with the cure.
/// </summary>
internal sealed partial class Migrator(IOptions<StorageOptions> options, IDbContextFactory<RelayDb> databases, ILogger<Migrator> logger)
    : IDisposable
{
    private const string Setting = "Storage:ConnectionString";

    private ProcessLock? processLock;

    /// <summary>For the process that serves: on SQLite it takes the process lock and keeps it, and a second process is refused.</summary>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite)
        {
            processLock = ProcessLock.Take(DataSource(db));
        }

        await MigrateAsync(db, cancellationToken);
    }

    /// <summary>For a command; a relay may run.</summary>
    /// <returns>The migrations that were applied.</returns>
    public async Task<IReadOnlyList<string>> MigrateAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite)
        {
            try
            {
                processLock = ProcessLock.Take(DataSource(db));
            }
            catch (SettingsException)
            {
                // a relay serves and has migrated; EF's own lock keeps two migrations apart
            }
        }

        return await MigrateAsync(db, cancellationToken);
    }

    /// <summary>For a command, while a relay runs: it changes and creates nothing.</summary>
    /// <exception cref="SettingsException">The database cannot be opened, or its schema is not this version's.</exception>
    public async Task CheckAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite && !File.Exists(DataSource(db)))
        {
            throw new SettingsException(
                Setting,
                $"There is no database {DataSource(db)} yet. Cure: start the relay, or run pushrelay migrate."
            );
        }

        List<string> applied;
        try
        {
            applied = [.. await db.Database.GetAppliedMigrationsAsync(cancellationToken)];
        }
        catch (Exception exception) when (IsNotOpened(exception))
        {
            throw NotOpened(exception);
        }

        var known = db.Database.GetMigrations().ToList();
        if (known.Except(applied).Any())
        {
            throw new SettingsException(
                Setting,
                $"The schema lacks {known.Except(applied).Count()} migrations. Cure: start the relay, or run pushrelay migrate."
            );
        }

        if (applied.Except(known).FirstOrDefault() is { } newer)
        {
            throw new SettingsException(
                Setting,
                $"A newer PushRelay has written the database (migration {newer}). Cure: run that version or a later one."
            );
        }
    }

    public void Dispose() => processLock?.Dispose();

    /// <summary>Only its owner may read a new database file; SQLite gives its log the same mode.</summary>
    private static void MakeForThisUserOnly(string file)
    {
        if (!File.Exists(file) && !OperatingSystem.IsWindows())
        {
            new FileStream(
                file,
                new FileStreamOptions
                {
                    Mode = FileMode.OpenOrCreate,
                    Access = FileAccess.Write,
                    UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                }
            ).Dispose();
        }
    }

    private async Task<IReadOnlyList<string>> MigrateAsync(RelayDb db, CancellationToken cancellationToken)
    {
        try
        {
            if (db.IsSqlite)
            {
                Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(DataSource(db)))!);
                MakeForThisUserOnly(DataSource(db));
                await DeleteAbandonedLockAsync(db, cancellationToken);
            }

            var applied = (await db.Database.GetAppliedMigrationsAsync(cancellationToken)).ToList();
            if (applied.Except(db.Database.GetMigrations()).FirstOrDefault() is { } newer)
            {
                throw new SettingsException(
                    Setting,
                    $"{Setting} names a database that a newer PushRelay has written (migration {newer}); run that version or a later one."
                );
            }

            var pending = (await db.Database.GetPendingMigrationsAsync(cancellationToken)).ToList();
            if (pending.Count > 0)
            {
                await db.Database.MigrateAsync(cancellationToken);
                Migrated(pending.Count, pending[^1]);
            }

            return pending;
        }
        catch (Exception exception) when (exception is UnauthorizedAccessException || IsNotOpened(exception))
        {
            throw NotOpened(exception);
        }
    }

    /// <summary>
    /// A process that was killed in a migration leaves its row in EF's lock table, and SQLite's next migration would wait for it without
    /// end. Only the holder of the process lock can migrate, so deleting the row is safe.
    /// </summary>
    private async Task DeleteAbandonedLockAsync(RelayDb db, CancellationToken cancellationToken)
    {
        if (processLock is null || !File.Exists(DataSource(db)))
        {
            return;
        }

        var tables = await db
            .Database.SqlQuery<int>($"SELECT count(*) AS Value FROM sqlite_master WHERE name = '__EFMigrationsLock'")
            .SingleAsync(cancellationToken);
        if (tables > 0)
        {
            await db.Database.ExecuteSqlAsync($"DELETE FROM __EFMigrationsLock", cancellationToken);
        }
    }

    private static bool IsNotOpened(Exception exception) =>
        exception is DbException or ArgumentException or IOException || exception.InnerException is NpgsqlException;

    private SettingsException NotOpened(Exception exception)
    {
        var reason = (exception.InnerException as NpgsqlException ?? exception).Message;
        var state = (exception as PostgresException ?? exception.InnerException as PostgresException)?.SqlState;
        if (state == PostgresErrorCodes.InsufficientPrivilege)
        {
            return new SettingsException(
                Setting,
                $"{Setting} ({Describe()}) names a user that may not do this: {reason} Cure: run pushrelay migrate as the database's "
                    + "owner, and grant this user SELECT, INSERT, UPDATE and DELETE on its tables.",
                exception
            );
        }

        var isSqlite = options.Value.Provider == StorageProvider.Sqlite;
        var cure = isSqlite
            ? "name a file in a folder that this user may write, as \"Data Source=/var/lib/pushrelay/pushrelay.db\"."
            : "check host, port, database, user and password, and that PostgreSQL 15 or later is running there.";
        return new SettingsException(Setting, $"{Setting} ({Describe()}) could not be opened: {reason} Cure: {cure}", exception)
        {
            MayPass = !isSqlite && DatabaseErrors.IsOutage(exception),
        };
    }

    /// <summary>The connection string as a message may show it: no part that could be a secret, however it is spelt.</summary>
    private string Describe()
    {
        if (options.Value.Provider == StorageProvider.Sqlite)
        {
            return new SqliteConnectionStringBuilder(options.Value.ConnectionString).DataSource;
        }

        var parts = new NpgsqlConnectionStringBuilder(options.Value.ConnectionString);
        return $"host {parts.Host}, port {parts.Port}, database {parts.Database}, user {parts.Username}";
    }

    private static string DataSource(RelayDb db) => new SqliteConnectionStringBuilder(db.Database.GetConnectionString()).DataSource;

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "The database schema was brought up to date: {Count} migrations, the last is {Migration}"
    )]
    private partial void Migrated(int count, string migration);
}
