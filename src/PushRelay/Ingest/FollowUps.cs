using Microsoft.EntityFrameworkCore;
using PushRelay.Outbox;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>
/// The earlier deliveries that corrections, withdrawals and the ends of calls are about. Only the same sender can change a message: in a
/// room the same occupant, or the room itself. It reads a bounded number of ledger rows.
/// </summary>
internal sealed class FollowUps(RelayDb db, DateTimeOffset now, IReadOnlyList<Delivery> made)
{
    // per transaction: the newest rows with one of the ids, and looks into what an alert spoke for
    private const int RowsMax = 2000;
    private const int LooksMax = 200;
    private const int RecentRowsMax = 200;
    private static readonly TimeSpan AgeMax = TimeSpan.FromDays(28);

    private readonly Dictionary<(string Account, string Id), List<Delivery>> byMessage = [];
    private readonly Dictionary<(string Account, string Id), List<Delivery>> byStanza = [];
    private readonly Dictionary<(string Account, string Id), List<Delivery>> byCall = [];
    private int looks;

    /// <summary>What a delivery is: this transaction's own row, or one of the ledger.</summary>
    /// <param name="Row">As it was written.</param>
    /// <param name="IsMade">By this transaction.</param>
    internal sealed record Target(Delivery Row, bool IsMade);

    /// <summary>Reads what the ledger has of the messages that these events follow up; no statement where none does.</summary>
    public async Task LoadAsync(IReadOnlyCollection<RelayEvent> events, CancellationToken cancellationToken)
    {
        var corrections = events.OfType<RelayEvent.Message>().Where(m => m.Replaces is not null).Select(m => (m.Account, Id: m.Replaces!));
        var retractions = events.OfType<RelayEvent.Retraction>().Select(r => (r.Account, Id: r.Of)).ToList();
        var since = IdSequence.First(now - AgeMax);
        await ReadAsync(
            [.. corrections, .. retractions],
            byMessage,
            (accounts, ids) => db.Set<Delivery>().Where(d => accounts.Contains(d.Account) && ids.Contains(d.MessageId!) && d.Id >= since),
            d => d.MessageId,
            cancellationToken
        );
        await ReadAsync(
            retractions,
            byStanza,
            (accounts, ids) => db.Set<Delivery>().Where(d => accounts.Contains(d.Account) && ids.Contains(d.StanzaId!) && d.Id >= since),
            d => d.StanzaId,
            cancellationToken
        );
        // a call rings for minutes at most
        var recent = IdSequence.First(now - TimeSpan.FromHours(1));
        await ReadAsync(
            [.. events.OfType<RelayEvent.Message>().Where(IsEndOfCall).Select(m => (m.Account, Id: m.CallId!))],
            byCall,
            (accounts, ids) =>
                db.Set<Delivery>()
                    .Where(d => accounts.Contains(d.Account) && d.Id >= recent && d.Class == EventClass.Call && ids.Contains(d.CallId!)),
            d => d.CallId,
            cancellationToken
        );
    }

    /// <summary>The newest row of each device for the message that this one corrects.</summary>
    public IReadOnlyList<Target> Of(RelayEvent.Message correction, string? author) =>
        Newest(
            Find(byMessage, correction.Account, correction.Replaces!, d => d.MessageId)
                .Where(t => t.Row.Conversation == correction.From && t.Row.Author == author)
        );

    /// <summary>The same for a withdrawal.</summary>
    public IReadOnlyList<Target> Of(RelayEvent.Retraction retraction, string? author)
    {
        bool MayWithdraw(Target target) => target.Row.Conversation == retraction.From && (retraction.ByRoom || target.Row.Author == author);

        var found = retraction.OfStanza
            ? Newest(Find(byStanza, retraction.Account, retraction.Of, d => d.StanzaId).Where(MayWithdraw))
            : [];
        return found.Count > 0 ? found : Newest(Find(byMessage, retraction.Account, retraction.Of, d => d.MessageId).Where(MayWithdraw));
    }

    /// <summary>The rows of a call that has ended.</summary>
    public IReadOnlyList<Target> OfCall(RelayEvent.Message ended) =>
        Newest(
            Find(byCall, ended.Account, ended.CallId!, d => d.CallId)
                .Where(t => t.Row.Class == EventClass.Call && (t.Row.Sender == ended.From || ended.From == ended.Account))
        );

    /// <summary>
    /// The collapse key of the alert that shows this row's text; null: no alert shows it, because it was never accepted or a later
    /// message's text replaced it.
    /// </summary>
    public async Task<string?> CollapseKeyOfShownAsync(Delivery row, CancellationToken cancellationToken)
    {
        switch (row.State)
        {
            case DeliveryState.Sending:
            case DeliveryState.Accepted or DeliveryState.Received or DeliveryState.Opened when row.Count == 1:
                return row.CollapseId;
            case DeliveryState.Coalesced when row.CoalescedInto is { } head && looks++ < LooksMax:
                var later = await db.Set<Delivery>()
                    .AnyAsync(
                        d => d.Account == row.Account && d.Id > row.Id && d.CoalescedInto == head && d.State == DeliveryState.Coalesced,
                        cancellationToken
                    );
                return later
                    ? null
                    : (await db.Set<Delivery>().AsNoTracking().SingleOrDefaultAsync(d => d.Id == head, cancellationToken))?.CollapseId;
            default:
                return null;
        }
    }

    /// <summary>How many later messages of its conversation were alerted on this device; counted up to <paramref name="max"/>.</summary>
    public async Task<int> LaterAsync(Delivery row, int max, CancellationToken cancellationToken)
    {
        var own = made.Count(d => d.DeviceKey == row.DeviceKey && d.Conversation == row.Conversation && d.Id > row.Id && d.IsCounted);
        return looks++ < LooksMax
            ? own
                + await db.Set<Delivery>()
                    .Where(d => d.Account == row.Account && d.Id > row.Id && d.DeviceKey == row.DeviceKey)
                    .Where(d => d.Conversation == row.Conversation && d.Reason != Reasons.Update && d.Class != EventClass.Call)
                    .Take(max)
                    .CountAsync(cancellationToken)
            : max;
    }

    /// <summary>The newest delivery of this conversation for each device that was alerted of it lately.</summary>
    public async Task<IReadOnlyList<Delivery>> AlertedAsync(string account, string conversation, CancellationToken cancellationToken) =>
        looks++ >= LooksMax
            ? []
            :
            [
                .. (
                    await db.Set<Delivery>()
                        .AsNoTracking()
                        .Where(d => d.Account == account)
                        .OrderByDescending(d => d.Id)
                        .Take(RecentRowsMax)
                        .Where(d =>
                            d.Conversation == conversation
                            && d.Reason != Reasons.Update
                            && (
                                d.State == DeliveryState.Accepted
                                || d.State == DeliveryState.Received
                                || d.State == DeliveryState.Opened
                                || d.State == DeliveryState.Coalesced
                            )
                        )
                        .ToListAsync(cancellationToken)
                )
                    .GroupBy(d => d.DeviceKey)
                    .Select(device => device.MaxBy(d => d.Id)!),
            ];

    private static bool IsEndOfCall(RelayEvent.Message message) =>
        message is { Class: EventClass.CallEnded, CallId: not null, Ended: not null };

    private static async Task ReadAsync(
        IReadOnlyCollection<(string Account, string Id)> keys,
        Dictionary<(string Account, string Id), List<Delivery>> into,
        Func<List<string>, List<string>, IQueryable<Delivery>> rows,
        Func<Delivery, string?> idOf,
        CancellationToken cancellationToken
    )
    {
        foreach (var some in keys.Distinct().Chunk(RelayDb.ParametersMax / 2))
        {
            var accounts = some.Select(k => k.Account).Distinct().ToList();
            var ids = some.Select(k => k.Id).Distinct().ToList();
            foreach (
                var row in await rows(accounts, ids)
                    .AsNoTracking()
                    .Where(d => d.Device != null && d.Reason != Reasons.Update)
                    .OrderByDescending(d => d.Id)
                    .Take(RowsMax)
                    .ToListAsync(cancellationToken)
            )
            {
                var key = (row.Account, idOf(row)!);
                if (!into.TryGetValue(key, out var list))
                {
                    into[key] = list = [];
                }

                list.Add(row);
            }
        }
    }

    private IEnumerable<Target> Find(
        Dictionary<(string Account, string Id), List<Delivery>> stored,
        string account,
        string id,
        Func<Delivery, string?> idOf
    ) =>
        made.Where(d => d.Account == account && idOf(d) == id && d.Device is not null && d.Reason != Reasons.Update)
            .Select(d => new Target(d, true))
            .Concat(stored.GetValueOrDefault((account, id), []).Select(d => new Target(d, false)));

    private static List<Target> Newest(IEnumerable<Target> targets) =>
        [.. targets.GroupBy(t => t.Row.DeviceKey).Select(device => device.MaxBy(t => t.Row.Id)!)];
}
