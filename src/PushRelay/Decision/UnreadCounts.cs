using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Storage;

namespace PushRelay.Decision;

/// <summary>
/// The eligible messages of one conversation since the later of its read mark and the account's last leaving of foreground;
/// their sum over the account is the badge.
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

    private const string PostgreSqlSave =
        """
        INSERT INTO unread_counts (account, conversation, count) SELECT * FROM unnest({0}, {1}, {2})
        ON CONFLICT (account, conversation) DO UPDATE SET count = excluded.count
        """;

    private const string SqliteSave =
        """
        INSERT INTO unread_counts (account, conversation, count) VALUES ({0}, {1}, {2})
        ON CONFLICT (account, conversation) DO UPDATE SET count = excluded.count
        """;

    private const string PostgreSqlDelete =
        "DELETE FROM unread_counts u USING unnest({0}, {1}) AS d(account, conversation) WHERE u.account = d.account AND u.conversation = d.conversation";

    private const string SqliteDelete = "DELETE FROM unread_counts WHERE account = {0} AND conversation = {1}";

    private readonly Dictionary<string, Dictionary<string, int>> accounts = new(StringComparer.Ordinal);
    private readonly HashSet<(string Account, string Conversation)> changed = [];

    public static async Task<UnreadCounts> OfAsync(RelayDb db, IReadOnlyCollection<string> accounts, CancellationToken cancellationToken)
    {
        var counts = new UnreadCounts();
        foreach (var some in accounts.Chunk(RelayDb.ParametersMax))
        {
            await foreach (var count in db.Set<UnreadCount>().AsNoTracking().Where(u => some.Contains(u.Account)).AsAsyncEnumerable().WithCancellation(cancellationToken))
            {
                counts.Of(count.Account)[count.Conversation] = count.Count;
            }
        }

        return counts;
    }

    public int Sum(string account) => accounts.TryGetValue(account, out var counts) ? counts.Values.Sum() : 0;

    public void Add(string account, string conversation)
    {
        var counts = Of(account);
        // beyond so many conversations the rest is counted together, until the app comes to the front
        var key = counts.ContainsKey(conversation) || counts.Count < ConversationsMax ? conversation : "";
        counts[key] = counts.GetValueOrDefault(key) + 1;
        changed.Add((account, key));
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
        if (db.IsSqlite)
        {
            foreach (var (account, conversation) in kept)
            {
                await db.Database.ExecuteSqlRawAsync(SqliteSave, [account, conversation, Of(account)[conversation]], cancellationToken);
            }

            foreach (var (account, conversation) in gone)
            {
                await db.Database.ExecuteSqlRawAsync(SqliteDelete, [account, conversation], cancellationToken);
            }

            return;
        }

        if (kept.Count > 0)
        {
            // in one order everywhere, so that two transactions wait for each other and do not cross
            kept.Sort();
            await db.Database.ExecuteSqlRawAsync(
                PostgreSqlSave,
                [kept.Select(c => c.Account).ToArray(), kept.Select(c => c.Conversation).ToArray(), kept.Select(c => Of(c.Account)[c.Conversation]).ToArray()],
                cancellationToken);
        }

        if (gone.Count > 0)
        {
            await db.Database.ExecuteSqlRawAsync(
                PostgreSqlDelete, [gone.Select(c => c.Account).ToArray(), gone.Select(c => c.Conversation).ToArray()], cancellationToken);
        }
    }

    private Dictionary<string, int> Of(string account)
    {
        if (!accounts.TryGetValue(account, out var counts))
        {
            accounts[account] = counts = new(StringComparer.Ordinal);
        }

        return counts;
    }
}
