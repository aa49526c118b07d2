using System.Linq.Expressions;
using Microsoft.EntityFrameworkCore;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Decision;

/// <summary>Writes one transaction's events into the ledger, in their order: a row per device, or what the event cancels and clears.</summary>
internal sealed class LedgerEntry(
    RelayDb db, DateTimeOffset now, OutboxQueue outbox, DeviceRegistry registry, MasterKey masterKey, Sequence sequence, AlertsOptions options)
{
    private const int ConversationsMax = 500;

    private readonly List<Delivery> fresh = [];
    private readonly HashSet<string> removedAccounts = new(StringComparer.Ordinal);

    public required ILookup<string, Device> Devices { get; init; }

    public required Dictionary<string, Dictionary<string, UnreadCount>> Unread { get; init; }

    public Task WriteAsync(RelayEvent @event, CancellationToken cancellationToken) => @event switch
    {
        RelayEvent.Message { Class: EventClass.CallEnded } ended => EndCallAsync(ended, cancellationToken),
        RelayEvent.Message { Unacked: true } message => AlertUnackedAsync(message, cancellationToken),
        RelayEvent.Message message => AlertAsync(message, DevicesOf(message.Account), Count(message), cancellationToken),
        RelayEvent.Displayed displayed => ReadAsync(displayed, cancellationToken),
        RelayEvent.PresenceChanged changed => FollowAsync(changed.Change, cancellationToken),
        RelayEvent.AccountRemoved removed => RemoveAsync(removed.Account, cancellationToken),
        _ => throw new System.Diagnostics.UnreachableException(),
    };

    /// <summary>Rows that an earlier try, or another node, has committed are left out.</summary>
    public bool Careful { get; init; }

    private async Task FlushAsync(CancellationToken cancellationToken)
    {
        if (Careful && fresh.Count > 0)
        {
            var keys = fresh.Select(row => row.EventKey).Distinct(StringComparer.Ordinal).ToList();
            var there = await db.Set<Delivery>().AsNoTracking().Where(d => keys.Contains(d.EventKey))
                .Select(d => new { d.Account, d.DeviceKey, d.EventKey }).ToListAsync(cancellationToken);
            fresh.RemoveAll(row => there.Contains(new { row.Account, row.DeviceKey, row.EventKey }));
        }

        await OutboxQueue.AppendAsync(db, fresh, cancellationToken);
        fresh.Clear();
    }

    private IEnumerable<Device> DevicesOf(string account) => removedAccounts.Contains(account) ? [] : Devices[account];

    /// <summary>The last thing before the commit: counts that came to nothing go.</summary>
    public async Task FinishAsync(CancellationToken cancellationToken)
    {
        db.RemoveRange(Unread.Values.SelectMany(counts => counts.Values).Where(count => count.Count == 0));
        await FlushAsync(cancellationToken);
    }

    private async Task AlertAsync(RelayEvent.Message message, IEnumerable<Device> devices, int badge, CancellationToken cancellationToken)
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
                options);
            var row = Row(message, device, decision, badge);
            fresh.Add(row);
            if (decision is PushDecision.Alert { Delay.Ticks: 0 } && MayHaveWaiting(device))
            {
                await FlushAsync(cancellationToken);
                await outbox.HastenAsync(db, row.DeviceKey, row.Slot, cancellationToken);
            }
        }

        if (none && !message.Unacked)
        {
            fresh.Add(Row(message, null, new PushDecision.Suppress(Reasons.NoDevice), 0));
        }
    }

    /// <summary>A row of the device may be pending with a due time ahead, that no attempt has put there.</summary>
    private bool MayHaveWaiting(Device device) =>
        options.BackgroundGrace > TimeSpan.Zero || (device.Resource is not null && options.OtherDeviceForeground == OtherDeviceForeground.Delay);

    /// <summary>Of the caller, or answered or refused by the account itself on another device: somebody else who knows the id ends nothing.</summary>
    private Task EndCallAsync(RelayEvent.Message ended, CancellationToken cancellationToken) => ended.CallId is null
        ? Task.CompletedTask
        : CancelAsync(
            row => row.Account == ended.Account && row.Class == EventClass.Call && row.CallId == ended.CallId
                && (row.Sender == ended.From || ended.From == ended.Account),
            Reasons.CallEnded, cancellationToken);

    /// <summary>Only the devices that this message was withheld from because its reader seemed to look.</summary>
    private async Task AlertUnackedAsync(RelayEvent.Message message, CancellationToken cancellationToken)
    {
        if (message.StanzaId is null && message.Id is null)
        {
            return;
        }

        await FlushAsync(cancellationToken);
        var same = db.Set<Delivery>().AsNoTracking().Where(d => d.Account == message.Account && d.DeviceKey != Guid.Empty);
        same = message.StanzaId is not null
            ? same.Where(d => d.StanzaId == message.StanzaId)
            : same.Where(d => d.Sender == message.From && d.MessageId == message.Id);
        var rows = await same.Select(d => new { d.DeviceKey, d.State, d.Reason }).ToListAsync(cancellationToken);
        var withheld = rows.GroupBy(r => r.DeviceKey)
            .Where(g => g.All(r => r.State == DeliveryState.Suppressed && r.Reason == Reasons.Foreground))
            .Select(g => g.Key).ToHashSet();
        await AlertAsync(message, DevicesOf(message.Account).Where(d => withheld.Contains(d.Key)), Badge(message.Account), cancellationToken);
    }

    private async Task ReadAsync(RelayEvent.Displayed displayed, CancellationToken cancellationToken)
    {
        await CancelAsync(row => row.Account == displayed.Account && row.Conversation == displayed.With, Reasons.ReadElsewhere, cancellationToken);
        if (Unread.TryGetValue(displayed.Account, out var counts) && counts.TryGetValue(displayed.With, out var count))
        {
            count.Count = 0;
        }
    }

    private async Task FollowAsync(PresenceChange change, CancellationToken cancellationToken)
    {
        if (!change.CameToFront.IsEmpty)
        {
            var seen = DevicesOf(change.Account).Where(d => d.Resource is null || change.CameToFront.Contains(d.Resource)).Select(d => d.Key).ToList();
            if (seen.Count > 0)
            {
                await CancelAsync(row => row.Account == change.Account && seen.Contains(row.DeviceKey), Reasons.Foreground, cancellationToken);
            }
        }

        if (change.LeftForeground && Unread.TryGetValue(change.Account, out var counts))
        {
            foreach (var count in counts.Values)
            {
                count.Count = 0;
            }
        }
    }

    private async Task RemoveAsync(string account, CancellationToken cancellationToken)
    {
        await FlushAsync(cancellationToken);
        await registry.RemoveAccountAsync(db, account, cancellationToken);
        removedAccounts.Add(account);
        if (Unread.Remove(account, out var counts))
        {
            db.RemoveRange(counts.Values);
        }
    }

    /// <summary>The rows of this transaction first: what came before the event is in the ledger when it cancels.</summary>
    private async Task CancelAsync(Expression<Func<Delivery, bool>> which, string reason, CancellationToken cancellationToken)
    {
        await FlushAsync(cancellationToken);
        await outbox.CancelAsync(db, which, reason, cancellationToken);
    }

    private int Count(RelayEvent.Message message)
    {
        // without a device nobody has a badge, and who writes is not kept
        if (!DevicesOf(message.Account).Any())
        {
            return 0;
        }

        if (!Unread.TryGetValue(message.Account, out var counts))
        {
            Unread[message.Account] = counts = new(StringComparer.Ordinal);
        }

        // beyond so many conversations the rest is counted together, until the app comes to the front
        var conversation = counts.ContainsKey(message.From) || counts.Count < ConversationsMax ? message.From : "";
        if (!counts.TryGetValue(conversation, out var count))
        {
            counts[conversation] = count = new UnreadCount { Account = message.Account, Conversation = conversation, Count = 0 };
            db.Add(count);
        }

        count.Count++;
        return Badge(message.Account);
    }

    // 0 would clear the badge and all notifications
    private int Badge(string account) => Math.Max(1, Unread.TryGetValue(account, out var counts) ? counts.Values.Sum(c => c.Count) : 0);

    private Delivery Row(RelayEvent.Message message, Device? device, PushDecision decision, int badge)
    {
        var id = sequence.Next();
        var alert = decision as PushDecision.Alert;
        return new Delivery
        {
            Id = id,
            Server = message.Account[(message.Account.IndexOf('@', StringComparison.Ordinal) + 1)..],
            Account = message.Account,
            DeviceKey = device?.Key ?? Guid.Empty,
            Device = device?.Id,
            App = device?.App,
            Platform = device?.Platform,
            EventKey = message.Key,
            Source = message.Source,
            Class = message.Class,
            // who wrote to somebody without a device is nobody's business
            Sender = device is null ? null : message.From,
            Conversation = device is null ? null : message.From,
            MessageId = message.Id,
            StanzaId = message.StanzaId,
            EventAt = message.At,
            MessageType = message.Type,
            CallId = message.CallId,
            Slot = device is null ? Guid.Empty : Slot(message),
            Content = alert is null ? null : new AlertContent(message.Body, message.Nick).Seal(masterKey, id),
            Badge = badge,
            State = alert is null ? DeliveryState.Suppressed : DeliveryState.Pending,
            Reason = decision.Reason,
            CreatedAt = now,
            DueAt = now + (alert?.Delay ?? TimeSpan.Zero),
            ExpiresAt = message.At + (message.Class == EventClass.Call ? options.CallTimeToLive : options.TimeToLive),
            SettledAt = alert is null ? now : null,
        };
    }

    private Guid Slot(RelayEvent.Message message) => new(
        message.Class == EventClass.Call
            ? masterKey.Mac("call", message.Account, message.From, message.CallId ?? message.Key).AsSpan(0, 16)
            : masterKey.Mac("conversation", message.Account, message.From).AsSpan(0, 16));
}
