using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>The sealed texts of what is not settled yet, when the master key is replaced.</summary>
internal sealed class WaitingTexts(IDbContextFactory<RelayDb> databases, MasterKey masterKey)
{
    private const int TogetherMax = 200;

    /// <summary>Seals again what is under an older key, beside running relays.</summary>
    /// <returns>How many were, and how many no key opens.</returns>
    public async Task<(int Resealed, int Unreadable)> ResealAsync(CancellationToken cancellationToken)
    {
        var (resealed, unreadable, after) = (0, 0, Guid.Empty);
        while (true)
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            var rows = await db.Set<Delivery>()
                .AsNoTracking()
                .Where(d => d.Content != null && d.Id.CompareTo(after) > 0)
                .OrderBy(d => d.Id)
                .Take(TogetherMax)
                .Select(d => new { d.Id, d.Content })
                .ToListAsync(cancellationToken);
            if (rows.Count == 0)
            {
                return (resealed, unreadable);
            }

            foreach (var row in rows)
            {
                try
                {
                    if (masterKey.Reseal(row.Content!, Delivery.TableName, row.Id, nameof(Delivery.Content)) is { } content)
                    {
                        // settled in between: its text is gone, and stays so
                        resealed += await db.Set<Delivery>()
                            .Where(d => d.Id == row.Id && d.Content == row.Content)
                            .ExecuteUpdateAsync(set => set.SetProperty(d => d.Content, content), cancellationToken);
                    }
                }
                catch (CryptographicException)
                {
                    unreadable++;
                }
            }

            after = rows[^1].Id;
        }
    }
}
