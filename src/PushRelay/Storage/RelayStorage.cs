using System.Data.Common;
using System.Globalization;
using System.Security.Cryptography;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using Npgsql;
using PushRelay.Secrets;
using PushRelay.Settings;

namespace PushRelay.Storage;

/// <summary>
/// Opens the database for a process: takes SQLite's process lock, brings the schema up to date, and checks the master key.
/// Whatever is wrong there stops the start with a <see cref="SettingsException"/> that says the cure.
/// </summary>
internal sealed partial class RelayStorage(
    IOptions<StorageOptions> options,
    IDbContextFactory<RelayDb> databases,
    TimeProvider clock,
    ILogger<RelayStorage> logger
) : IDisposable
{
    private const int KeysMax = 8;

    private FileStream? processLock;
    private MasterKey? masterKey;

    public MasterKey MasterKey => masterKey ?? throw new InvalidOperationException("The storage is not open yet.");

    /// <summary>For the one process that serves: on SQLite a second one is refused.</summary>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite)
        {
            processLock = TakeProcessLock(DataSource(db));
        }

        await MigrateAsync(db, cancellationToken);
        masterKey = await LoadMasterKeyAsync(db, cancellationToken);
    }

    /// <summary>For a command beside a running relay: changes and makes nothing.</summary>
    /// <exception cref="SettingsException">The database is away, or its schema is not this version's; the message has the cure.</exception>
    public async Task CheckSchemaAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (db.IsSqlite && !File.Exists(DataSource(db)))
        {
            throw new SettingsException($"There is no database {DataSource(db)} yet. Cure: start the relay, or run pushrelay migrate.");
        }

        List<string> applied;
        try
        {
            applied = [.. await db.Database.GetAppliedMigrationsAsync(cancellationToken)];
        }
        catch (Exception exception)
            when (exception is DbException or ArgumentException or IOException || exception.InnerException is NpgsqlException)
        {
            throw NotOpened(exception);
        }

        var known = db.Database.GetMigrations().ToList();
        if (known.Except(applied).Any())
        {
            throw new SettingsException(
                $"The schema lacks {known.Except(applied).Count()} migrations. Cure: start the relay, or run pushrelay migrate."
            );
        }

        if (applied.Except(known).FirstOrDefault() is { } newer)
        {
            throw new SettingsException(
                $"A newer PushRelay has written the database (migration {newer}). Cure: run that version or a later one."
            );
        }
    }

    /// <summary>For a command beside a running relay: the key that is there.</summary>
    /// <exception cref="SettingsException">It is not there, or not this database's.</exception>
    public async Task OpenKeyAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(options.Value.MasterKeyFile))
        {
            throw new SettingsException(
                $"Storage:MasterKeyFile '{options.Value.MasterKeyFile}' does not exist. Cure: put the key that this database was made "
                    + $"with there; a relay with a new database makes one."
            );
        }

        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        masterKey = await LoadMasterKeyAsync(db, cancellationToken);
    }

    /// <summary>Brings the schema up to date, also beside a running relay.</summary>
    /// <returns>The migrations that were applied.</returns>
    public async Task<IReadOnlyList<string>> MigrateAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        if (!db.IsSqlite)
        {
            return await MigrateAsync(db, cancellationToken);
        }

        try
        {
            processLock = TakeProcessLock(DataSource(db));
        }
        catch (SettingsException)
        {
            // a relay serves: it has migrated, and what is pending waits for its turn
        }

        return await MigrateAsync(db, cancellationToken);
    }

    public void Dispose() => processLock?.Dispose();

    private async Task<IReadOnlyList<string>> MigrateAsync(RelayDb db, CancellationToken cancellationToken)
    {
        try
        {
            if (db.IsSqlite)
            {
                MakeFolderFor(DataSource(db));
                await ForgetAbandonedMigrationAsync(db, cancellationToken);
            }

            var applied = (await db.Database.GetAppliedMigrationsAsync(cancellationToken)).ToList();
            if (applied.Except(db.Database.GetMigrations()).FirstOrDefault() is { } newer)
            {
                throw new SettingsException(
                    $"Storage:ConnectionString names a database that a newer PushRelay has written (migration {newer}); run that "
                        + $"version or a later one."
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
        catch (Exception exception)
            when (exception is DbException or ArgumentException or IOException or UnauthorizedAccessException
                || exception.InnerException is NpgsqlException
            )
        {
            throw NotOpened(exception);
        }
    }

    private SettingsException NotOpened(Exception exception)
    {
        var reason = (exception.InnerException as NpgsqlException ?? exception).Message;
        if (
            (exception as PostgresException ?? exception.InnerException as PostgresException)?.SqlState
            == PostgresErrorCodes.InsufficientPrivilege
        )
        {
            return new SettingsException(
                $"Storage:ConnectionString ({Describe()}) names a user that may not do this: {reason} Cure: run pushrelay migrate as "
                    + $"the database's owner, "
                    + "and grant this user SELECT, INSERT, UPDATE and DELETE on its tables.",
                exception
            );
        }

        var text =
            $"Storage:ConnectionString ({Describe()}) could not be opened: {reason} Cure: "
            + (
                options.Value.Provider == StorageProvider.Sqlite
                    ? "name a file in a folder that this user may write, as \"Data Source=/var/lib/pushrelay/pushrelay.db\"."
                    : "check host, port, database, user and password, and that PostgreSQL 15 or later is running there."
            );
        return new SettingsException(text, exception)
        {
            MayPass = options.Value.Provider == StorageProvider.PostgreSql && DatabaseErrors.Is(exception),
        };
    }

    /// <summary>
    /// A process killed in a migration leaves its row in EF's lock table, for which SQLite's migration would wait for ever.
    /// Who holds the process lock knows that nobody else migrates.
    /// </summary>
    private async Task ForgetAbandonedMigrationAsync(RelayDb db, CancellationToken cancellationToken)
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

    private async Task<MasterKey> LoadMasterKeyAsync(RelayDb db, CancellationToken cancellationToken)
    {
        var path = options.Value.MasterKeyFile;
        var known = await db.Set<KnownKey>().SingleOrDefaultAsync(cancellationToken);
        var cure =
            $"Cure: put the key that this database was made with "
            + $"there{(known is null ? "" : $" (it is the one made on {known.CreatedAt:yyyy-MM-dd})")}.";
        if (!File.Exists(path))
        {
            if (known is not null)
            {
                throw new SettingsException(
                    $"Storage:MasterKeyFile '{path}' does not exist, but the database has secrets sealed with a key. {cure}"
                );
            }

            MakeKeyFile(path);
            KeyMade(path);
        }

        var key = ReadKeyFile(path);
        if (known is null)
        {
            db.Add(new KnownKey { Fingerprint = key.Fingerprint, CreatedAt = clock.GetUtcNow() });
            try
            {
                await db.SaveChangesAsync(cancellationToken);
            }
            catch (DbUpdateException)
            {
                // another node was first: its key counts
                db.ChangeTracker.Clear();
                known = await db.Set<KnownKey>().SingleAsync(cancellationToken);
            }
        }

        if (known is not null && !key.Fingerprints.Contains(known.Fingerprint))
        {
            throw new SettingsException(
                $"Storage:MasterKeyFile '{path}' holds another key than the one this database's secrets are sealed with. {cure} "
                    + "A new key is its first line, the old one the next, until pushrelay keys rotate has ended."
            );
        }

        if (known is not null && known.Fingerprint != key.Fingerprint)
        {
            KeyIsNew(path);
        }

        return key;
    }

    /// <summary>What stands under an older key is gone: the database is the first key's from now on, and starts without that one are
    /// refused.</summary>
    /// <returns>False: it is that key's already.</returns>
    public async Task<bool> AdoptKeyAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var (fingerprint, now) = (MasterKey.Fingerprint, clock.GetUtcNow());
        return await db.Set<KnownKey>()
                .Where(k => k.Fingerprint != fingerprint)
                .ExecuteUpdateAsync(
                    set => set.SetProperty(k => k.Fingerprint, fingerprint).SetProperty(k => k.CreatedAt, now),
                    cancellationToken
                ) > 0;
    }

    private static void MakeKeyFile(string path)
    {
        try
        {
            MakeFolderFor(path);
            var create = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
            {
                create.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
            }

            using var file = new StreamWriter(path, create);
            file.WriteLine(Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(MasterKey.KeyBytes)));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException(
                $"Storage:MasterKeyFile '{path}' could not be made: {exception.Message} Cure: name a file in a folder that this user "
                    + $"may write.",
                exception
            );
        }
    }

    private static MasterKey ReadKeyFile(string path)
    {
        try
        {
            var keys = File.ReadAllLines(path).Select(line => line.Trim()).Where(line => line.Length > 0).Take(KeysMax + 1).ToList();
            return keys.Count is > 0 and <= KeysMax && keys.All(key => key.Length == MasterKey.KeyBytes * 2)
                ? new MasterKey([.. keys.Select(Convert.FromHexString)])
                : throw new FormatException(
                    $"it has {keys.Count} lines; each of 1 to {KeysMax} must have {MasterKey.KeyBytes * 2} hex digits."
                );
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new SettingsException(
                $"Storage:MasterKeyFile '{path}' is no key of {MasterKey.KeyBytes * 2} hex digits: {exception.Message} Cure: restore "
                    + $"the file from its backup.",
                exception
            );
        }
    }

    private static FileStream TakeProcessLock(string dataSource)
    {
        var path = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(dataSource))!, "pushrelay.lock");
        try
        {
            MakeFolderFor(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException(
                $"Storage:ConnectionString needs the folder of {path}, which cannot be made: {exception.Message} Cure: name a file in "
                    + $"a folder that this user may write.",
                exception
            );
        }

        try
        {
            // an exclusive flock, which the kernel takes back when the process dies
            var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            // beside it, because a locked file cannot be read: for the message of whoever comes second
            File.WriteAllText(HolderFile(path), Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
            return file;
        }
        catch (IOException exception)
        {
            throw new SettingsException(
                $"Storage:ConnectionString names a SQLite database that a relay already uses ({path} is locked{Holder(path)}). "
                    + "Cure: stop that one, or use PostgreSQL to run several.",
                exception
            );
        }
        catch (UnauthorizedAccessException exception)
        {
            throw new SettingsException(
                $"Storage:ConnectionString: {path} cannot be written: {exception.Message} Cure: name a folder that this user may write.",
                exception
            );
        }
    }

    private static string Holder(string path) => File.Exists(HolderFile(path)) ? $" by process {File.ReadAllText(HolderFile(path))}" : "";

    private static string HolderFile(string path) => Path.ChangeExtension(path, ".pid");

    private static void MakeFolderFor(string path) => Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);

    private static string DataSource(RelayDb db) => new SqliteConnectionStringBuilder(db.Database.GetConnectionString()).DataSource;

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

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "The database schema was brought up to date: {Count} migrations, the last is {Migration}"
    )]
    private partial void Migrated(int count, string migration);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The first key of {Path} is new: it writes from now on. Once every node has it, run pushrelay keys rotate; the older "
            + "keys are needed until that has ended"
    )]
    private partial void KeyIsNew(string path);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "A new master key was made in {Path}: back it up apart from the database, without it device tokens cannot be read"
    )]
    private partial void KeyMade(string path);
}

/// <summary>Not durable without: SQLite syncs each commit to the disk, and a writer waits for another's commit.</summary>
internal sealed class SqlitePragmas : DbConnectionInterceptor
{
    // the commit that moves the write-ahead log into the file does so at 1 MB, that nobody waits long for it; 8 MB of pages are kept
    private const string Pragmas =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000; PRAGMA foreign_keys=ON; "
        + "PRAGMA wal_autocheckpoint=250; PRAGMA cache_size=-8000;";

    public override void ConnectionOpened(DbConnection connection, ConnectionEndEventData eventData)
    {
        using var command = connection.CreateCommand();
        command.CommandText = For(connection);
        command.ExecuteNonQuery();
    }

    public override async Task ConnectionOpenedAsync(
        DbConnection connection,
        ConnectionEndEventData eventData,
        CancellationToken cancellationToken = default
    )
    {
        await using var command = connection.CreateCommand();
        command.CommandText = For(connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    // EF looks whether the database exists over a connection that may not write
    private static string For(DbConnection connection) =>
        new SqliteConnectionStringBuilder(connection.ConnectionString).Mode == SqliteOpenMode.ReadOnly
            ? "PRAGMA busy_timeout=5000;"
            : Pragmas;
}

/// <summary>Ready means: the database answers.</summary>
internal sealed class StorageHealth(IDbContextFactory<RelayDb> databases) : IHealthCheck
{
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        try
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            await db.Set<KnownKey>().AnyAsync(cancellationToken);
            return HealthCheckResult.Healthy();
        }
        catch (Exception exception) when (exception is DbException or InvalidOperationException or TimeoutException)
        {
            return HealthCheckResult.Unhealthy("the database does not answer");
        }
    }
}
