using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Ingest;

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
