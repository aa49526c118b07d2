using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Outbox;

/// <summary>Seals the texts of deliveries that are not settled yet again, when the master key is replaced.</summary>
internal sealed class WaitingTexts(IDbContextFactory<RelayDb> databases, MasterKey masterKey)
{
    /// <summary>Seals a page of texts with the first key, while relays run.</summary>
    public async Task<ResealedPage> ResealAsync(Guid after, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var rows = await db.Set<Delivery>()
            .AsNoTracking()
            .Where(d => d.Content != null && d.Id.CompareTo(after) > 0)
            .OrderBy(d => d.Id)
            .Take(ResealedPage.RowsMax)
            .Select(d => new { d.Id, d.Content })
            .ToListAsync(cancellationToken);
        var (resealed, unreadable) = (0, 0);
        foreach (var row in rows)
        {
            try
            {
                if (masterKey.Reseal(row.Content!, Delivery.TableName, row.Id, nameof(Delivery.Content)) is { } content)
                {
                    // only the text that was read: a delivery settled since has none, and gets none
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

        return new ResealedPage(rows.LastOrDefault()?.Id, resealed, unreadable);
    }
}
