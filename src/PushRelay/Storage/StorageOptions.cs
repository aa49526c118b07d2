using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Microsoft.Data.Sqlite;
using Npgsql;
using PushRelay.Settings;

namespace PushRelay.Storage;

internal enum StorageProvider
{
    Sqlite,
    PostgreSql,
}

/// <summary>Settings <c>Storage</c>: the database that all nodes of a relay share, and the key that its secrets are sealed with.</summary>
internal sealed class StorageOptions : ISettings
{
    [Description("the database: SQLite needs nothing installed and serves one node; PostgreSQL 15 or later serves any number")]
    public StorageProvider Provider { get; set; } = StorageProvider.Sqlite;

    [Secret]
    [Description("for PostgreSQL `Host=...;Database=...;Username=...;Password=...`. SQLite in memory is refused")]
    public string ConnectionString { get; set; } = "Data Source=data/pushrelay.db";

    [Description(
        "64 hex digits; made with mode 0600 where the database knows no key yet. While the key is replaced: several lines, of which the "
            + "first writes"
    )]
    public string MasterKeyFile { get; set; } = "data/master.key";

    public void Check(SettingsCheck check)
    {
        MasterKeyFile = check.Resolve(MasterKeyFile);
        if (Provider == StorageProvider.Sqlite)
        {
            CheckSqlite(check);
        }
        else if (!Parses(() => new NpgsqlConnectionStringBuilder(ConnectionString).Host!.Length > 0))
        {
            check.Report(
                nameof(ConnectionString),
                "is no PostgreSQL connection string; it must look like "
                    + "\"Host=127.0.0.1;Database=pushrelay;Username=pushrelay;Password=...\"."
            );
        }
    }

    private void CheckSqlite(SettingsCheck check)
    {
        SqliteConnectionStringBuilder? builder = null;
        if (!Parses(() => (builder = new SqliteConnectionStringBuilder(ConnectionString)).DataSource.Length > 0))
        {
            check.Report(nameof(ConnectionString), "is no SQLite connection string; it must look like \"Data Source=data/pushrelay.db\".");
        }
        else if (builder!.DataSource == ":memory:" || builder.Mode == SqliteOpenMode.Memory)
        {
            check.Report(
                nameof(ConnectionString),
                "keeps the database in memory, where a restart would lose it; name a file: \"Data Source=data/pushrelay.db\"."
            );
        }
        else
        {
            builder.DataSource = check.Resolve(builder.DataSource);
            ConnectionString = builder.ConnectionString;
        }
    }

    private static bool Parses(Func<bool> parse)
    {
        try
        {
            return parse();
        }
        catch (Exception exception) when (exception is ArgumentException or FormatException or NullReferenceException)
        {
            return false;
        }
    }
}

/// <summary>Settings <c>Retention</c>: how long what is over is kept.</summary>
internal sealed class RetentionOptions
{
    [Description("settled deliveries older than this are deleted")]
    [Range(typeof(TimeSpan), "01:00:00", "3650.00:00:00")]
    public TimeSpan Deliveries { get; set; } = TimeSpan.FromDays(30);

    [Description("session changes older than this are deleted; the time line of an account reaches back so far")]
    [Range(typeof(TimeSpan), "01:00:00", "365.00:00:00")]
    public TimeSpan Presence { get; set; } = TimeSpan.FromDays(1);

    [Description("audit records older than this are deleted")]
    [Range(typeof(TimeSpan), "1.00:00:00", "36500.00:00:00")]
    public TimeSpan Audit { get; set; } = TimeSpan.FromDays(365);
}
