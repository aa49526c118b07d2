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
                builder.UseNpgsql(WithSessionSettings(provider.GetRequiredService<IOptions<StorageOptions>>().Value.ConnectionString))
        );
        services.AddSingleton<IDbContextFactory<RelayDb>, RelayDbFactory>();
        services.AddSingleton<Migrator>();
        services.AddSingleton<MasterKeyFile>().AddSingleton(provider => provider.GetRequiredService<MasterKeyFile>().Key);
        services.AddSingleton<DatabaseClock>();
        services.AddWatch<DatabaseFailures>().AddWatch<StorageWatch>();
        services.AddSingleton<WriteGate>();
        services.AddSingleton<LeaseTable>();
        services.AddSingleton<IdSequence>();
        services.AddHealthChecks().AddCheck<StorageHealth>("database");
        services.AddSingleton<Doctor>().AddDoctor<StorageDoctor>();
        return services;
    }

    /// <summary>
    /// Settings of each session, where the operator's connection string does not set them. A node that loses power or network inside a
    /// transaction would hold its locks until TCP gives up, which takes hours: PostgreSQL ends such a transaction after ten seconds. And
    /// PostgreSQL would compile our statements to machine code whenever a table without statistics looks large to it, which takes 20 times
    /// as long as to run them.
    /// </summary>
    private static string WithSessionSettings(string connectionString)
    {
        var builder = new NpgsqlConnectionStringBuilder(connectionString);
        foreach (var (name, value) in new[] { ("idle_in_transaction_session_timeout", "10000"), ("jit", "off") })
        {
            if (builder.Options?.Contains($"{name}=", StringComparison.Ordinal) != true)
            {
                builder.Options = $"{builder.Options} -c {name}={value}".Trim();
            }
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
