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

    /// <summary>The push network's id of it; null where it gave none. Read from the database, it is as <see cref="StoredProviderId"/>
    /// says.</summary>
    public string? ProviderId { get; init; }

    /// <summary>As a column keeps it: empty where the network gave back the delivery's own id, as APNs does.</summary>
    public string? StoredProviderId => ProviderId is not null && ProviderId == DeliveryId.ToString() ? "" : ProviderId;

    /// <summary>What <see cref="StoredProviderId"/> stands for.</summary>
    public static string? ReadProviderId(string? stored, Guid delivery) => stored is "" ? delivery.ToString() : stored;

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
