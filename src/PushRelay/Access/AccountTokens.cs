using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using Microsoft.Extensions.Options;
using PushRelay.Audit;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>A credential of one account. Of the secret itself only the hash is kept.</summary>
internal sealed class AccountToken
{
    public required Guid Id { get; init; }

    public required string Account { get; init; }

    /// <summary>SHA-256 of the whole token: 256 random bits need no slow hash.</summary>
    public required byte[] Hash { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public required DateTimeOffset ExpiresAt { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<AccountToken>
    {
        public void Configure(EntityTypeBuilder<AccountToken> builder)
        {
            builder.ToTable("account_tokens");
            builder.Property(t => t.Id).ValueGeneratedNever();
            builder.HasIndex(t => t.Hash).IsUnique();
            builder.HasIndex(t => new { t.Account, t.Id });
            builder.HasIndex(t => t.ExpiresAt);
        }
    }
}

/// <summary>The result of a request for a token.</summary>
internal abstract record TokenIssue
{
    private TokenIssue() { }

    /// <param name="Secret">The token itself, which is kept nowhere.</param>
    /// <param name="Token">What is kept of it.</param>
    public sealed record Issued(string Secret, AccountToken Token) : TokenIssue;

    /// <summary>The account asks too often; again after <paramref name="Wait"/>.</summary>
    public sealed record TooMany(TimeSpan Wait) : TokenIssue;
}

/// <summary>Issues, finds, lists and revokes account tokens; secrets pass through here and are kept nowhere.</summary>
internal sealed class AccountTokens(
    IDbContextFactory<RelayDb> databases,
    DatabaseClock clock,
    IdSequence sequence,
    AuditTrail audit,
    RateLimits limits,
    IOptions<ApiOptions> options
)
{
    public const string Prefix = "pra_";
    private const int SecretBytes = 32;

    /// <summary>How long a renewed token stays valid: the answer with the new one may be lost.</summary>
    private static readonly TimeSpan RenewedHolds = TimeSpan.FromMinutes(10);

    /// <summary>A new token. Where the account has <c>Api:AccountTokens:Max</c> already, its oldest ends.</summary>
    public Task<TokenIssue> IssueAsync(string account, Actor actor, CancellationToken cancellationToken) =>
        IssueAsync(account, renewed: null, actor, cancellationToken);

    /// <summary>A new token in place of a valid one, which ends ten minutes later.</summary>
    public Task<TokenIssue> RenewAsync(AccountToken renewed, Actor actor, CancellationToken cancellationToken) =>
        IssueAsync(renewed.Account, renewed, actor, cancellationToken);

    /// <summary>The token that this is the secret of; null where there is none, or none any more.</summary>
    public async Task<AccountToken?> FindAsync(string secret, CancellationToken cancellationToken)
    {
        if (secret.Length != Prefix.Length + Base64Url.GetEncodedLength(SecretBytes))
        {
            return null;
        }

        var hash = Hash(secret);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var token = await db.Set<AccountToken>().AsNoTracking().SingleOrDefaultAsync(t => t.Hash == hash, cancellationToken);
        return token is not null && token.ExpiresAt > await clock.NowAsync(db, cancellationToken) ? token : null;
    }

    /// <summary>The valid ones, newest first.</summary>
    public async Task<IReadOnlyList<AccountToken>> ListAsync(string? account, Guid? before, int limit, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var tokens = db.Set<AccountToken>().AsNoTracking().Where(t => t.ExpiresAt > now);
        tokens = account is null ? tokens : tokens.Where(t => t.Account == account);
        tokens = before is { } id ? tokens.Where(t => t.Id.CompareTo(id) < 0) : tokens;
        return await tokens.OrderByDescending(t => t.Id).Take(limit).ToListAsync(cancellationToken);
    }

    /// <param name="account">Null: of any account (operators).</param>
    /// <param name="id">The token's.</param>
    /// <param name="actor">Who revokes it.</param>
    /// <param name="cancellationToken">Stops the statement.</param>
    /// <returns>False: the account has no such token.</returns>
    public async Task<bool> RevokeAsync(string? account, Guid id, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var token = await db.Set<AccountToken>()
            .SingleOrDefaultAsync(t => t.Id == id && (account == null || t.Account == account), cancellationToken);
        if (token is null)
        {
            return false;
        }

        db.Remove(token);
        var record = audit.Record(
            db,
            await clock.NowAsync(db, cancellationToken),
            actor,
            AuditActions.TokenRevoked,
            token.Account,
            id.ToString("D")
        );
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateConcurrencyException)
        {
            return false;
        }

        audit.Log(record);
        return true;
    }

    /// <summary>Ends every token of an account that is gone, in the caller's transaction: the next owner of its name must not inherit
    /// them.</summary>
    public async Task RemoveAccountAsync(RelayDb db, string account, CancellationToken cancellationToken)
    {
        var ended = await db.Set<AccountToken>().Where(t => t.Account == account).Select(t => t.Id).ToListAsync(cancellationToken);
        if (ended.Count == 0)
        {
            return;
        }

        await db.Set<AccountToken>().Where(t => ended.Contains(t.Id)).ExecuteDeleteAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var records = ended.ConvertAll(id => audit.Record(db, now, Actor.Relay, AuditActions.TokenRevoked, account, id.ToString("D")));
        await db.SaveChangesAsync(cancellationToken);
        records.ForEach(audit.Log);
    }

    /// <summary>Deletes what has expired.</summary>
    public async Task<int> PruneAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        return await db.Set<AccountToken>().Where(t => t.ExpiresAt <= now).ExecuteDeleteAsync(cancellationToken);
    }

    private async Task<TokenIssue> IssueAsync(string account, AccountToken? renewed, Actor actor, CancellationToken cancellationToken)
    {
        if (!limits.Tokens.TryTake(account, out var wait))
        {
            return new TokenIssue.TooMany(wait);
        }

        var secret = Prefix + Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(SecretBytes));
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var now = await clock.NowAsync(db, cancellationToken);
        var token = new AccountToken
        {
            Id = sequence.Next(now),
            Account = account,
            Hash = Hash(secret),
            CreatedAt = now,
            ExpiresAt = now + options.Value.AccountTokens.Lifetime,
        };
        db.Add(token);
        var record = audit.Record(
            db,
            now,
            actor,
            renewed is null ? AuditActions.TokenIssued : AuditActions.TokenRenewed,
            account,
            token.Id.ToString("D")
        );
        await db.SaveChangesAsync(cancellationToken);
        if (renewed is not null)
        {
            var end = now + RenewedHolds;
            await db.Set<AccountToken>()
                .Where(t => t.Id == renewed.Id && t.ExpiresAt > end)
                .ExecuteUpdateAsync(set => set.SetProperty(t => t.ExpiresAt, end), cancellationToken);
        }

        var kept = db.Set<AccountToken>()
            .Where(t => t.Account == account)
            .OrderByDescending(t => t.Id)
            .Take(options.Value.AccountTokens.Max)
            .Select(t => t.Id);
        await db.Set<AccountToken>().Where(t => t.Account == account && !kept.Contains(t.Id)).ExecuteDeleteAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        audit.Log(record);
        return new TokenIssue.Issued(secret, token);
    }

    private static byte[] Hash(string secret) => SHA256.HashData(Encoding.UTF8.GetBytes(secret));
}
