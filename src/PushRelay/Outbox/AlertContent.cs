using System.Text.Json;
using PushRelay.Secrets;

namespace PushRelay.Outbox;

/// <summary>What only the alert needs: sealed in the ledger row until it is settled, then gone.</summary>
internal sealed record AlertContent(string? Body, string? Nick)
{
    private const string Column = nameof(Delivery.Content);

    public byte[]? Seal(MasterKey key, Guid delivery) =>
        Body is null && Nick is null ? null : key.Seal(JsonSerializer.Serialize(this), Delivery.TableName, delivery, Column);

    public static AlertContent Open(MasterKey key, Delivery delivery) =>
        delivery.Content is null
            ? new AlertContent(null, null)
            : JsonSerializer.Deserialize<AlertContent>(key.Open(delivery.Content, Delivery.TableName, delivery.Id, Column))!;
}
