using System.Buffers.Text;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Faults;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Secrets;

namespace PushRelay.Dispatch;

/// <summary>
/// Sends what is due: new rows straight from the ingest, everything else by claiming it; asks the push network, and has the outcome
/// settled. Each app has its bounds (<see cref="AppCircuits"/>); an attempt that may not end within its lease is not started; what a
/// stop interrupts is handed back.
/// </summary>
internal sealed partial class PushDispatcher(
    OutboxQueue outbox,
    DeviceRegistry registry,
    ApnsNetwork apns,
    AppCircuits circuits,
    SettlementWriter settlements,
    MasterKey masterKey,
    IOptions<DispatchOptions> options,
    TimeProvider clock,
    ILogger<PushDispatcher> logger
) : BackgroundService
{
    private const int TakenTogetherMax = 500;

    // other nodes' rows, retries and due times announce themselves to nobody; what comes due before the next look goes with this one
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);

    // what an attempt may take: connect, request and settlement
    private static readonly TimeSpan AttemptMax = TimeSpan.FromSeconds(12);

    private static readonly TimeSpan Drain = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan HandBackMax = TimeSpan.FromSeconds(2);

    private readonly SemaphoreSlim requests = new(options.Value.Concurrency);
    private bool claimFailing;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var sending = new CancellationTokenSource();
        var settling = settlements.RunAsync();
        await ForsakeAsync();
        outbox.Serve(circuits.TryEnter, circuits.Leave, options.Value.LeaseDuration);
        var claiming = ClaimAsync(sending.Token, stoppingToken);
        try
        {
            while (await outbox.Ready.WaitToReadAsync(stoppingToken))
            {
                await SendReadyAsync(sending.Token);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // what is claimed is sent or handed back
        }

        outbox.StopServing();
        await claiming;
        await SendReadyAsync(sending.Token);
        if (!await settlements.IdleAsync(Drain))
        {
            await sending.CancelAsync();
            await settlements.IdleAsync(HandBackMax);
        }

        settlements.Complete();
        await settling;
    }

    private async Task ForsakeAsync()
    {
        try
        {
            await outbox.ForsakeAsync(options.Value.MaxAttempts, options.Value.LeaseDuration, CancellationToken.None);
        }
        catch (Exception exception)
        {
            // the leases end by themselves
            ClaimFailed(exception);
        }
    }

    private async Task ClaimAsync(CancellationToken sending, CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await circuits.ShareAsync(CancellationToken.None);
                var full = await ClaimDueAsync(sending);
                claimFailing = false;
                if (!full)
                {
                    await outbox.WaitAsync(Poll, stoppingToken);
                }
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
            catch (Exception exception)
            {
                // the database is away: rows wait there, leases bring back what was claimed
                if (!claimFailing)
                {
                    claimFailing = true;
                    ClaimFailed(exception);
                }

                await Task.WhenAny(
                    Task.Delay(Poll, clock, CancellationToken.None),
                    Task.Delay(Timeout.InfiniteTimeSpan, clock, stoppingToken)
                );
            }
        }
    }

    /// <returns>There may be more, and room for it.</returns>
    private async Task<bool> ClaimDueAsync(CancellationToken sending)
    {
        var rooms = circuits.Rooms();
        if (rooms.Count == 0)
        {
            // whoever leaves wakes the next look
            outbox.Lack();
            return false;
        }

        foreach (var (lane, room) in rooms)
        {
            rooms[lane] = Math.Min(room, TakenTogetherMax);
        }

        // not cut short by a stop: what is claimed is sent or handed back
        var claimed = await outbox.ClaimAsync(rooms, options.Value.LeaseDuration, Poll, CancellationToken.None);
        circuits.Enter(claimed.Select(a => a.Head.Lane!.Value));
        await SendAsync(claimed, sending);
        return claimed.GroupBy(a => a.Head.Lane!.Value).Any(g => g.Count() == rooms[g.Key]);
    }

    private async Task SendReadyAsync(CancellationToken sending)
    {
        var alerts = new List<ClaimedAlert>();
        do
        {
            alerts.Clear();
            while (alerts.Count < TakenTogetherMax && outbox.Ready.TryRead(out var alert))
            {
                alerts.Add(alert);
            }

            await SendAsync(alerts, sending);
        } while (alerts.Count > 0);
    }

    private async Task SendAsync(IReadOnlyList<ClaimedAlert> alerts, CancellationToken sending)
    {
        if (alerts.Count == 0)
        {
            return;
        }

        Failpoint.Reach("after_claim");
        settlements.Expect(alerts.Count);
        IReadOnlyDictionary<Guid, Device>? devices = null;
        try
        {
            devices = await registry.GetAsync([.. alerts.Select(a => a.Head.DeviceKey).Distinct()], CancellationToken.None);
        }
        catch (Exception exception)
        {
            ClaimFailed(exception);
        }

        foreach (var alert in alerts)
        {
            if (devices is null)
            {
                settlements.Add(new SettledAlert(alert, new Settlement.HandBack(), null));
            }
            else
            {
                _ = TryAsync(alert, devices.GetValueOrDefault(alert.Head.DeviceKey), sending);
            }
        }
    }

    private async Task TryAsync(ClaimedAlert alert, Device? device, CancellationToken sending)
    {
        SettledAlert? settled = null;
        try
        {
            settled = await AttemptAsync(alert, device, sending);
        }
        catch (Exception exception)
        {
            // the lease brings the row back, and its attempt stays counted: a row that fails so every time ends as dead
            AttemptFailed(exception, alert.Head.Id);
        }

        if (settled is not null)
        {
            settlements.Add(settled);
        }
        else
        {
            settlements.GiveUp(alert);
        }
    }

    private async Task<SettledAlert> AttemptAsync(ClaimedAlert alert, Device? device, CancellationToken sending)
    {
        if (device is null)
        {
            return new SettledAlert(alert, new Settlement.Cancelled(Reasons.DeviceRemoved), null);
        }

        if (device.Status == DeviceStatus.Invalid)
        {
            return new SettledAlert(alert, new Settlement.Cancelled(Reasons.DeviceInvalid), null);
        }

        try
        {
            await requests.WaitAsync(sending);
        }
        catch (OperationCanceledException)
        {
            return new SettledAlert(alert, new Settlement.HandBack(), null);
        }

        try
        {
            return await RequestAsync(alert, device, sending);
        }
        finally
        {
            requests.Release();
        }
    }

    private async Task<SettledAlert> RequestAsync(ClaimedAlert alert, Device device, CancellationToken sending)
    {
        // the push network's own deadline is shorter than what must be left
        var waited = clock.GetElapsedTime(alert.ClaimedAt);
        if (
            options.Value.LeaseDuration - waited < AttemptMax
            || waited >= alert.Life
            || sending.IsCancellationRequested
            || circuits.IsShut(alert)
        )
        {
            return new SettledAlert(alert, new Settlement.HandBack(), null);
        }

        var at = clock.GetUtcNow();
        var notification = Notification(alert, device);
        PushAnswer answer;
        try
        {
            Failpoint.Reach("before_send");
            answer = await apns.SendAsync(notification, sending);
        }
        catch (OperationCanceledException) when (sending.IsCancellationRequested)
        {
            return new SettledAlert(alert, new Settlement.HandBack(), null);
        }

        if (answer.Outcome == PushOutcome.Accepted)
        {
            Failpoint.Reach("after_provider_200");
        }

        // the device's, which since the row was written may have moved to another
        answer = circuits.Observe(device.Lane, answer);
        var settlement = await JudgeAsync(alert, device, notification, answer);
        var settled = new SettledAlert(
            alert,
            settlement,
            new Attempt
            {
                DeliveryId = alert.Head.Id,
                Number = alert.Head.Attempts,
                At = at,
                DurationMs = (int)answer.Duration.TotalMilliseconds,
                Status = answer.Status,
                Code = answer.Reason is null ? null : $"{ApnsNetwork.Platform}_{answer.Reason}",
                // a token that died before it was registered here, as an old answer may say, is not believed dead
                Outcome = OutcomeName(
                    settlement is Settlement.Retry && !notification.UsesVoip && answer.Outcome == PushOutcome.DeviceInvalid
                        ? PushOutcome.Deferred
                        : answer.Outcome
                ),
                ProviderId = answer.ProviderId,
            }
        );
        Report(settled.Attempts().LastOrDefault() ?? settled.Attempt!, answer, settlement);
        return settled;
    }

    private async Task<Settlement> JudgeAsync(ClaimedAlert alert, Device device, Notification notification, PushAnswer answer)
    {
        if (answer.Outcome == PushOutcome.DeviceInvalid && notification.UsesVoip)
        {
            // the token for calls is another than the one for alerts: this call rings as an alert, and so do later ones
            await settlements.InsistAsync(() => registry.ForgetTokenAsync(device, Channels.Call, CancellationToken.None), alert);
            return new Settlement.Retry(TimeSpan.Zero, Excused: true);
        }

        var invalid = false;
        if (answer.Outcome == PushOutcome.DeviceInvalid)
        {
            await settlements.InsistAsync(
                async () =>
                    invalid = await registry.InvalidateAsync(
                        device,
                        answer.Reason ?? "unknown",
                        answer.InvalidSince,
                        CancellationToken.None
                    ),
                alert
            );
        }

        return RetryPolicy.Settle(alert.Head, answer, invalid, options.Value, Random.Shared.NextDouble());
    }

    private Notification Notification(ClaimedAlert alert, Device device)
    {
        var delivery = alert.Newest;
        var content = delivery.Clear ?? Content(delivery);
        var address = device.Address(masterKey);
        return new Notification
        {
            Id = alert.Head.Id,
            App = device.App,
            Token = address.Tokens[Channels.Alert],
            VoipToken = address.Tokens.GetValueOrDefault(Channels.Call),
            Sandbox = address.Environment == "sandbox",
            ExpiresAt = delivery.ExpiresAt,
            // of a call the ordering key is the call's own
            ThreadId = Base64Url.EncodeToString(
                delivery.Class == EventClass.Call
                    ? masterKey.Mac("conversation", delivery.Account, delivery.Conversation!)[..16]
                    : delivery.OrderingKey.ToByteArray()
            ),
            Receipt = Receipts.For(masterKey, alert.Head.Id),
            Kind = delivery.Class switch
            {
                EventClass.Text or EventClass.CallEnded => PushKind.Message,
                EventClass.Encrypted => PushKind.Encrypted,
                EventClass.Call => PushKind.Call,
                EventClass.Invite => PushKind.Invite,
            },
            Account = delivery.Account,
            From = delivery.Sender!,
            Type = delivery.MessageType ?? "chat",
            Nick = content.Nick,
            Body = content.Body,
            Preview = device.Preferences?.Preview ?? AlertPreview.Full,
            MessageId = delivery.StanzaId ?? delivery.MessageId,
            Badge = delivery.Badge,
            Count = alert.Rows.Count,
        };
    }

    private AlertContent Content(Delivery delivery)
    {
        try
        {
            return AlertContent.Open(masterKey, delivery);
        }
        catch (CryptographicException)
        {
            // better an alert without its text than none
            ContentUnreadable(delivery.Id);
            return new AlertContent(null, null);
        }
    }

    private static string OutcomeName(PushOutcome outcome) =>
        outcome switch
        {
            PushOutcome.Accepted => "accepted",
            PushOutcome.DeviceInvalid => "device_invalid",
            PushOutcome.Refused => "refused",
            PushOutcome.Deferred => "deferred",
            PushOutcome.Misconfigured => "misconfigured",
            PushOutcome.Unknown => "unknown",
        };

    private void Report(Attempt attempt, PushAnswer answer, Settlement settlement)
    {
        switch (settlement)
        {
            case Settlement.Accepted:
                Accepted(attempt.DeliveryId, attempt.Number, (int)answer.Duration.TotalMilliseconds);
                break;
            case Settlement.Retry retry:
                Deferred(attempt.DeliveryId, answer.Status, answer.Reason, attempt.Number, retry.Delay.TotalSeconds);
                break;
            default:
                Ended(attempt.DeliveryId, answer.Status, answer.Reason, attempt.Number);
                break;
        }
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "Delivery {DeliveryId} was accepted on attempt {Attempt} after {DurationMs} ms")]
    private partial void Accepted(Guid deliveryId, int attempt, int durationMs);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "Delivery {DeliveryId} is deferred: status {Status}, {Reason}, attempt {Attempt}; due again in {DelaySeconds:0.0} s"
    )]
    private partial void Deferred(Guid deliveryId, int? status, string? reason, int attempt, double delaySeconds);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Delivery {DeliveryId} was refused for good: status {Status}, {Reason}, attempt {Attempt}"
    )]
    private partial void Ended(Guid deliveryId, int? status, string? reason, int attempt);

    [LoggerMessage(Level = LogLevel.Error, Message = "The attempt of delivery {DeliveryId} failed; its lease brings it back")]
    private partial void AttemptFailed(Exception exception, Guid deliveryId);

    [LoggerMessage(Level = LogLevel.Error, Message = "Nothing could be claimed: the database does not answer; what is due waits there")]
    private partial void ClaimFailed(Exception exception);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The text of delivery {DeliveryId} cannot be opened with this master key; it goes out without"
    )]
    private partial void ContentUnreadable(Guid deliveryId);
}
