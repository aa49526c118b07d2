using System.Globalization;
using System.Runtime.CompilerServices;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Telemetry;

namespace PushRelay.Storage;

/// <summary>Checks this machine's clock against the database's, and that file modes and database rights are not wider than
/// needed.</summary>
internal sealed class StorageDoctor(
    IOptions<StorageOptions> options,
    IDbContextFactory<RelayDb> databases,
    DatabaseClock databaseClock,
    TimeProvider clock
) : IDoctor
{
    private static readonly TimeSpan ClockSkewMax = TimeSpan.FromSeconds(2);

    public async IAsyncEnumerable<DoctorCheck> ExamineAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        yield return await CheckClockAsync(db, cancellationToken);
        var keyFile = options.Value.MasterKeyFile;
        if (!OperatingSystem.IsWindows() && File.Exists(keyFile) && (File.GetUnixFileMode(keyFile) & UnixFileMode.OtherRead) != 0)
        {
            yield return new DoctorCheck(
                DoctorCheck.Safety,
                false,
                $"Every user of this machine may read Storage:MasterKeyFile. Cure: chmod 600 {keyFile}"
            );
        }

        if (!db.IsSqlite && await IsSuperuserAsync(db, cancellationToken))
        {
            yield return new DoctorCheck(
                DoctorCheck.Safety,
                true,
                "the database user is a superuser: give the relay one of its own that owns its database only"
            );
        }
    }

    private async Task<DoctorCheck> CheckClockAsync(RelayDb db, CancellationToken cancellationToken)
    {
        var before = clock.GetUtcNow();
        var there = await databaseClock.NowAsync(db, cancellationToken);
        var after = clock.GetUtcNow();
        var skew = there - (before + ((after - before) / 2));
        var seconds = Math.Abs(skew.TotalSeconds).ToString("0.0", CultureInfo.InvariantCulture);
        return skew.Duration() - (after - before) <= ClockSkewMax
            ? new DoctorCheck("clock", true, db.IsSqlite ? "the database uses this machine's clock" : $"{seconds} s from the database's")
            : new DoctorCheck(
                "clock",
                false,
                $"This machine is {seconds} s {(skew > TimeSpan.Zero ? "behind" : "ahead of")} the database. Cure: let both keep their "
                    + "time by NTP; push networks refuse credentials with a wrong time."
            );
    }

    private static Task<bool> IsSuperuserAsync(RelayDb db, CancellationToken cancellationToken) =>
        db
            .Database.SqlQuery<bool>($"SELECT rolsuper AS \"Value\" FROM pg_roles WHERE rolname = current_user")
            .SingleAsync(cancellationToken);
}
