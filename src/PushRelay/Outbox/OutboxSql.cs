using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>
/// The outbox's hot path, which EF would do row by row: insert-many, claim and settle-many, each set-based in the words of one database.
/// All but a settlement runs in the caller's transaction.
/// </summary>
internal abstract class OutboxSql
{
    /// <summary>Rows that one claim takes of one ordering key; what is more follows as a further alert.</summary>
    protected const int KeyRowsMax = 500;

    private const string WaitingLanes = $"""
        WITH RECURSIVE lanes(lane) AS (
            SELECT min(lane) FROM deliveries WHERE state = {States.Pending}
            UNION ALL
            SELECT (SELECT min(d.lane) FROM deliveries d WHERE d.state = {States.Pending} AND d.lane > lanes.lane) FROM lanes
                WHERE lanes.lane IS NOT NULL)
        SELECT heads.lane AS "Lane", r.app AS "App", r.platform AS "Platform" FROM (
            SELECT l.lane, (SELECT d.id FROM deliveries d WHERE d.state = {States.Pending} AND d.lane = l.lane LIMIT 1) AS id
            FROM lanes l WHERE l.lane IS NOT NULL) AS heads
        JOIN deliveries r ON r.id = heads.id
        """;

    public static OutboxSql Of(RelayDb db) => db.IsSqlite ? SqliteOutbox.Instance : PostgreSqlOutbox.Instance;

    /// <summary>Adds rows; one that is there already (a replay) is left out.</summary>
    /// <param name="db">With the caller's transaction.</param>
    /// <param name="rows">
    /// In their order. One that has a <see cref="Delivery.Lease"/> is taken at once if its ordering key is free: no row of it pending or
    /// sending.
    /// </param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>Ids of the rows that were added, and whether each is claimed.</returns>
    public abstract Task<Dictionary<Guid, bool>> InsertAsync(RelayDb db, IReadOnlyList<Delivery> rows, CancellationToken cancellationToken);

    /// <summary>
    /// Takes due ordering keys of each lane, at most so many; of each its oldest row and all that are due before <paramref
    /// name="horizon"/>.
    /// </summary>
    /// <returns>The claimed rows, of all ordering keys together.</returns>
    public abstract Task<List<Delivery>> ClaimAsync(
        RelayDb db,
        IReadOnlyDictionary<Lane, int> lanes,
        Guid holder,
        TimeSpan duration,
        TimeSpan horizon,
        DateTimeOffset now,
        CancellationToken cancellationToken
    );

    /// <summary>One step down the index of pending rows for each lane, however many rows wait.</summary>
    public static async Task<List<WaitingLane>> WaitingLanesAsync(RelayDb db, CancellationToken cancellationToken)
    {
        var rows = await db.Database.SqlQueryRaw<WaitingLaneRow>(WaitingLanes).ToListAsync(cancellationToken);
        return rows.ConvertAll(r => new WaitingLane(new Lane(r.Lane), r.App, r.Platform));
    }

    /// <summary>Applies the changes whose lease still holds, and adds the attempts of those: all of it or nothing, committed.</summary>
    /// <returns>Ids of the rows that were changed.</returns>
    public abstract Task<HashSet<Guid>> SettleAsync(
        RelayDb db,
        IReadOnlyList<RowChange> changes,
        IReadOnlyList<Attempt> attempts,
        DatabaseClock clock,
        CancellationToken cancellationToken
    );

    private sealed record WaitingLaneRow(string Lane, string App, string Platform);

    protected static async Task<List<T>> ReadAsync<T>(DbCommand command, Func<DbDataReader, T> read, CancellationToken cancellationToken)
    {
        var result = new List<T>();
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            result.Add(read(reader));
        }

        return result;
    }
}
