using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using PushRelay.Cluster;
using PushRelay.Settings;

namespace PushRelay.Storage;

internal static class StorageServices
{
    public static IServiceCollection AddStorage(this IServiceCollection services)
    {
        services
            .AddOptions<StorageOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration, SettingsFile>(
                (options, configuration, file) =>
                {
                    SettingsReader.Bind(configuration, "Storage", options);
                    options.MasterKeyFile = file.Resolve(options.MasterKeyFile);
                    if (options.Provider == StorageProvider.Sqlite)
                    {
                        options.ConnectionString = ResolveDataSource(options.ConnectionString, file);
                    }
                    else if (!Parses(() => new NpgsqlConnectionStringBuilder(options.ConnectionString).Host!.Length > 0))
                    {
                        throw new SettingsException(
                            "Storage:ConnectionString is no PostgreSQL connection string; it must look like "
                                + "\"Host=127.0.0.1;Database=pushrelay;Username=pushrelay;Password=...\"."
                        );
                    }
                }
            );
        services.AddPooledDbContextFactory<SqliteRelayDb>(
            (provider, builder) =>
                builder
                    .UseSqlite(provider.GetRequiredService<IOptions<StorageOptions>>().Value.ConnectionString)
                    .AddInterceptors(new SqlitePragmas())
        );
        services.AddPooledDbContextFactory<PostgreSqlRelayDb>(
            (provider, builder) =>
                builder.UseNpgsql(WithTimeout(provider.GetRequiredService<IOptions<StorageOptions>>().Value.ConnectionString))
        );
        services.AddSingleton<IDbContextFactory<RelayDb>, RelayDbFactory>();
        services.AddSingleton<RelayStorage>();
        services.AddSingleton(provider => provider.GetRequiredService<RelayStorage>().MasterKey);
        services.AddSingleton<DatabaseClock>();
        services.AddSingleton<WriteGate>();
        services.AddSingleton<LeaseTable>();
        services.AddSingleton<IdSequence>();
        services.AddHealthChecks().AddCheck<StorageHealth>("database");
        return services;
    }

    /// <summary>
    /// A node that loses its power or its network within a transaction leaves its locks behind for as long as TCP believes in it: hours, in
    /// which no lease of theirs ends. PostgreSQL ends such a transaction after ten seconds.
    /// </summary>
    private static string WithTimeout(string connectionString)
    {
        var builder = new NpgsqlConnectionStringBuilder(connectionString);
        if (builder.Options?.Contains("idle_in_transaction_session_timeout", StringComparison.Ordinal) != true)
        {
            builder.Options = $"{builder.Options} -c idle_in_transaction_session_timeout=10000".Trim();
        }

        return builder.ConnectionString;
    }

    private static string ResolveDataSource(string connectionString, SettingsFile file)
    {
        SqliteConnectionStringBuilder? builder = null;
        if (!Parses(() => (builder = new SqliteConnectionStringBuilder(connectionString)).DataSource.Length > 0))
        {
            throw new SettingsException(
                "Storage:ConnectionString is no SQLite connection string; it must look like \"Data Source=data/pushrelay.db\"."
            );
        }

        if (builder!.DataSource == ":memory:" || builder.Mode == SqliteOpenMode.Memory)
        {
            throw new SettingsException(
                "Storage:ConnectionString keeps the database in memory, where a restart would lose it; name a file: \"Data "
                    + "Source=data/pushrelay.db\"."
            );
        }

        builder.DataSource = file.Resolve(builder.DataSource);
        return builder.ConnectionString;
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

    private sealed class RelayDbFactory(IOptions<StorageOptions> options, IServiceProvider provider) : IDbContextFactory<RelayDb>
    {
        // asked for by name: the other one's options would be built for a connection string that is not its own
        private readonly IDbContextFactory<SqliteRelayDb>? sqlite =
            options.Value.Provider == StorageProvider.Sqlite ? provider.GetRequiredService<IDbContextFactory<SqliteRelayDb>>() : null;

        private readonly IDbContextFactory<PostgreSqlRelayDb>? postgreSql =
            options.Value.Provider == StorageProvider.PostgreSql
                ? provider.GetRequiredService<IDbContextFactory<PostgreSqlRelayDb>>()
                : null;

        public RelayDb CreateDbContext() => sqlite is not null ? sqlite.CreateDbContext() : postgreSql!.CreateDbContext();
    }
}
