using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;

namespace PushRelay.Presence;

/// <summary>The numbers are stored: never change one.</summary>
internal enum HistoryKind : short
{
    /// <summary>A session's new state.</summary>
    Session = 0,

    /// <summary>The account read a conversation.</summary>
    Displayed = 1,

    /// <summary>A server's sessions became known, or unknown.</summary>
    Link = 2,

    /// <summary>A time of which nothing is known.</summary>
    Gap = 3,
}

/// <summary>What happened to an account or a server, without its deliveries; kept for <c>Retention:Presence</c>, for the time
/// line.</summary>
internal sealed class HistoryEntry
{
    /// <summary>UUIDv7: begins with the time.</summary>
    public required Guid Id { get; init; }

    public required string Server { get; init; }

    /// <summary>Null: it concerns every account of the server.</summary>
    public string? Account { get; init; }

    public required HistoryKind Kind { get; init; }

    public required DateTimeOffset At { get; init; }

    /// <summary><see cref="HistoryData"/> as compact JSON.</summary>
    public required string Data { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<HistoryEntry>
    {
        public void Configure(EntityTypeBuilder<HistoryEntry> builder)
        {
            builder.ToTable("history");
            builder.Property(h => h.Id).ValueGeneratedNever();
            builder.HasIndex(h => new { h.Account, h.Id }).HasFilter("account IS NOT NULL");
            builder.HasIndex(h => new { h.Server, h.Id }).HasFilter("account IS NULL");
        }
    }
}

/// <summary>The members of every kind of entry; what a kind does not have is not written.</summary>
internal sealed record HistoryData
{
    private static readonly JsonSerializerOptions Stored = new(JsonSerializerDefaults.Web)
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    /// <summary>Of a session.</summary>
    public string? Resource { get; init; }

    /// <summary>Of a session <c>active inactive hibernating closed</c>; of a link <c>up</c> or <c>down</c>.</summary>
    public string? State { get; init; }

    public bool? Available { get; init; }

    public int? Priority { get; init; }

    public string? Show { get; init; }

    /// <summary>The conversation that was read.</summary>
    public string? With { get; init; }

    /// <summary>Of a gap.</summary>
    public DateTimeOffset? From { get; init; }

    public DateTimeOffset? To { get; init; }

    /// <summary>Of a gap: <c>relay_down</c> or <c>link_down</c>.</summary>
    public string? Cause { get; init; }

    public string ToJson() => JsonSerializer.Serialize(this, Stored);

    public static HistoryData FromJson(string text) => JsonSerializer.Deserialize<HistoryData>(text, Stored)!;

    public static HistoryData Of(Session session) =>
        new()
        {
            Resource = session.Resource,
            State = PresenceNames.Of(session.State),
            Available = session.Available,
            Priority = session.Priority,
            Show = session.Show,
        };
}
