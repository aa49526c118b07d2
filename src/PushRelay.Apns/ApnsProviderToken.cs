namespace PushRelay.Apns;

/// <summary>A signed provider token (JWT). A secret while it is valid: whoever has it can push for the whole team.</summary>
/// <param name="Value">The compact form, without the word <c>bearer</c>.</param>
/// <param name="IssuedAt">Its <c>iat</c>: whole seconds.</param>
public sealed record ApnsProviderToken(string Value, DateTimeOffset IssuedAt)
{
    /// <summary>Never the token itself: records end up in logs.</summary>
    public override string ToString() => $"provider token of {IssuedAt:O}";
}

/// <summary>
/// Where all senders of one (team, key) find the one provider token they share: Apple refuses a team whose tokens change more often than
/// every 20 minutes, and counts all its senders together. Backed by a database, the nodes of a cluster share it.
/// </summary>
public interface IApnsTokenStore
{
    /// <summary>
    /// The kept token if <paramref name="isUsable"/> says so; else keeps and returns what <paramref name="sign"/> makes. Of concurrent
    /// callers, on whatever node, one signs and the others get its token: hold a lock (a row's) over test, signing and keeping.
    /// </summary>
    /// <remarks>Called about once in 50 minutes. May throw: the pushes are then deferred with the reason
    /// <c>no_provider_token</c>.</remarks>
    ValueTask<ApnsProviderToken> GetAsync(
        string teamId,
        string keyId,
        Func<ApnsProviderToken, bool> isUsable,
        Func<ApnsProviderToken> sign,
        CancellationToken cancellationToken
    );
}

/// <summary>Keeps the token of the one key it belongs to in memory.</summary>
internal sealed class MemoryTokenStore : IApnsTokenStore
{
    private readonly Lock sync = new();
    private ApnsProviderToken? kept;

    public ValueTask<ApnsProviderToken> GetAsync(
        string teamId,
        string keyId,
        Func<ApnsProviderToken, bool> isUsable,
        Func<ApnsProviderToken> sign,
        CancellationToken cancellationToken
    )
    {
        lock (sync)
        {
            if (kept is null || !isUsable(kept))
            {
                kept = sign();
            }

            return ValueTask.FromResult(kept);
        }
    }
}
