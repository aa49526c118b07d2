using System.Linq.Expressions;
using Microsoft.EntityFrameworkCore;
using PushRelay.Devices;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>Writes one transaction's events into the ledger, in their order: a row per device, or what the event cancels and
/// clears.</summary>
internal sealed class IngestTransaction(
    RelayDb db,
    DateTimeOffset now,
    OutboxQueue outbox,
    DeviceRegistry registry,
    MasterKey masterKey,
    IdSequence sequence,
    AlertsOptions options
)
{
    private static readonly TimeSpan UnackedMax = TimeSpan.FromHours(1);

    /// <summary>What says it is older counts as this old: a server keeps its events for ten minutes at most by default.</summary>
    private static readonly TimeSpan EventAgeMax = TimeSpan.FromMinutes(15);

    private readonly List<Delivery> fresh = [];
    private readonly HashSet<Guid> mayHaveWaiting = [];
    private readonly HashSet<string> removedAccounts = new(StringComparer.Ordinal);

    public required ILookup<string, Device> Devices { get; init; }

    public required UnreadCounts Unread { get; init; }

    /// <summary>Accounts with pending rows from before: only those have something to cancel.</summary>
    public required IReadOnlySet<string> Pending { get; init; }

    public required AlertPacer.Turn Pace { get; init; }

    public Task WriteAsync(RelayEvent @event, CancellationToken cancellationToken)
    {
        switch (@event)
        {
            case RelayEvent.Message { Class: EventClass.CallEnded } ended:
                return EndCallAsync(ended, cancellationToken);
            case RelayEvent.Message { Unacked: true } message:
                return AlertUnackedAsync(message, cancellationToken);
            case RelayEvent.Message message:
                Alert(message, DevicesOf(message.Account), Count(message));
                return Task.CompletedTask;
            case RelayEvent.Displayed displayed:
                Unread.Clear(displayed.Account, displayed.With);
                return CancelAsync(
                    displayed.Account,
                    row => row.Conversation == displayed.With,
                    row => row.Account == displayed.Account && row.Conversation == displayed.With,
                    Reasons.ReadElsewhere,
                    cancellationToken
                );
            case RelayEvent.PresenceChanged changed:
                return FollowAsync(changed.Change, cancellationToken);
            case RelayEvent.AccountRemoved removed:
                return RemoveAsync(removed.Account, cancellationToken);
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    /// <summary>The last thing before the commit.</summary>
    /// <param name="claim">False: an ordering key was claimed by another node at the same moment; leave all to the claims.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    public async Task<AppendedRows> FinishAsync(bool claim, CancellationToken cancellationToken)
    {
        await Unread.SaveAsync(db, cancellationToken);
        var appended = await outbox.AppendAsync(db, fresh, claim, now, cancellationToken);
        try
        {
            foreach (
                var key in fresh
                    .Where(r => r.State == DeliveryState.Pending && mayHaveWaiting.Contains(r.DeviceKey))
                    .GroupBy(r => (r.DeviceKey, r.OrderingKey))
            )
            {
                await OutboxQueue.HastenAsync(db, key.Key.DeviceKey, key.Key.OrderingKey, key.Min(r => r.DueAt), cancellationToken);
            }
        }
        catch
        {
            outbox.TakeBack(appended);
            throw;
        }

        return appended;
    }

    private IEnumerable<Device> DevicesOf(string account) => removedAccounts.Contains(account) ? [] : Devices[account];

    private void Alert(RelayEvent.Message message, IEnumerable<Device> devices, int badge)
    {
        var none = true;
        foreach (var device in devices)
        {
            none = false;
            var decision = PushPolicy.Decide(
                new PushSituation
                {
                    Class = message.Class,
                    Account = message.Presence.State,
                    DeviceValid = device.Status == DeviceStatus.Active,
                    Muted = device.Preferences?.IsMuted(message.From) == true,
                    QuietHours = device.Preferences?.QuietHours?.Contains(now) == true,
                    DeviceTied = device.Resource is not null,
                    OwnSessionInFront = device.Resource is not null && message.Presence.InFront(device.Resource),
                    Unacked = message.Unacked,
                },
                options
            );
            fresh.Add(Row(message, device, decision, badge));
            if (MayHaveWaiting(device))
            {
                mayHaveWaiting.Add(device.Key);
            }
        }

        if (none && !message.Unacked)
        {
            fresh.Add(Row(message, null, new PushDecision.Suppress(Reasons.NoDevice), 0));
        }
    }

    /// <summary>A row of the device may be pending with a due time ahead, that no attempt has put there.</summary>
    private bool MayHaveWaiting(Device device) =>
        options.BackgroundGrace > TimeSpan.Zero
        || (device.Resource is not null && options.OtherDeviceForeground == OtherDeviceForeground.Delay);

    /// <summary>Of the caller, or answered or refused by the account itself on another device: somebody else who knows the id ends
    /// nothing.</summary>
    private Task EndCallAsync(RelayEvent.Message ended, CancellationToken cancellationToken) =>
        ended.CallId is null
            ? Task.CompletedTask
            : CancelAsync(
                ended.Account,
                row =>
                    row.Class == EventClass.Call && row.CallId == ended.CallId && (row.Sender == ended.From || ended.From == ended.Account),
                row =>
                    row.Account == ended.Account
                    && row.Class == EventClass.Call
                    && row.CallId == ended.CallId
                    && (row.Sender == ended.From || ended.From == ended.Account),
                Reasons.CallEnded,
                cancellationToken
            );

    /// <summary>Only the devices that this message was withheld from because its reader seemed to look.</summary>
    private async Task AlertUnackedAsync(RelayEvent.Message message, CancellationToken cancellationToken)
    {
        if (message.StanzaId is null && message.Id is null)
        {
            return;
        }

        var since = now - UnackedMax;
        var same = db.Set<Delivery>()
            .AsNoTracking()
            .Where(d => d.Account == message.Account && d.CreatedAt >= since && d.DeviceKey != Guid.Empty);
        same = message.StanzaId is not null
            ? same.Where(d => d.StanzaId == message.StanzaId)
            : same.Where(d => d.Sender == message.From && d.MessageId == message.Id);
        var rows = await same.Select(d => new
            {
                d.DeviceKey,
                d.State,
                d.Reason,
            })
            .ToListAsync(cancellationToken);
        rows.AddRange(
            fresh
                .Where(d =>
                    d.Account == message.Account
                    && d.DeviceKey != Guid.Empty
                    && (
                        message.StanzaId is not null
                            ? d.StanzaId == message.StanzaId
                            : d.Sender == message.From && d.MessageId == message.Id
                    )
                )
                .Select(d => new
                {
                    d.DeviceKey,
                    d.State,
                    d.Reason,
                })
        );
        var withheld = rows.GroupBy(r => r.DeviceKey)
            .Where(g => g.All(r => r.State is DeliveryState.Suppressed or DeliveryState.Cancelled && r.Reason == Reasons.Foreground))
            .Select(g => g.Key)
            .ToHashSet();
        Alert(message, DevicesOf(message.Account).Where(d => withheld.Contains(d.Key)), Badge(message.Account));
    }

    private async Task FollowAsync(PresenceChange change, CancellationToken cancellationToken)
    {
        if (!change.CameToFront.IsEmpty)
        {
            var seen = DevicesOf(change.Account)
                .Where(d => d.Resource is null || change.CameToFront.Contains(d.Resource))
                .Select(d => d.Key)
                .ToList();
            if (seen.Count > 0)
            {
                await CancelAsync(
                    change.Account,
                    row => seen.Contains(row.DeviceKey),
                    row => row.Account == change.Account && seen.Contains(row.DeviceKey),
                    Reasons.Foreground,
                    cancellationToken
                );
            }
        }

        if (change.LeftForeground)
        {
            Unread.Clear(change.Account);
        }
    }

    private async Task RemoveAsync(string account, CancellationToken cancellationToken)
    {
        await CancelAsync(account, _ => true, row => row.Account == account, Reasons.AccountRemoved, cancellationToken);
        await registry.RemoveAccountAsync(db, account, cancellationToken);
        removedAccounts.Add(account);
        Unread.Clear(account);
    }

    /// <summary>Of the account: the rows of this transaction, which came before the event, and those of earlier ones.</summary>
    private async Task CancelAsync(
        string account,
        Func<Delivery, bool> whichFresh,
        Expression<Func<Delivery, bool>> which,
        string reason,
        CancellationToken cancellationToken
    )
    {
        foreach (var row in fresh.Where(row => row.State == DeliveryState.Pending && row.Account == account && whichFresh(row)))
        {
            (row.State, row.Reason, row.SettledAt, row.Content) = (DeliveryState.Cancelled, reason, now, null);
        }

        if (Pending.Contains(account))
        {
            await outbox.CancelAsync(db, which, reason, cancellationToken);
        }
    }

    private int Count(RelayEvent.Message message)
    {
        // without a device nobody has a badge, and who writes is not kept
        if (!DevicesOf(message.Account).Any())
        {
            return 0;
        }

        Unread.Add(message.Account, message.From);
        return Badge(message.Account);
    }

    // 0 would clear the badge and all notifications
    private int Badge(string account) => Math.Max(1, Unread.Sum(account));

    private Delivery Row(RelayEvent.Message message, Device? device, PushDecision decision, int badge)
    {
        var id = sequence.Next(now);
        var alert = decision as PushDecision.Alert;
        var content = alert is null ? null : new AlertContent(message.Body, message.Nick);
        var key = device is null ? Guid.Empty : OrderingKey(message);
        // by the database's clock: this node's may be wrong, and a call rings for half a minute
        var at =
            message.At > now ? now
            : message.At < now - EventAgeMax ? now - EventAgeMax
            : message.At;
        return new Delivery
        {
            Id = id,
            Server = message.Account[(message.Account.IndexOf('@', StringComparison.Ordinal) + 1)..],
            Account = message.Account,
            DeviceKey = device?.Key ?? Guid.Empty,
            Device = device?.Id,
            App = device?.App,
            Platform = device?.Platform,
            Lane = device?.Lane,
            EventKey = message.Key,
            Source = message.Source,
            Class = message.Class,
            // who wrote to somebody without a device is nobody's business
            Sender = device is null ? null : message.From,
            Conversation = device is null ? null : message.From,
            MessageId = message.Id,
            StanzaId = message.StanzaId,
            EventAt = at,
            MessageType = message.Type,
            CallId = message.CallId,
            OrderingKey = key,
            Content = content?.Seal(masterKey, id),
            Clear = content,
            Badge = badge,
            State = alert is null ? DeliveryState.Suppressed : DeliveryState.Pending,
            Reason = decision.Reason,
            CreatedAt = now,
            DueAt = alert switch
            {
                { Delay.Ticks: > 0 } => now + alert.Delay,
                // it rings now or never
                not null when message.Class != EventClass.Call => now + Pace.Next(device!.Key, key),
                _ => now,
            },
            ExpiresAt = at + (message.Class == EventClass.Call ? options.CallTimeToLive : options.TimeToLive),
            SettledAt = alert is null ? now : null,
        };
    }

    private Guid OrderingKey(RelayEvent.Message message) =>
        new(
            message.Class == EventClass.Call
                ? masterKey.Mac("call", message.Account, message.From, message.CallId ?? message.Key).AsSpan(0, 16)
                : masterKey.Mac("conversation", message.Account, message.From).AsSpan(0, 16)
        );
}
