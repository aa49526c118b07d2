using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PushRelay.Cluster;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Push.Fcm;

/// <summary>
/// Keeps one access token per service account for all nodes: of several that need one, one asks for it and the others wait. Where the
/// database is away, each node asks for itself.
/// </summary>
internal sealed partial class SharedAccessTokens(
    IDbContextFactory<RelayDb> databases,
    LeaseTable leases,
    MasterKey masterKey,
    TimeProvider clock,
    ILogger<SharedAccessTokens> logger
)
{
    private static readonly TimeSpan LookAgain = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan WaitMax = TimeSpan.FromSeconds(5);

    /// <summary>The token that is kept, or a new one.</summary>
    /// <param name="email">The account.</param>
    /// <param name="keyId">Its key.</param>
    /// <param name="isUsable">Whether one that is kept will do.</param>
    /// <param name="exchange">Asks for a new one.</param>
    public async Task<TokenAnswer> GetAsync(string email, string keyId, Func<AccessToken, bool> isUsable, Func<Task<TokenAnswer>> exchange)
    {
        LeaseTerm? term = null;
        try
        {
            var started = clock.GetTimestamp();
            while (true)
            {
                if (await FindAsync(email, keyId) is { } kept && isUsable(kept))
                {
                    return new TokenAnswer(kept, null);
                }

                term = await leases.TakeAsync($"access token of {email}", CancellationToken.None);
                if (term is not null || clock.GetElapsedTime(started) >= WaitMax)
                {
                    break;
                }

                await Task.Delay(LookAgain, clock, CancellationToken.None);
            }
        }
        catch (Exception exception)
        {
            // an alert does not wait for the sharing
            NotShared(exception);
        }

        var answer = await exchange();
        try
        {
            if (answer.Token is { } token)
            {
                await KeepAsync(email, keyId, token);
            }

            if (term is { } held)
            {
                await leases.ReleaseAsync(held, CancellationToken.None);
            }
        }
        catch (Exception exception)
        {
            // an alert does not wait for the sharing
            NotShared(exception);
        }

        return answer;
    }

    private async Task<AccessToken?> FindAsync(string email, string keyId)
    {
        await using var db = await databases.CreateDbContextAsync();
        var kept = await db.Set<SharedProviderToken>().AsNoTracking().SingleOrDefaultAsync(t => t.TeamId == email && t.KeyId == keyId);
        try
        {
            return kept is null
                ? null
                : JsonSerializer.Deserialize<AccessToken>(
                    masterKey.Open(kept.Token, SharedProviderToken.TableName, Place(email, keyId), nameof(kept.Token))
                );
        }
        catch (CryptographicException)
        {
            // sealed with a master key that is no longer here; the next one is not
            return null;
        }
    }

    private async Task KeepAsync(string email, string keyId, AccessToken token)
    {
        await using var db = await databases.CreateDbContextAsync();
        var secret = masterKey.Seal(
            JsonSerializer.Serialize(token),
            SharedProviderToken.TableName,
            Place(email, keyId),
            nameof(SharedProviderToken.Token)
        );
        var now = clock.GetUtcNow();
        if (
            await db.Set<SharedProviderToken>()
                .Where(t => t.TeamId == email && t.KeyId == keyId)
                .ExecuteUpdateAsync(set => set.SetProperty(t => t.Token, secret).SetProperty(t => t.IssuedAt, now)) == 0
        )
        {
            db.Add(
                new SharedProviderToken
                {
                    TeamId = email,
                    KeyId = keyId,
                    Token = secret,
                    IssuedAt = now,
                }
            );
            try
            {
                await db.SaveChangesAsync();
            }
            catch (DbUpdateException exception) when (DatabaseErrors.IsClash(exception))
            {
                // another node kept its own: as good as this one
            }
        }
    }

    /// <summary>The same under every master key.</summary>
    private static Guid Place(string email, string keyId) => new(SHA256.HashData(Encoding.UTF8.GetBytes($"{email}/{keyId}")).AsSpan(0, 16));

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "An access token for FCM is not shared with the other nodes, and each asks for its own"
    )]
    private partial void NotShared(Exception exception);
}
