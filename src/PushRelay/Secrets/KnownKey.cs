using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Secrets;

/// <summary>The only row of its table: the fingerprint of the master key that this database's secrets are sealed with.</summary>
internal sealed class KnownKey
{
    public const int TheOnly = 1;

    public int Id { get; init; } = TheOnly;

    public required string Fingerprint { get; init; }

    /// <summary>The naming key, sealed with the master key (<see cref="MasterKey.UseNaming"/>).</summary>
    public required byte[] Naming { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<KnownKey>
    {
        public void Configure(EntityTypeBuilder<KnownKey> builder)
        {
            builder.ToTable("known_keys", t => t.HasCheckConstraint("known_keys_only_one", "id = 1"));
            builder.Property(k => k.Id).ValueGeneratedNever();
            builder.Property(k => k.Fingerprint).HasMaxLength(64);
        }
    }
}
