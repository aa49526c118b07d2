using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Design;
using Microsoft.EntityFrameworkCore.Metadata;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;

namespace PushRelay.Storage;

/// <summary>The database. It declares no table: each module maps its own, in the file of its entity
/// (<see cref="IEntityTypeConfiguration{TEntity}"/>).</summary>
internal abstract class RelayDb(DbContextOptions options) : DbContext(options)
{
    /// <summary>The most values in one statement. SQLite takes 32,766, but more do not make a plan better.</summary>
    public const int ParametersMax = 500;

    public bool IsSqlite => this is SqliteRelayDb;

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        modelBuilder.ApplyConfigurationsFromAssembly(typeof(RelayDb).Assembly);
        foreach (var entity in modelBuilder.Model.GetEntityTypes())
        {
            UseSnakeCase(entity);
        }
    }

    /// <summary>snake_case for columns, keys and indexes, so that they need no quotes in psql. Each table's module names it.</summary>
    private static void UseSnakeCase(IMutableEntityType entity)
    {
        foreach (var property in entity.GetProperties())
        {
            property.SetColumnName(SnakeCase(property.Name));
        }

        foreach (var key in entity.GetKeys())
        {
            key.SetName($"pk_{entity.GetTableName()}");
        }

        foreach (var index in entity.GetIndexes())
        {
            index.SetDatabaseName(
                index.Name ?? $"ix_{entity.GetTableName()}_{string.Join('_', index.Properties.Select(p => SnakeCase(p.Name)))}"
            );
        }
    }

    private static string SnakeCase(string name)
    {
        var text = new StringBuilder(name.Length + 8);
        foreach (var c in name)
        {
            if (char.IsUpper(c) && text.Length > 0)
            {
                text.Append('_');
            }

            text.Append(char.ToLowerInvariant(c));
        }

        return text.ToString();
    }
}

internal sealed class SqliteRelayDb(DbContextOptions<SqliteRelayDb> options) : RelayDb(options)
{
    // SQLite has no type for an instant, and EF refuses to compare its text form: keep UTC ticks, which sort.
    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder) =>
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<UtcTicksConverter>();

    private sealed class UtcTicksConverter()
        : ValueConverter<DateTimeOffset, long>(instant => instant.UtcTicks, ticks => new DateTimeOffset(ticks, TimeSpan.Zero));
}

internal sealed class PostgreSqlRelayDb(DbContextOptions<PostgreSqlRelayDb> options) : RelayDb(options)
{
    // timestamptz takes UTC only and keeps microseconds.
    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder) =>
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<UtcConverter>();

    private sealed class UtcConverter()
        : ValueConverter<DateTimeOffset, DateTimeOffset>(instant => instant.ToUniversalTime(), instant => instant.ToUniversalTime());
}

/// <summary>For <c>dotnet ef</c> only, which needs a model but no database.</summary>
internal sealed class SqliteDesign : IDesignTimeDbContextFactory<SqliteRelayDb>
{
    public SqliteRelayDb CreateDbContext(string[] args) =>
        new(new DbContextOptionsBuilder<SqliteRelayDb>().UseSqlite("Data Source=design.db").Options);
}

/// <summary>For <c>dotnet ef</c> only, which needs a model but no database.</summary>
internal sealed class PostgreSqlDesign : IDesignTimeDbContextFactory<PostgreSqlRelayDb>
{
    public PostgreSqlRelayDb CreateDbContext(string[] args) =>
        new(new DbContextOptionsBuilder<PostgreSqlRelayDb>().UseNpgsql("Host=design").Options);
}
