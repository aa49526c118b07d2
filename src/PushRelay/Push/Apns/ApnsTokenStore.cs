using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apns;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Push.Apns;

/// <summary>
/// Keeps one provider token per signing key for all nodes, and over restarts: Apple refuses a team whose tokens change more often than
/// every 20 minutes, and counts all its senders together.
/// </summary>
internal sealed class ApnsTokenStore(IDbContextFactory<RelayDb> databases, MasterKey masterKey) : IApnsTokenStore
{
    public async ValueTask<ApnsProviderToken> GetAsync(
        string teamId,
        string keyId,
        Func<ApnsProviderToken, bool> isUsable,
        Func<ApnsProviderToken> sign,
        CancellationToken cancellationToken
    )
    {
        // the same under every master key
        var place = new Guid(SHA256.HashData(Encoding.UTF8.GetBytes($"{teamId}/{keyId}")).AsSpan(0, 16));
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (!db.IsSqlite)
        {
            // of all nodes one signs; SQLite has one writer anyway
            await db.Database.ExecuteSqlAsync(
                $"SELECT pg_advisory_xact_lock({BitConverter.ToInt64(place.ToByteArray())})",
                cancellationToken
            );
        }

        var kept = await db.Set<SharedProviderToken>().SingleOrDefaultAsync(t => t.TeamId == teamId && t.KeyId == keyId, cancellationToken);
        if (kept is not null && Open(kept, place) is { } token && isUsable(token))
        {
            return token;
        }

        var signed = sign();
        var secret = masterKey.Seal(signed.Value, SharedProviderToken.TableName, place, nameof(kept.Token));
        if (kept is null)
        {
            db.Add(
                new SharedProviderToken
                {
                    TeamId = teamId,
                    KeyId = keyId,
                    Token = secret,
                    IssuedAt = signed.IssuedAt,
                }
            );
        }
        else
        {
            (kept.Token, kept.IssuedAt) = (secret, signed.IssuedAt);
        }

        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return signed;
    }

    /// <summary>Null: sealed with a master key that is no longer here; the next one is.</summary>
    private ApnsProviderToken? Open(SharedProviderToken kept, Guid place)
    {
        try
        {
            return new ApnsProviderToken(
                masterKey.Open(kept.Token, SharedProviderToken.TableName, place, nameof(kept.Token)),
                kept.IssuedAt
            );
        }
        catch (CryptographicException)
        {
            return null;
        }
    }
}
