using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Storage;

namespace PushRelay.Api;

/// <summary>A used <c>Idempotency-Key</c>, and the request it was used for.</summary>
internal sealed class UsedKey
{
    /// <summary>SHA-256 of caller, route and key.</summary>
    public required byte[] Hash { get; init; }

    /// <summary>SHA-256 of the body.</summary>
    public required byte[] Body { get; init; }

    public required DateTimeOffset At { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<UsedKey>
    {
        public void Configure(EntityTypeBuilder<UsedKey> builder)
        {
            builder.ToTable("used_keys");
            builder.HasKey(k => k.Hash);
            builder.HasIndex(k => k.At);
        }
    }
}

/// <summary>
/// Refuses an <c>Idempotency-Key</c> that comes again with another request (422). What comes again unchanged is done again: every POST
/// is idempotent by itself, or derives the new object's id from the key (<see cref="KeyOf"/>).
/// </summary>
internal sealed class Idempotency(IDbContextFactory<RelayDb> databases, DatabaseClock clock)
{
    private const string Header = "Idempotency-Key";
    private const int KeyCharsMax = 255;

    /// <summary>A key is remembered for so long.</summary>
    public static readonly TimeSpan Remembered = TimeSpan.FromDays(1);

    /// <summary>Names what a request makes: the same for the same caller, path and key; null without a key.</summary>
    public static string? KeyOf(HttpContext context) =>
        context.Request.Headers[Header] is [{ } key] ? Convert.ToHexStringLower(HashOf(context, key)) : null;

    public async Task ApplyAsync(HttpContext context, RequestDelegate next)
    {
        if (
            context.Request.Headers[Header] is not { Count: > 0 } header
            || !HttpMethods.IsPost(context.Request.Method)
            || context.GetEndpoint() is null
        )
        {
            await next(context);
            return;
        }

        if (header is not [{ Length: > 0 and <= KeyCharsMax } key])
        {
            await ApiProblem.Validation(Header, $"must be one text of 1 to {KeyCharsMax} characters").ExecuteAsync(context);
            return;
        }

        context.Request.EnableBuffering(ApiBody.BytesMax * 2);
        var body = await SHA256.HashDataAsync(context.Request.Body, context.RequestAborted);
        context.Request.Body.Position = 0;
        if (await IsNewOrSameAsync(HashOf(context, key), body, context.RequestAborted))
        {
            await next(context);
            return;
        }

        await ApiProblem
            .Of(422, "idempotency_mismatch", "This Idempotency-Key was used for another request.", "Use a new key for a new request.")
            .ExecuteAsync(context);
    }

    public async Task<int> PruneAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var before = await clock.NowAsync(db, cancellationToken) - Remembered;
        return await db.Set<UsedKey>().Where(k => k.At < before).ExecuteDeleteAsync(cancellationToken);
    }

    private async Task<bool> IsNewOrSameAsync(byte[] hash, byte[] body, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        db.Add(
            new UsedKey
            {
                Hash = hash,
                Body = body,
                At = await clock.NowAsync(db, cancellationToken),
            }
        );
        try
        {
            await db.SaveChangesAsync(cancellationToken);
            return true;
        }
        catch (DbUpdateException exception) when (!DatabaseErrors.IsOutage(exception))
        {
            db.ChangeTracker.Clear();
            return await db.Set<UsedKey>().AnyAsync(k => k.Hash == hash && k.Body == body, cancellationToken);
        }
    }

    private static byte[] HashOf(HttpContext context, string key)
    {
        string[] words =
        [
            .. context.User.Claims.SelectMany(claim => new[] { claim.Type, claim.Value }),
            context.Request.Path.Value ?? "",
            context.Request.QueryString.Value ?? "",
            key,
        ];
        return SHA256.HashData(
            Encoding.UTF8.GetBytes(string.Concat(words.Select(w => w.Length.ToString(CultureInfo.InvariantCulture) + ":" + w)))
        );
    }
}
