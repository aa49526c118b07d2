using System.Text;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>The body of <c>POST /v1/alerts</c>.</summary>
public sealed record AlertRequest
{
    public string? Account { get; init; }

    public string? Title { get; init; }

    public string? Body { get; init; }

    /// <summary>Only the account's devices of this app.</summary>
    public string? App { get; init; }

    /// <summary>Only this device of the account.</summary>
    public string? Device { get; init; }

    /// <summary>A bare JID: the alert belongs to this conversation, and its preferences apply.</summary>
    public string? Conversation { get; init; }

    /// <summary>Alerts also if a session is in front.</summary>
    public bool? IgnorePresence { get; init; }

    /// <summary><c>high</c> or <c>normal</c>.</summary>
    public string? Priority { get; init; }

    /// <summary>From 1 minute to 28 days.</summary>
    public string? TimeToLive { get; init; }

    /// <summary>Payload member <c>data</c>: texts, of at most 1 KiB together.</summary>
    public IReadOnlyDictionary<string, string>? Data { get; init; }
}

/// <summary>The deliveries that an operator's alert made, one for each device.</summary>
public sealed record AlertResponse(IReadOnlyList<DeliverySummary> Items);

/// <summary>What came of an operator's alert.</summary>
internal abstract record OwnAlertResult
{
    private OwnAlertResult() { }

    public sealed record Made(IReadOnlyList<DeliverySummary> Deliveries) : OwnAlertResult;

    /// <param name="Errors">What is wrong with each field.</param>
    public sealed record Invalid(IReadOnlyDictionary<string, string> Errors) : OwnAlertResult;

    /// <summary>The account is of no configured server, or has no such device.</summary>
    public sealed record NotFound : OwnAlertResult;
}

/// <summary>
/// Alerts that an operator sends: an event of the source <c>api</c> through the same ingest as every message, so presence and preferences
/// apply. For REST and the command line.
/// </summary>
internal sealed class OwnAlerts(
    IDbContextFactory<RelayDb> databases,
    EventIngest ingest,
    PresenceCopy presence,
    DeviceRegistry registry,
    ServedAccounts accounts,
    AppCatalog apps,
    AuditTrail audit,
    DatabaseClock clock
)
{
    private const int TextCharsMax = 8_192;
    private const int DataBytesMax = 1_024;
    private static readonly TimeSpan LifeMin = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan LifeMax = TimeSpan.FromDays(28);

    /// <param name="request">The alert and its receiver.</param>
    /// <param name="key">The same key again is the same alert; null: a new one.</param>
    /// <param name="actor">Who sends it.</param>
    /// <param name="cancellationToken">Stops it before it is stored.</param>
    public async Task<OwnAlertResult> SendAsync(AlertRequest request, string? key, Actor actor, CancellationToken cancellationToken)
    {
        var errors = new Dictionary<string, string>();
        var life = Check(request, errors);
        if (errors.Count > 0)
        {
            return new OwnAlertResult.Invalid(errors);
        }

        if (!accounts.TryName(request.Account, out var account, out _))
        {
            return new OwnAlertResult.NotFound();
        }

        Device? only = null;
        if (request.Device is not null)
        {
            only = (await registry.FindAsync(account, request.Device, cancellationToken)).SingleOrDefault();
            if (only is null || (request.App is not null && only.App != request.App))
            {
                return new OwnAlertResult.NotFound();
            }
        }

        var eventKey = key is null ? Guid.NewGuid().ToString("D") : $"api:{key}";
        var server = ServedAccounts.ServerOf(account);
        var message = new RelayEvent.Message(account, await NowAsync(cancellationToken))
        {
            Key = eventKey,
            Source = EventSource.Api,
            Class = EventClass.Text,
            From = request.Conversation ?? server,
            Type = "normal",
            OnlyDevice = only?.Key,
            OnlyApp = request.App,
            TimeToLive = life,
            Presence =
                request.IgnorePresence == true ? AccountPresence.Unknown : await presence.OfAsync(server, account, cancellationToken),
            Content = new AlertContent
            {
                Body = request.Body,
                Name = request.Title,
                Anonymous = request.Title is null && request.Conversation is null,
                Calm = request.Priority == "normal",
                Data = request.Data is { Count: > 0 } ? request.Data : null,
            },
        };
        await ingest.CommitAsync([new EventBatch(new StreamName(server, ""), [message], null)], null, cancellationToken);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var record = audit.Record(db, await clock.NowAsync(db, cancellationToken), actor, AuditActions.AlertSent, account, request.Device);
        await db.SaveChangesAsync(cancellationToken);
        audit.Log(record);
        var rows = await db.Set<Delivery>()
            .AsNoTracking()
            .Where(d => d.Server == server && d.Account == account && d.EventKey == eventKey)
            .OrderBy(d => d.Id)
            .ToListAsync(cancellationToken);
        return new OwnAlertResult.Made(rows.ConvertAll(DeliverySummary.Of));
    }

    private async Task<DateTimeOffset> NowAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        return await clock.NowAsync(db, cancellationToken);
    }

    /// <returns>How long the alert lives; null: as the settings say.</returns>
    private TimeSpan? Check(AlertRequest request, Dictionary<string, string> errors)
    {
        void Require(bool holds, string field, string message)
        {
            if (!holds)
            {
                errors.TryAdd(field, message);
            }
        }

        Require(request.Account is not null, "account", "is missing");
        Require(!string.IsNullOrWhiteSpace(request.Body), "body", "is missing");
        Require(request.Body is null || request.Body.Length <= TextCharsMax, "body", $"must have at most {TextCharsMax} characters");
        Require(request.Title is null || request.Title.Length <= TextCharsMax, "title", $"must have at most {TextCharsMax} characters");
        Require(request.App is null || apps.Find(request.App) is not null, "app", "is not configured");
        Require(request.Device is null || DeviceRules.IsId(request.Device), "device", "must be the id of a device");
        Require(
            request.Conversation is null
                || (Xmpp.Jid.TryParse(request.Conversation, out var jid) && jid.ToString() == request.Conversation),
            "conversation",
            "must be a JID, such as news@example.com"
        );
        Require(request.Priority is null or "high" or "normal", "priority", "must be \"high\" or \"normal\"");
        Require(request.Data?.Values.Any(text => text is null) != true, "data", "must have texts only");
        Require(
            request.Data is null
                || request.Data.Values.Any(text => text is null)
                || request.Data.Sum(d => Encoding.UTF8.GetByteCount(d.Key) + Encoding.UTF8.GetByteCount(d.Value)) <= DataBytesMax,
            "data",
            $"must have at most {DataBytesMax} bytes"
        );
        if (request.TimeToLive is null)
        {
            return null;
        }

        var isTime = Settings.Durations.TryParse(request.TimeToLive, out var life);
        Require(
            isTime && life >= LifeMin && life <= LifeMax,
            "timeToLive",
            "must be from 00:01:00 to 28.00:00:00 (d.hh:mm:ss), or a number with s, m, h or d"
        );
        return isTime ? life : null;
    }
}
