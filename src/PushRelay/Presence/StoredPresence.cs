using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Presence;

/// <summary>A bridge stream as the node that has its link last wrote it: for the other nodes, and for <c>doctor</c>.</summary>
internal sealed class StoredStream
{
    public required string Server { get; init; }

    public required string Node { get; init; }

    /// <summary>The server's name and version.</summary>
    public required string Software { get; set; }

    public required string Module { get; set; }

    /// <summary>Events that the module's bounds have cost, as it said with the last snapshot.</summary>
    public required long Dropped { get; set; }

    public required int Sessions { get; set; }

    /// <summary>When the server last said something.</summary>
    public required DateTimeOffset HeardAt { get; set; }

    /// <summary>All its sessions are known, and stand in the table of sessions.</summary>
    public required bool Live { get; set; }

    /// <summary>When this was true, by the database's clock.</summary>
    public required DateTimeOffset AsOf { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<StoredStream>
    {
        public void Configure(EntityTypeBuilder<StoredStream> builder)
        {
            builder.ToTable("streams");
            builder.HasKey(s => new { s.Server, s.Node });
            builder.Property(s => s.Software).HasMaxLength(100);
            builder.Property(s => s.Module).HasMaxLength(100);
        }
    }
}

/// <summary>A session as it was last written.</summary>
internal sealed class StoredSession
{
    public required string Server { get; init; }

    public required string Node { get; init; }

    public required string Sid { get; init; }

    public required string Account { get; init; }

    public required string Resource { get; init; }

    public required SessionState State { get; init; }

    public required bool Available { get; init; }

    public required int Priority { get; init; }

    public required string? Show { get; init; }

    public required DateTimeOffset Since { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<StoredSession>
    {
        public void Configure(EntityTypeBuilder<StoredSession> builder)
        {
            builder.ToTable("sessions");
            builder.HasKey(s => new
            {
                s.Server,
                s.Node,
                s.Sid,
            });
            builder.HasIndex(s => s.Account);
        }
    }
}
