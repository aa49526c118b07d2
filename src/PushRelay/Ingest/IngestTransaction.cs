using System.Linq.Expressions;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>
/// Applies the events of one database transaction: makes a row for each device, and cancels or clears what an event ends. Used as
/// <see cref="EventIngest"/> shows: <see cref="LoadAsync"/>, <see cref="ApplyAsync"/> for each event in its order,
/// <see cref="WriteAsync"/>.
/// </summary>
internal sealed class IngestTransaction(
    RelayDb db,
    DateTimeOffset now,
    OutboxQueue outbox,
    DeviceRegistry registry,
    AccountTokens tokens,
    DeliveryFactory factory,
    PushNetworks networks,
    ReadPushes readPushes,
    AppCatalog apps,
    AlertPacer.Plan pace,
    AlertPacer.Plan wakes,
    AlertsOptions options
)
{
    // what the events need to know, read once for all of them
    private ILookup<string, Device> devices = null!;
    private UnreadCounts unread = null!;

    /// <summary>Accounts with pending or sending rows of earlier transactions: only those have something to cancel.</summary>
    private IReadOnlySet<string> accountsWithAlerts = null!;

    // what the events make
    private readonly List<Delivery> rows = [];
    private readonly HashSet<Guid> mayHaveWaiting = [];
    private readonly HashSet<string> removedAccounts = new(StringComparer.Ordinal);
    private readonly WithheldAlerts withheld = new(db, now);
    private FollowUps followUps = null!;

    /// <summary>Reads what these events need: devices, unread counts, and who has alerts that they may cancel.</summary>
    public async Task LoadAsync(IReadOnlyList<RelayEvent> events, CancellationToken cancellationToken)
    {
        var accounts = AccountsOf(events);
        devices = await registry.OfAccountsAsync(db, accounts, cancellationToken);
        unread = await UnreadCounts.OfAsync(db, accounts, cancellationToken);
        accountsWithAlerts = await OutboxQueue.PendingOfAsync(db, AccountsOf(events.Where(MayCancel)), cancellationToken);
        await withheld.LoadAsync(events.OfType<RelayEvent.Message>(), cancellationToken);
        followUps = new FollowUps(db, now, rows);
        await followUps.LoadAsync(events, cancellationToken);
    }

    /// <summary>Decides what follows from one event. Rows and counts are only written by <see cref="WriteAsync"/>.</summary>
    public Task ApplyAsync(RelayEvent @event, CancellationToken cancellationToken)
    {
        switch (@event)
        {
            case RelayEvent.Message { Class: EventClass.CallEnded } ended:
                return EndCallAsync(ended, cancellationToken);
            case RelayEvent.Message { Unacked: true } message:
                return AlertUnackedAsync(message, cancellationToken);
            case RelayEvent.Message { Class: EventClass.Subscribe } when !options.Subscriptions:
                return Task.CompletedTask;
            case RelayEvent.Message { Replaces: not null } correction:
                return CorrectAsync(correction, cancellationToken);
            case RelayEvent.Message message:
                Alert(message, [.. DevicesOf(message)]);
                return Task.CompletedTask;
            case RelayEvent.Retraction retraction:
                return RetractAsync(retraction, cancellationToken);
            case RelayEvent.Blocked blocked:
                return CancelAsync(
                    blocked.Account,
                    row => row.Conversation == blocked.Jid,
                    row => row.Account == blocked.Account && row.Conversation == blocked.Jid,
                    Reasons.Blocked,
                    cancellationToken
                );
            case RelayEvent.Displayed displayed:
                return ReadAsync(displayed, cancellationToken);
            case RelayEvent.AccountDisabled disabled:
                return DisableAsync(disabled, cancellationToken);
            case RelayEvent.PresenceChanged changed:
                return ApplyPresenceAsync(changed.Change, cancellationToken);
            case RelayEvent.AccountRemoved removed:
                return RemoveAccountAsync(removed.Account, cancellationToken);
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    /// <summary>The rows that are written as ended: withheld, or cancelled by a later event of this transaction.</summary>
    public IEnumerable<Delivery> Ended => rows.Where(r => r.State is DeliveryState.Suppressed or DeliveryState.Cancelled);

    /// <summary>Writes counts and rows: the last thing before the commit.</summary>
    /// <param name="claim">False: another node claimed an ordering key at the same moment; leave all to the claims.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    public async Task<AppendedRows> WriteAsync(bool claim, CancellationToken cancellationToken)
    {
        await db.SaveChangesAsync(cancellationToken);
        await unread.SaveAsync(db, cancellationToken);
        var appended = await outbox.AppendAsync(db, rows, claim, now, cancellationToken);
        try
        {
            foreach (
                var key in rows.Where(r => r.State == DeliveryState.Pending && mayHaveWaiting.Contains(r.DeviceKey))
                    .GroupBy(r => (r.DeviceKey, r.OrderingKey))
            )
            {
                await OutboxQueue.BringForwardAsync(db, key.Key.DeviceKey, key.Key.OrderingKey, key.Min(r => r.DueAt), cancellationToken);
            }
        }
        catch
        {
            appended.Dispose();
            throw;
        }

        return appended;
    }

    private static List<string> AccountsOf(IEnumerable<RelayEvent> events) =>
        [.. events.Select(e => e.Account).Distinct(StringComparer.Ordinal)];

    private static bool MayCancel(RelayEvent @event) =>
        @event
            is RelayEvent.Displayed
                or RelayEvent.AccountRemoved
                or RelayEvent.AccountDisabled { IsDisabled: true }
                or RelayEvent.Retraction
                or RelayEvent.Blocked
                or RelayEvent.PresenceChanged { Change.CameToFront.IsEmpty: false }
                or RelayEvent.Message { Class: EventClass.CallEnded };

    private IEnumerable<Device> DevicesOf(string account) => removedAccounts.Contains(account) ? [] : devices[account];

    private IEnumerable<Device> DevicesOf(RelayEvent.Message message) =>
        DevicesOf(message.Account)
            .Where(d =>
                (message.OnlyDevice is null || d.Key == message.OnlyDevice) && (message.OnlyApp is null || d.App == message.OnlyApp)
            );

    /// <summary>A row for each of these devices; where there is none, one that says so.</summary>
    private void Alert(RelayEvent.Message message, List<Device> to)
    {
        var deliveries = factory.Of(message, now);
        if (to.Count == 0)
        {
            rows.Add(deliveries.ToNobody(PushSituation.Of(message, null, now, factory.TimeToLive(message.Class))));
            return;
        }

        // a message that is repeated was counted the first time; a call is no message; what did not come from the server's module is
        // not marked as read by it either
        if (!message.Unacked && message.Source == EventSource.Bridge && message.Class != EventClass.Call)
        {
            unread.Add(message.Account, message.From);
        }

        foreach (var device in to)
        {
            // 0 would clear the badge and all notifications
            var badge =
                message.Class is EventClass.Badge
                    ? message.Badge ?? 0
                    : Math.Max(1, message.Badge ?? unread.Sum(message.Account, device.Preferences?.Muted));
            var situation = PushSituation.Of(message, device, now, factory.TimeToLive(message.Class)) with
            {
                WakeupsOff = message.Class is EventClass.Wakeup or EventClass.Badge && !MayBeWoken(device, message.Class),
            };
            var decision = PushPolicy.Decide(situation, options);
            if (Wait(message, device, decision, deliveries.OrderingKey) is not { } wait)
            {
                // a wake-up that already waits says the same
                continue;
            }

            var row = deliveries.To(device, decision, situation, wait, badge);
            rows.Add(row);
            withheld.Add(message, row);
            if (MayHaveWaiting(device))
            {
                mayHaveWaiting.Add(device.Key);
            }
        }
    }

    private bool MayBeWoken(Device device, EventClass @class) =>
        @class == EventClass.Badge
            ? networks.TakesWakeups(device.Platform)
            : WakeupsOf(device) switch
            {
                Wakeups.Alert => true,
                Wakeups.Background => networks.TakesWakeups(device.Platform),
                Wakeups.None => false,
            };

    private Wakeups WakeupsOf(Device device) => apps.Find(device.App)?.Alert.Wakeups ?? Wakeups.None;

    /// <summary>How long from now the alert is due; null: one that already waits says the same.</summary>
    private TimeSpan? Wait(RelayEvent.Message message, Device device, PushDecision decision, Guid orderingKey) =>
        decision switch
        {
            PushDecision.Alert when message.Class == EventClass.Wakeup && WakeupsOf(device) == Wakeups.Background => wakes.NextOrWaiting(
                device.Key,
                orderingKey
            )
                is (var wait, false)
                ? wait
                : null,
            PushDecision.Alert { Delay.Ticks: > 0 } alert => alert.Delay,
            // a call rings now or never
            PushDecision.Alert when message.Class != EventClass.Call => pace.Next(device.Key, orderingKey),
            _ => TimeSpan.Zero,
        };

    /// <summary>A row of the device may be pending with a due time ahead that no attempt has put there.</summary>
    private bool MayHaveWaiting(Device device) =>
        options.BackgroundGrace > TimeSpan.Zero
        || (device.Resource is not null && options.OtherDeviceForeground == OtherDeviceForeground.Delay);

    /// <summary>Only the devices that this message was withheld from because its reader seemed to be in front.</summary>
    private async Task AlertUnackedAsync(RelayEvent.Message message, CancellationToken cancellationToken)
    {
        var devicesWithheld = await withheld.DevicesOfAsync(message, cancellationToken);
        var again = DevicesOf(message).Where(d => devicesWithheld.Contains(d.Key)).ToList();
        if (again.Count > 0)
        {
            Alert(message, again);
        }
    }

    /// <summary>
    /// A corrected text takes the place of the one before: in a row that was not sent yet, or by a row that follows the alert. Where the
    /// message was withheld there is nothing to correct; one that is not known alerts as any other.
    /// </summary>
    private async Task CorrectAsync(RelayEvent.Message correction, CancellationToken cancellationToken)
    {
        var author = factory.AuthorOf(correction.Account, correction.From, correction.Type, correction.Content.Nick);
        var targets = followUps.Of(correction, author);
        if (targets.Count == 0)
        {
            Alert(correction, [.. DevicesOf(correction)]);
            return;
        }

        foreach (var (row, isMade) in targets)
        {
            var content = correction.Content;
            if (row.State == DeliveryState.Pending && isMade)
            {
                (row.Clear, row.Content) = (content, factory.Seal(content, row.Id));
            }
            else if (
                row.State != DeliveryState.Pending
                || !await OutboxQueue.ReplaceTextAsync(db, row, factory.Seal(content, row.Id), cancellationToken)
            )
            {
                await FollowAsync(row, correction.Key, content, cancellationToken);
            }
        }
    }

    /// <summary>A withdrawn message that was not sent yet is not sent; its alert, if there is one, says that it was withdrawn.</summary>
    private async Task RetractAsync(RelayEvent.Retraction retraction, CancellationToken cancellationToken)
    {
        var type = retraction.Nick is null ? "chat" : "groupchat";
        var targets = followUps.Of(retraction, factory.AuthorOf(retraction.Account, retraction.From, type, retraction.Nick));
        if (targets.Count == 0)
        {
            return;
        }

        var unreadCount = unread.Count(retraction.Account, retraction.From);
        if (unreadCount > 0 && await followUps.LaterAsync(targets[0].Row, unreadCount, cancellationToken) < unreadCount)
        {
            unread.Remove(retraction.Account, retraction.From);
        }

        var ids = targets.Select(t => t.Row.Id).ToHashSet();
        await CancelAsync(
            retraction.Account,
            row => ids.Contains(row.Id),
            row => ids.Contains(row.Id),
            Reasons.Retracted,
            cancellationToken
        );
        foreach (var target in targets.Where(t => t.Row.State != DeliveryState.Pending))
        {
            await FollowAsync(
                target.Row,
                $"{target.Row.Id:N}:retracted",
                new AlertContent { FollowUp = FollowUpKind.Retracted },
                cancellationToken
            );
        }
    }

    /// <summary>A row that takes the place of this row's alert, if the alert shows its text.</summary>
    private async Task FollowAsync(Delivery original, string key, AlertContent content, CancellationToken cancellationToken)
    {
        if (
            DevicesOf(original.Account).FirstOrDefault(d => d.Key == original.DeviceKey) is { Status: DeviceStatus.Active } device
            && networks.TakesFollowUps(device.Platform, device.App)
            && await followUps.CollapseKeyOfShownAsync(original, cancellationToken) is { } collapseKey
        )
        {
            // an alert that is being sent may be refused: then nothing has to follow it
            content = original.State == DeliveryState.Sending ? content with { After = original.Id } : content;
            rows.Add(factory.FollowUp(original, collapseKey, key, content, unread.Sum(original.Account, device.Preferences?.Muted), now));
        }
    }

    /// <summary>
    /// Ended by the caller, or answered or refused by the account itself on another device: no one else who knows the id can end it. On
    /// devices that rang, the alert is replaced by a missed call or removed.
    /// </summary>
    private async Task EndCallAsync(RelayEvent.Message ended, CancellationToken cancellationToken)
    {
        if (ended.CallId is null)
        {
            return;
        }

        var rang = followUps.OfCall(ended);
        await CancelAsync(
            ended.Account,
            row => row.Class == EventClass.Call && row.CallId == ended.CallId && (row.Sender == ended.From || ended.From == ended.Account),
            row =>
                row.Account == ended.Account
                && row.Class == EventClass.Call
                && row.CallId == ended.CallId
                && (row.Sender == ended.From || ended.From == ended.Account),
            Reasons.CallEnded,
            cancellationToken
        );
        FollowUpKind? becomes = ended.Ended switch
        {
            "retracted" => FollowUpKind.MissedCall,
            "answered" or "rejected" => FollowUpKind.Read,
            _ => null,
        };
        foreach (var target in becomes is null ? [] : rang.Where(t => t.Row.State != DeliveryState.Pending))
        {
            await FollowAsync(
                target.Row,
                $"{target.Row.Id:N}:ended",
                new AlertContent { FollowUp = becomes, Name = ended.Content.Name },
                cancellationToken
            );
        }
    }

    private async Task ApplyPresenceAsync(PresenceChange change, CancellationToken cancellationToken)
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
            unread.Clear(change.Account);
        }
    }

    /// <summary>The conversation raises no more alerts; a device that was alerted gets a silent push that says so.</summary>
    private async Task ReadAsync(RelayEvent.Displayed displayed, CancellationToken cancellationToken)
    {
        var (account, with) = (displayed.Account, displayed.With);
        var wasUnread = unread.Count(account, with) > 0;
        if (wasUnread)
        {
            // bounded by the messages: a client can repeat its marks as often as it likes
            db.Add(
                new HistoryEntry
                {
                    Id = factory.NewId(now),
                    Server = ServedAccounts.ServerOf(account),
                    Account = account,
                    Kind = HistoryKind.Displayed,
                    At = now,
                    Data = new HistoryData { With = with }.ToJson(),
                }
            );
        }

        unread.Clear(account, with);
        await CancelAsync(
            account,
            // but not the push that says so
            row => row.Conversation == with && !row.EventKey.EndsWith(DeliveryFactory.ReadKey, StringComparison.Ordinal),
            row => row.Account == account && row.Conversation == with && !EF.Functions.Like(row.EventKey, "%" + DeliveryFactory.ReadKey),
            Reasons.ReadElsewhere,
            cancellationToken
        );
        if (!wasUnread || options.ReadElsewhere == ReadElsewhere.None)
        {
            return;
        }

        foreach (var alerted in await followUps.AlertedAsync(account, with, cancellationToken))
        {
            if (
                DevicesOf(account).FirstOrDefault(d => d.Key == alerted.DeviceKey) is { Status: DeviceStatus.Active } device
                && networks.TakesFollowUps(device.Platform, device.App)
                // the device that reads needs no push
                && !(device.Resource is { } resource && displayed.Presence.InFront(resource))
            )
            {
                rows.Add(factory.Read(alerted, unread.Sum(account, device.Preferences?.Muted), now, readPushes.Next(device.Key, now)));
            }
        }
    }

    private async Task DisableAsync(RelayEvent.AccountDisabled disabled, CancellationToken cancellationToken)
    {
        await registry.DisableAccountAsync(db, disabled.Account, disabled.IsDisabled, cancellationToken);
        foreach (var device in DevicesOf(disabled.Account))
        {
            device.AccountDisabled = disabled.IsDisabled;
        }

        if (disabled.IsDisabled)
        {
            await CancelAsync(
                disabled.Account,
                _ => true,
                row => row.Account == disabled.Account,
                Reasons.AccountDisabled,
                cancellationToken
            );
        }
    }

    private async Task RemoveAccountAsync(string account, CancellationToken cancellationToken)
    {
        await CancelAsync(account, _ => true, row => row.Account == account, Reasons.AccountRemoved, cancellationToken);
        await registry.RemoveAccountAsync(db, account, cancellationToken);
        await tokens.RemoveAccountAsync(db, account, cancellationToken);
        removedAccounts.Add(account);
        unread.Clear(account);
    }

    /// <summary>Cancels what is pending of the account: this transaction's own rows so far, and those of earlier ones.</summary>
    /// <param name="account">Whose.</param>
    /// <param name="which">Which of this transaction's rows of the account.</param>
    /// <param name="stored">The same of the stored rows, with the account.</param>
    /// <param name="reason">Of <see cref="Reasons"/>.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    private async Task CancelAsync(
        string account,
        Func<Delivery, bool> which,
        Expression<Func<Delivery, bool>> stored,
        string reason,
        CancellationToken cancellationToken
    )
    {
        foreach (var row in rows.Where(row => row.State == DeliveryState.Pending && row.Account == account && which(row)))
        {
            Transitions.Cancel(row, reason, now);
        }

        if (accountsWithAlerts.Contains(account))
        {
            await outbox.CancelAsync(db, stored, reason, cancellationToken);
            withheld.Changed(account);
        }
    }
}
