using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>
/// The eligible messages of one conversation since the later of its read mark and the last time the account left the foreground;
/// the badge is their sum over the account.
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

/// <summary>The counts of the accounts that one transaction is about.</summary>
internal sealed class UnreadCounts
{
    private const int ConversationsMax = 500;

    // OFFSET 0: account by account; without statistics the planner would read the whole table
    private const string PostgreSqlRead = """
        SELECT u.* FROM unnest({0}) AS a(account)
        CROSS JOIN LATERAL (SELECT c.account, c.conversation, c.count FROM unread_counts c WHERE c.account = a.account OFFSET 0) u
        """;

    private const string PostgreSqlSave = """
        INSERT INTO unread_counts (account, conversation, count) SELECT * FROM unnest({0}, {1}, {2})
        ON CONFLICT (account, conversation) DO UPDATE SET count = excluded.count
        """;

    private const string SqliteSave = """
        INSERT INTO unread_counts (account, conversation, count) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each({0}) WHERE true
        ON CONFLICT (account, conversation) DO UPDATE SET count = excluded.count
        """;

    private const string PostgreSqlDelete =
        "DELETE FROM unread_counts u USING unnest({0}, {1}) AS d(account, conversation) WHERE u.account = d.account AND u.conversation "
        + "= d.conversation";

    private const string SqliteDelete =
        "DELETE FROM unread_counts WHERE (account, conversation) IN (SELECT value ->> 0, value ->> 1 FROM json_each({0}))";

    private readonly Dictionary<string, Dictionary<string, int>> accounts = new(StringComparer.Ordinal);
    private readonly HashSet<(string Account, string Conversation)> changed = [];

    public static async Task<UnreadCounts> OfAsync(RelayDb db, IReadOnlyCollection<string> accounts, CancellationToken cancellationToken)
    {
        var counts = new UnreadCounts();
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            var rows = db.IsSqlite
                ? db.Set<UnreadCount>().Where(u => some.Contains(u.Account))
                : db.Set<UnreadCount>().FromSqlRaw(PostgreSqlRead, [some]);
            await foreach (var count in rows.AsNoTracking().AsAsyncEnumerable().WithCancellation(cancellationToken))
            {
                counts.Of(count.Account)[count.Conversation] = count.Count;
            }
        }

        return counts;
    }

    /// <param name="account">Whose.</param>
    /// <param name="muted">Conversations that do not count; null: all count.</param>
    public int Sum(string account, IReadOnlyList<string>? muted) =>
        !accounts.TryGetValue(account, out var counts) ? 0
        : muted is null or [] ? counts.Values.Sum()
        : counts.Where(c => !muted.Contains(c.Key, StringComparer.Ordinal)).Sum(c => c.Value);

    public void Add(string account, string conversation)
    {
        var counts = Of(account);
        // beyond so many conversations the others are counted together, until the account leaves the foreground
        var key = counts.ContainsKey(conversation) || counts.Count < ConversationsMax ? conversation : "";
        counts[key] = counts.GetValueOrDefault(key) + 1;
        changed.Add((account, key));
    }

    /// <summary>The unread messages of one conversation.</summary>
    public int Count(string account, string conversation) =>
        accounts.TryGetValue(account, out var counts) ? counts.GetValueOrDefault(conversation) : 0;

    /// <summary>Removes one message from the count.</summary>
    public void Remove(string account, string conversation)
    {
        if (Count(account, conversation) is > 0 and var count)
        {
            Of(account)[conversation] = count - 1;
            changed.Add((account, conversation));
        }
    }

    public void Clear(string account, string conversation)
    {
        if (accounts.TryGetValue(account, out var counts) && counts.Remove(conversation))
        {
            changed.Add((account, conversation));
        }
    }

    public void Clear(string account)
    {
        foreach (var conversation in accounts.TryGetValue(account, out var counts) ? counts.Keys.ToList() : [])
        {
            Clear(account, conversation);
        }
    }

    public async Task SaveAsync(RelayDb db, CancellationToken cancellationToken)
    {
        var kept = changed.Where(c => Of(c.Account).ContainsKey(c.Conversation)).ToList();
        var gone = changed.Where(c => !Of(c.Account).ContainsKey(c.Conversation)).ToList();
        // in one order everywhere: two transactions wait for each other, and do not deadlock
        kept.Sort();
        if (kept.Count > 0)
        {
            await (
                db.IsSqlite
                    ? db.Database.ExecuteSqlRawAsync(
                        SqliteSave,
                        [Json(kept.Select(c => new object[] { c.Account, c.Conversation, Of(c.Account)[c.Conversation] }))],
                        cancellationToken
                    )
                    : db.Database.ExecuteSqlRawAsync(
                        PostgreSqlSave,
                        [
                            kept.Select(c => c.Account).ToArray(),
                            kept.Select(c => c.Conversation).ToArray(),
                            kept.Select(c => Of(c.Account)[c.Conversation]).ToArray(),
                        ],
                        cancellationToken
                    )
            );
        }

        if (gone.Count > 0)
        {
            await (
                db.IsSqlite
                    ? db.Database.ExecuteSqlRawAsync(
                        SqliteDelete,
                        [Json(gone.Select(c => new object[] { c.Account, c.Conversation }))],
                        cancellationToken
                    )
                    : db.Database.ExecuteSqlRawAsync(
                        PostgreSqlDelete,
                        [gone.Select(c => c.Account).ToArray(), gone.Select(c => c.Conversation).ToArray()],
                        cancellationToken
                    )
            );
        }
    }

    /// <summary>A parameter of many rows: SQLite has no arrays.</summary>
    private static string Json(IEnumerable<object[]> rows) => JsonSerializer.Serialize(rows);

    private Dictionary<string, int> Of(string account)
    {
        if (!accounts.TryGetValue(account, out var counts))
        {
            accounts[account] = counts = new(StringComparer.Ordinal);
        }

        return counts;
    }
}
