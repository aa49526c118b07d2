using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Decision;

/// <summary>The last committed stanza of a stream; written in the transaction that commits its events.</summary>
internal sealed class StreamPosition
{
    public required string Server { get; init; }

    public required string Node { get; init; }

    public required string Epoch { get; set; }

    public required long Seq { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<StreamPosition>
    {
        public void Configure(EntityTypeBuilder<StreamPosition> builder)
        {
            builder.ToTable("stream_positions");
            builder.HasKey(p => new { p.Server, p.Node });
        }
    }
}

/// <summary>
/// The eligible messages of one conversation since the later of its read mark and the account's last leaving of foreground;
/// their sum over the account is the badge.
/// </summary>
internal sealed class UnreadCount
{
    public required string Account { get; init; }

    public required string Conversation { get; init; }

    public required int Count { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<UnreadCount>
    {
        public void Configure(EntityTypeBuilder<UnreadCount> builder)
        {
            builder.ToTable("unread_counts");
            builder.HasKey(u => new { u.Account, u.Conversation });
        }
    }
}
