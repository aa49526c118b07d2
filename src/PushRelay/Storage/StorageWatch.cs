using System.Globalization;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using PushRelay.Telemetry;

namespace PushRelay.Storage;

/// <summary>The disk of an SQLite database, and the clock of a PostgreSQL.</summary>
internal sealed class StorageWatch(
    IDbContextFactory<RelayDb> databases,
    DatabaseClock databaseClock,
    DatabaseFailures failures,
    ClockSkew skew,
    Conditions conditions,
    TimeProvider clock
) : IWatch
{
    private const string Subject = "database";
    private const long FreeBytesMin = 200_000_000;
    private const double FreeShareMin = 0.05;

    public async Task LookAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        LookAtDisk(db);
        if (db.IsSqlite)
        {
            // the time of a file's rows is this machine's
            skew.Observe(ClockSkew.Database, TimeSpan.Zero);
        }
        else
        {
            var before = clock.GetUtcNow();
            var now = await databaseClock.NowAsync(db, cancellationToken);
            var after = clock.GetUtcNow();
            // the answer was made in between
            skew.Observe(ClockSkew.Database, before + ((after - before) / 2) - now);
        }
    }

    /// <summary>Too little for a day of a usual site, or for the next checkpoint.</summary>
    internal static bool IsLow(long free, long total) => free < FreeBytesMin || free < FreeShareMin * total;

    private void LookAtDisk(RelayDb db)
    {
        if (failures.IsFull)
        {
            // raised where the write failed
            return;
        }

        // the disk of a PostgreSQL is another machine's
        if (
            db.IsSqlite
            && new SqliteConnectionStringBuilder(db.Database.GetConnectionString()).DataSource is var file
            && Path.GetDirectoryName(Path.GetFullPath(file)) is { } folder
            && new DriveInfo(folder) is { IsReady: true } drive
            && IsLow(drive.AvailableFreeSpace, drive.TotalSize)
        )
        {
            var text = string.Create(
                CultureInfo.InvariantCulture,
                $"{drive.AvailableFreeSpace / 1_000_000} MB of {drive.TotalSize / 1_000_000} MB are free in {folder}"
            );
            conditions.Raise(ConditionKind.DiskLow, Subject, text);
        }
        else
        {
            conditions.Clear(ConditionKind.DiskLow, Subject);
        }
    }
}
