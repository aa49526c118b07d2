using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Outbox;

/// <summary>One request to the push network for a delivery; none for a first one that was accepted, which the delivery's own row
/// has.</summary>
internal sealed record Attempt
{
    public required Guid DeliveryId { get; init; }

    /// <summary>From 1; a request that was handed back at a shutdown leaves none.</summary>
    public required int Number { get; init; }

    public required DateTimeOffset At { get; init; }

    public required int DurationMs { get; init; }

    /// <summary>The push network's status, null where no answer came.</summary>
    public int? Status { get; init; }

    /// <summary>The push network's own word, such as <c>apns_Unregistered</c>.</summary>
    public string? Code { get; init; }

    public required string Outcome { get; init; }

    /// <summary>The push network's id of it; null where it gave none.</summary>
    public string? ProviderId { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<Attempt>
    {
        public void Configure(EntityTypeBuilder<Attempt> builder)
        {
            builder.ToTable("attempts");
            builder.HasKey(a => new { a.DeliveryId, a.Number });
            builder
                .HasOne<Delivery>()
                .WithMany()
                .HasForeignKey(a => a.DeliveryId)
                .OnDelete(DeleteBehavior.Cascade)
                .HasConstraintName("fk_attempts_deliveries");
        }
    }
}
