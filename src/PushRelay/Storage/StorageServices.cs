using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using PushRelay.Cluster;
using PushRelay.Secrets;
using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Storage;

internal static class StorageServices
{
    public static IServiceCollection AddStorage(this IServiceCollection services)
    {
        services
            .AddSettings<StorageOptions>("Storage", "The database, and the key that its secrets are sealed with.")
            .AddSettings<RetentionOptions>("Retention", "How long what is over is kept.");
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
        services.AddSingleton<Migrator>();
        services.AddSingleton<MasterKeyFile>().AddSingleton(provider => provider.GetRequiredService<MasterKeyFile>().Key);
        services.AddSingleton<DatabaseClock>();
        services.AddSingleton<WriteGate>();
        services.AddSingleton<LeaseTable>();
        services.AddSingleton<IdSequence>();
        services.AddHealthChecks().AddCheck<StorageHealth>("database");
        services.AddSingleton<Doctor>().AddDoctor<StorageDoctor>();
        return services;
    }

    /// <summary>
    /// A node that loses power or network inside a transaction would hold its locks until TCP gives up, which takes hours. This makes
    /// PostgreSQL end such a transaction after ten seconds.
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

    private sealed class RelayDbFactory(IOptions<StorageOptions> options, IServiceProvider provider) : IDbContextFactory<RelayDb>
    {
        // only the configured one is resolved: the other's options would be built from a connection string that is not its own
        private readonly IDbContextFactory<SqliteRelayDb>? sqlite =
            options.Value.Provider == StorageProvider.Sqlite ? provider.GetRequiredService<IDbContextFactory<SqliteRelayDb>>() : null;

        private readonly IDbContextFactory<PostgreSqlRelayDb>? postgreSql =
            options.Value.Provider == StorageProvider.PostgreSql
                ? provider.GetRequiredService<IDbContextFactory<PostgreSqlRelayDb>>()
                : null;

        public RelayDb CreateDbContext() => sqlite is not null ? sqlite.CreateDbContext() : postgreSql!.CreateDbContext();
    }
}
