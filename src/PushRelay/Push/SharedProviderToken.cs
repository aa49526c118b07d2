using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Push;

/// <summary>What proves a sender to a network for a while, sealed with the master key: one for all nodes, and over restarts.</summary>
internal sealed class SharedProviderToken
{
    public const string TableName = "provider_tokens";

    /// <summary>Whose the key is: a team of Apple's, a service account of Google's.</summary>
    public required string TeamId { get; init; }

    public required string KeyId { get; init; }

    public required byte[] Token { get; set; }

    public required DateTimeOffset IssuedAt { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<SharedProviderToken>
    {
        public void Configure(EntityTypeBuilder<SharedProviderToken> builder)
        {
            builder.ToTable(TableName);
            builder.HasKey(t => new { t.TeamId, t.KeyId });
        }
    }
}
