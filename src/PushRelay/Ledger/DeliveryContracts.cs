using System.Text.Json.Serialization;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;

namespace PushRelay.Ledger;

/// <summary>A delivery as the outside sees it: no body, title or token is ever in it.</summary>
public record DeliverySummary(
    Guid Id,
    string Account,
    string? Device,
    string? App,
    string? Platform,
    DeliveryEvent Event,
    string State,
    string Reason,
    int Count,
    Guid? CoalescedInto,
    int Attempts,
    DateTimeOffset CreatedAt,
    DateTimeOffset DueAt,
    DateTimeOffset ExpiresAt,
    DateTimeOffset? SettledAt,
    DateTimeOffset? ReceivedAt,
    DateTimeOffset? OpenedAt
)
{
    internal static DeliverySummary Of(Delivery row) =>
        new(
            row.Id,
            row.Account,
            row.Device,
            row.App,
            row.Platform,
            new DeliveryEvent(Names.Of(row.Source), Names.Of(row.Class), row.Sender, row.MessageId, row.StanzaId, row.EventAt),
            Names.Of(row.State),
            row.Reason,
            row.Count,
            row.CoalescedInto,
            row.Attempts,
            row.CreatedAt,
            row.DueAt,
            row.ExpiresAt,
            row.SettledAt,
            row.ReceivedAt,
            row.OpenedAt
        );
}

/// <summary>What made the delivery.</summary>
public sealed record DeliveryEvent(string Source, string Class, string? From, string? Id, string? StanzaId, DateTimeOffset At);

/// <summary>A delivery with what its decision looked at, and every attempt.</summary>
public sealed record DeliveryDetail : DeliverySummary
{
    internal DeliveryDetail(Delivery row, IReadOnlyList<DeliveryAttempt> log)
        : base(Of(row)) => (Situation, Log) = (DeliverySituation.Read(row.Situation), log);

    /// <summary>Null where nothing was decided: a test alert.</summary>
    [JsonPropertyOrder(1)]
    public DeliverySituation? Situation { get; }

    [JsonPropertyOrder(2)]
    public IReadOnlyList<DeliveryAttempt> Log { get; }
}

/// <summary>One request to the push network.</summary>
/// <param name="Number">From 1.</param>
/// <param name="At">When it was made.</param>
/// <param name="DurationMs">How long the answer took, in milliseconds.</param>
/// <param name="Status">The answer's HTTP status; null where none came.</param>
/// <param name="Reason">The network's own word; null where it was accepted.</param>
/// <param name="Outcome">What it came to.</param>
/// <param name="ProviderId">The network's id of it; null where it gave none.</param>
public sealed record DeliveryAttempt(
    int Number,
    DateTimeOffset At,
    int DurationMs,
    int? Status,
    string? Reason,
    string Outcome,
    string? ProviderId
)
{
    /// <summary>The name that <see cref="ProviderId"/> had when there was one network only; left out for every other.</summary>
    [JsonPropertyName("apnsId"), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? ProviderIdByOldName { get; init; }
}
