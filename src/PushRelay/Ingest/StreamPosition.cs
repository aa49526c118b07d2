using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>How far a stream has been committed: the epoch of its module, and the last numbered stanza.</summary>
internal readonly record struct StreamPoint(string Epoch, long Seq);

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

/// <summary>The positions of the streams that one transaction is about.</summary>
internal sealed class StreamPositions
{
    private readonly RelayDb db;
    private readonly Dictionary<StreamName, StreamPosition> positions = [];

    private StreamPositions(RelayDb db) => this.db = db;

    public static async Task<StreamPositions> OfAsync(RelayDb db, IEnumerable<EventBatch> batches, CancellationToken cancellationToken)
    {
        var loaded = new StreamPositions(db);
        foreach (var stream in batches.Where(b => b.Point is not null).Select(b => b.Stream).Distinct())
        {
            if (await db.Set<StreamPosition>().FindAsync([stream.Server, stream.Node], cancellationToken) is { } position)
            {
                loaded.positions[stream] = position;
            }
        }

        return loaded;
    }

    /// <summary>Moves the batch's stream to the batch's point, where it has one.</summary>
    /// <returns>False: this stanza is committed already.</returns>
    public bool TryAdvance(EventBatch batch)
    {
        if (batch.Point is not { } point)
        {
            return true;
        }

        if (!positions.TryGetValue(batch.Stream, out var position))
        {
            positions[batch.Stream] = position = new StreamPosition
            {
                Server = batch.Stream.Server,
                Node = batch.Stream.Node,
                Epoch = point.Epoch,
                Seq = point.Seq,
            };
            db.Add(position);
            return true;
        }

        if (position.Epoch == point.Epoch && position.Seq >= point.Seq)
        {
            return false;
        }

        (position.Epoch, position.Seq) = point;
        return true;
    }
}
