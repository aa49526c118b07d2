using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Audit;

/// <summary>Who does something, and from where.</summary>
/// <param name="Name">An operator key's name, how an account proved itself, or <see cref="Relay"/>.</param>
/// <param name="Address">The peer's, where there is one.</param>
internal sealed record Actor(string Name, string? Address)
{
    /// <summary>The relay itself, because of what a server or a push network reported.</summary>
    public static readonly Actor Relay = new("relay", null);

    /// <summary>The user who runs a command or starts the relay on this machine.</summary>
    public static readonly Actor Command = new($"user {Environment.UserName}", Environment.MachineName);
}

/// <summary>One change that was made or refused: written once, never changed, without any secret.</summary>
internal sealed class AuditRecord
{
    public required Guid Id { get; init; }

    public required DateTimeOffset At { get; init; }

    public required string Actor { get; init; }

    public string? Address { get; init; }

    /// <summary>Of <see cref="AuditActions"/>.</summary>
    public required string Action { get; init; }

    public string? Account { get; init; }

    /// <summary>The id of what was changed.</summary>
    public string? Target { get; init; }

    /// <summary><c>done</c>, or why not.</summary>
    public required string Result { get; init; }

    internal sealed class Table : IEntityTypeConfiguration<AuditRecord>
    {
        public void Configure(EntityTypeBuilder<AuditRecord> builder)
        {
            builder.ToTable("audit_records");
            builder.Property(r => r.Id).ValueGeneratedNever();
            builder.HasIndex(r => new { r.Account, r.Id });
        }
    }
}

/// <summary>Keeps the audit. A record is written in the transaction of the change that it describes: there is never one without the
/// other.</summary>
internal sealed partial class AuditTrail(
    IDbContextFactory<RelayDb> databases,
    MasterKey masterKey,
    DatabaseClock clock,
    IdSequence sequence,
    ILogger<AuditTrail> logger
)
{
    public const string Done = "done";

    /// <summary>Adds a record to the caller's transaction. After the commit the caller passes it to <see cref="Log"/>.</summary>
    public AuditRecord Record(
        RelayDb db,
        DateTimeOffset now,
        Actor actor,
        string action,
        string? account,
        string? target,
        string result = Done
    )
    {
        var record = new AuditRecord
        {
            Id = sequence.Next(now),
            At = now,
            Actor = actor.Name,
            Address = actor.Address,
            Action = action,
            Account = account,
            Target = target,
            Result = result,
        };
        db.Add(record);
        return record;
    }

    /// <summary>A record by itself: of what was refused, or of what has no transaction.</summary>
    public async Task WriteAsync(
        Actor actor,
        string action,
        string? account,
        string? target,
        string result,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var record = Record(db, await clock.NowAsync(db, cancellationToken), actor, action, account, target, result);
        await db.SaveChangesAsync(cancellationToken);
        Log(record);
    }

    /// <summary>The log's line; the account as a pseudonym, the same in every line, since names stay out of the log.</summary>
    public void Log(AuditRecord record) =>
        Changed(
            record.Action,
            record.Result,
            record.Actor,
            record.Address,
            record.Account is null ? null : Pseudonym(record.Account),
            record.Id
        );

    /// <summary>Newest first; from below <paramref name="before"/> on.</summary>
    public async Task<IReadOnlyList<AuditRecord>> ListAsync(string? account, Guid? before, int limit, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var records = db.Set<AuditRecord>().AsNoTracking();
        records = account is null ? records : records.Where(r => r.Account == account);
        records = before is { } id ? records.Where(r => r.Id.CompareTo(id) < 0) : records;
        return await records.OrderByDescending(r => r.Id).Take(limit).ToListAsync(cancellationToken);
    }

    /// <summary>Deletes what is older than <paramref name="age"/>.</summary>
    public async Task<int> PruneAsync(TimeSpan age, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var before = await clock.NowAsync(db, cancellationToken) - age;
        return await OlderThan(db, before).ExecuteDeleteAsync(cancellationToken);
    }

    /// <summary>Ids begin with their time: where nothing is that old, nothing is read.</summary>
    internal static IQueryable<AuditRecord> OlderThan(RelayDb db, DateTimeOffset before)
    {
        var first = IdSequence.First(before);
        return db.Set<AuditRecord>().Where(r => r.Id.CompareTo(first) < 0 && r.At < before);
    }

    private string Pseudonym(string account) => Convert.ToHexStringLower(masterKey.Mac("log", account).AsSpan(0, 6));

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "Audit: {Action} {Result} by {Actor} from {Address}, account {AccountHash}, record {RecordId}"
    )]
    private partial void Changed(string action, string result, string actor, string? address, string? accountHash, Guid recordId);
}
