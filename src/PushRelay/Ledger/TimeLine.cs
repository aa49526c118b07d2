using System.Globalization;
using System.Text.Json.Serialization;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Everything that happened to an account, in one order.</summary>
/// <param name="Account">Whose.</param>
/// <param name="State">The account's state now.</param>
/// <param name="Text">Where nothing is known: since when something would be.</param>
/// <param name="Items">Newest first.</param>
/// <param name="Next">The cursor of the next part; null: this is the last.</param>
public sealed record Explanation(
    string Account,
    string State,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Text,
    IReadOnlyList<TimeLineItem> Items,
    string? Next
);

/// <summary>One thing that happened. Which members there are depends on the kind; no body, title or token is ever in it.</summary>
public sealed record TimeLineItem
{
    /// <summary><c>session event decision attempt settled receipt displayed device link gap</c>.</summary>
    public required string Kind { get; init; }

    public required DateTimeOffset At { get; init; }

    /// <summary>The same in one English sentence.</summary>
    public required string Text { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Guid? Delivery { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Device { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Source { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Class { get; init; }

    /// <summary>Of an event its sender, bare; of a gap its beginning.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? From { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Id { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? State { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Reason { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DeliverySituation? Situation { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Number { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? DurationMs { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Status { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Outcome { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? ProviderId { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Event { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Resource { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public bool? Available { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Priority { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Show { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? With { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Action { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Server { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? To { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Cause { get; init; }
}

/// <summary>
/// Makes an account's time line from the ledger, the history and the audit. A part is cut between entries: what follows from one event
/// (its decisions, attempts, settlement, receipts) stands in the part of that event.
/// </summary>
internal sealed class TimeLine(
    IDbContextFactory<RelayDb> databases,
    PresenceCopy presence,
    ServedAccounts accounts,
    DatabaseClock clock,
    IOptions<RetentionOptions> retention
)
{
    private static readonly string[] DeviceActions =
    [
        AuditActions.DeviceRegistered,
        AuditActions.DeviceChanged,
        AuditActions.DeviceMoved,
        AuditActions.DeviceRemoved,
        AuditActions.DeviceInvalidated,
    ];

    /// <param name="account">However it is spelt.</param>
    /// <param name="from">Not before; null: from the beginning.</param>
    /// <param name="to">Before; null: up to now.</param>
    /// <param name="page">Which part.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    /// <returns>Null: no account of a configured server.</returns>
    public async Task<Explanation?> OfAsync(
        string account,
        DateTimeOffset? from,
        DateTimeOffset? to,
        PageRequest page,
        CancellationToken cancellationToken
    )
    {
        if (!accounts.TryName(account, out var name, out _))
        {
            return null;
        }

        var server = ServedAccounts.ServerOf(name);
        var state = (await presence.OfAsync(server, name, cancellationToken)).State;
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var entries = await EntriesAsync(db, name, server, from, to, page, cancellationToken);
        var cut = page.Cut(entries, e => e.Id, e => e);
        var attempts = await AttemptsAsync(db, cut.Items, cancellationToken);
        var items = cut.Items.SelectMany(e => e.Items(attempts)).OrderByDescending(i => i.At).ToList();
        string? text = null;
        if (items.Count == 0 && page.Before is null)
        {
            var since = await clock.NowAsync(db, cancellationToken) - retention.Value.Presence;
            text = string.Create(
                CultureInfo.InvariantCulture,
                $"Nothing is known of this time. Sessions are kept since {Sentences.Time(since)}, deliveries for "
                    + $"{retention.Value.Deliveries.TotalDays:0} days."
            );
        }

        return new Explanation(name, PresenceNames.Of(state), text, items, cut.Next);
    }

    /// <summary>From all sources the newest, by their ids, which begin with the time.</summary>
    private static async Task<List<Entry>> EntriesAsync(
        RelayDb db,
        string account,
        string server,
        DateTimeOffset? from,
        DateTimeOffset? to,
        PageRequest page,
        CancellationToken cancellationToken
    )
    {
        var first = from is { } begin ? IdSequence.First(begin) : Guid.Empty;
        var last = to is { } end ? IdSequence.First(end) : Guid.AllBitsSet;
        if (page.Before is { } before && Compare(before, last) < 0)
        {
            last = before;
        }

        var rows = await db.Set<Delivery>()
            .AsNoTracking()
            .Where(d => d.Account == account && d.Id.CompareTo(last) < 0 && d.Id.CompareTo(first) >= 0)
            .OrderByDescending(d => d.Id)
            .Take(page.RowsToRead)
            .ToListAsync(cancellationToken);
        var own = await db.Set<HistoryEntry>()
            .AsNoTracking()
            .Where(h => h.Account == account && h.Id.CompareTo(last) < 0 && h.Id.CompareTo(first) >= 0)
            .OrderByDescending(h => h.Id)
            .Take(page.RowsToRead)
            .ToListAsync(cancellationToken);
        var servers = await db.Set<HistoryEntry>()
            .AsNoTracking()
            .Where(h => h.Account == null && h.Server == server && h.Id.CompareTo(last) < 0 && h.Id.CompareTo(first) >= 0)
            .OrderByDescending(h => h.Id)
            .Take(page.RowsToRead)
            .ToListAsync(cancellationToken);
        var audited = await db.Set<AuditRecord>()
            .AsNoTracking()
            .Where(r => r.Account == account && DeviceActions.Contains(r.Action) && r.Id.CompareTo(last) < 0 && r.Id.CompareTo(first) >= 0)
            .OrderByDescending(r => r.Id)
            .Take(page.RowsToRead)
            .ToListAsync(cancellationToken);
        // an account that never existed has no time line, also if its server has history
        var any = rows.Count + own.Count + audited.Count > 0;
        return
        [
            .. rows.Select(Entry.Of)
                .Concat(own.Concat(any || page.Before is not null ? servers : []).Select(Entry.Of))
                .Concat(audited.Select(Entry.Of))
                .OrderByDescending(e => e.Id, Comparer<Guid>.Create(Compare))
                .Take(page.RowsToRead),
        ];
    }

    private static async Task<ILookup<Guid, Attempt>> AttemptsAsync(
        RelayDb db,
        IReadOnlyList<Entry> entries,
        CancellationToken cancellationToken
    )
    {
        var ids = entries.Where(e => e.Row is not null).Select(e => e.Id).ToList();
        var attempts = await db.Set<Attempt>().AsNoTracking().Where(a => ids.Contains(a.DeliveryId)).ToListAsync(cancellationToken);
        return attempts.ToLookup(a => a.DeliveryId);
    }

    /// <summary>As both databases order ids: by their bytes.</summary>
    private static int Compare(Guid left, Guid right)
    {
        Span<byte> a = stackalloc byte[16];
        Span<byte> b = stackalloc byte[16];
        left.TryWriteBytes(a, bigEndian: true, out _);
        right.TryWriteBytes(b, bigEndian: true, out _);
        return a.SequenceCompareTo(b);
    }

    /// <summary>What the time line is cut between.</summary>
    private sealed record Entry(Guid Id, Delivery? Row, HistoryEntry? History, AuditRecord? Audit)
    {
        public static Entry Of(Delivery row) => new(row.Id, row, null, null);

        public static Entry Of(HistoryEntry history) => new(history.Id, null, history, null);

        public static Entry Of(AuditRecord record) => new(record.Id, null, null, record);

        public IEnumerable<TimeLineItem> Items(ILookup<Guid, Attempt> attempts) =>
            Row is { } row ? OfRow(row, attempts[row.Id])
            : History is { } history ? [OfHistory(history)]
            : [OfAudit(Audit!)];

        private static TimeLineItem OfAudit(AuditRecord record) =>
            new()
            {
                Kind = "device",
                At = record.At,
                Device = record.Target,
                Action = record.Action,
                Text = Sentences.OfDevice(record),
            };

        private static TimeLineItem OfHistory(HistoryEntry entry)
        {
            var data = HistoryData.FromJson(entry.Data);
            var item = new TimeLineItem
            {
                Kind = entry.Kind.ToString().ToLowerInvariant(),
                At = entry.At,
                Text = Sentences.Of(entry, data),
            };
            return entry.Kind switch
            {
                HistoryKind.Session => item with
                {
                    Resource = data.Resource,
                    State = data.State,
                    Available = data.Available,
                    Priority = data.Priority,
                    Show = data.Show,
                },
                HistoryKind.Displayed => item with { With = data.With },
                HistoryKind.Link => item with { Server = entry.Server, State = data.State },
                HistoryKind.Gap => item with { From = Rfc3339(data.From!.Value), To = Rfc3339(data.To!.Value), Cause = data.Cause },
            };
        }

        private static IEnumerable<TimeLineItem> OfRow(Delivery row, IEnumerable<Attempt> tried)
        {
            var situation = DeliverySituation.Read(row.Situation);
            // what is done last stands first where the times are the same
            foreach (var item in OfReceipts(row))
            {
                yield return item;
            }

            if (row is { SettledAt: { } settled, State: not DeliveryState.Suppressed })
            {
                yield return new TimeLineItem
                {
                    Kind = "settled",
                    At = settled,
                    Delivery = row.Id,
                    State = Names.Of(row.State),
                    Reason = row.Reason,
                    Text = Sentences.OfSettled(row),
                };
            }

            foreach (var attempt in DeliveryQueries.Log(row, [.. tried]).OrderByDescending(a => a.Number))
            {
                yield return new TimeLineItem
                {
                    Kind = "attempt",
                    At = attempt.At,
                    Delivery = row.Id,
                    Number = attempt.Number,
                    DurationMs = attempt.DurationMs,
                    Status = attempt.Status,
                    Reason = attempt.Reason,
                    Outcome = attempt.Outcome,
                    ProviderId = attempt.ProviderId,
                    Text = Sentences.OfAttempt(row, attempt),
                };
            }

            yield return new TimeLineItem
            {
                Kind = "decision",
                At = row.CreatedAt,
                Delivery = row.Id,
                Device = row.Device,
                State = Names.Of(row.State == DeliveryState.Suppressed ? DeliveryState.Suppressed : DeliveryState.Pending),
                Reason = row.Reason,
                Situation = situation,
                Text = Sentences.OfDecision(row, situation),
            };
            yield return new TimeLineItem
            {
                Kind = "event",
                At = row.CreatedAt,
                Source = Names.Of(row.Source),
                Class = Names.Of(row.Class),
                From = Bare(row.Sender),
                Id = row.MessageId,
                Text = Sentences.OfEvent(row, Bare(row.Sender)),
            };
        }

        private static IEnumerable<TimeLineItem> OfReceipts(Delivery row)
        {
            foreach (var (at, name) in new[] { (row.OpenedAt, "opened"), (row.ReceivedAt, "received") })
            {
                if (at is { } time)
                {
                    yield return new TimeLineItem
                    {
                        Kind = "receipt",
                        At = time,
                        Delivery = row.Id,
                        Event = name,
                        Text = $"Device {row.Device} says that the alert was {name}.",
                    };
                }
            }
        }

        private static string? Bare(string? jid) => jid?.Split('/')[0];

        private static string Rfc3339(DateTimeOffset at) =>
            at.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'", CultureInfo.InvariantCulture);
    }
}
