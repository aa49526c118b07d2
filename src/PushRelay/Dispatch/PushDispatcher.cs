using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Providers;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// Sends what is due: claims, asks the push network, settles. Bounded by <c>Dispatch:Concurrency</c>; an attempt that may not end
/// within its lease is not started; what a stop interrupts is handed back.
/// </summary>
internal sealed partial class PushDispatcher(
    OutboxQueue outbox, DeviceRegistry registry, ApnsProvider apns, MasterKey masterKey, IOptions<DispatchOptions> options,
    TimeProvider clock, ILogger<PushDispatcher> logger) : BackgroundService
{
    private const int ClaimMax = 200;

    // other nodes' rows, retries and due times announce themselves to nobody
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);

    // what an attempt may take: connect, request and settlement
    private static readonly TimeSpan AttemptMax = TimeSpan.FromSeconds(12);

    private static readonly TimeSpan Drain = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan HandBackMax = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan MisconfiguredTold = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan SettleRetry = TimeSpan.FromMilliseconds(500);

    private readonly ConcurrentDictionary<string, long> misconfiguredToldAt = new(StringComparer.Ordinal);
    private bool claimFailing;
    private int inFlight;
    private TaskCompletionSource? idle;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var sending = new CancellationTokenSource();
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                var room = Math.Min(options.Value.Concurrency - Volatile.Read(ref inFlight), ClaimMax);
                if (room == 0 || await DispatchAsync(room, sending.Token) < room)
                {
                    await outbox.WaitAsync(Poll, clock, stoppingToken);
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

                await Task.Delay(Poll, clock, CancellationToken.None);
            }
        }

        await DrainAsync(sending);
    }

    /// <returns>How many were claimed.</returns>
    private async Task<int> DispatchAsync(int max, CancellationToken sending)
    {
        // not cut short by a stop: what is claimed is sent or handed back
        // before the claim: the lease runs from a moment that is later than this one
        var started = clock.GetTimestamp();
        var claimed = await outbox.ClaimAsync(max, options.Value.LeaseDuration, CancellationToken.None);
        claimFailing = false;
        if (claimed.Count == 0)
        {
            return 0;
        }

        var devices = await registry.GetAsync([.. claimed.Select(d => d.DeviceKey).Distinct()], CancellationToken.None);
        foreach (var delivery in claimed)
        {
            Interlocked.Increment(ref inFlight);
            _ = TryAsync(delivery, devices.GetValueOrDefault(delivery.DeviceKey), started, sending);
        }

        return claimed.Count;
    }

    private async Task TryAsync(Delivery delivery, Device? device, long started, CancellationToken sending)
    {
        await Task.Yield();
        try
        {
            var (settlement, attempt) = await AttemptAsync(delivery, device, started, sending);
            await SettleAsync(delivery, settlement, attempt, started);
            if (settlement is Settlement.Accepted)
            {
                await NoteAcceptedAsync(delivery);
            }
        }
        catch (Exception exception)
        {
            // the lease brings the row back, and its attempt stays counted: a row that fails so every time ends as dead
            AttemptFailed(exception, delivery.Id);
        }
        finally
        {
            if (Interlocked.Decrement(ref inFlight) == 0)
            {
                Volatile.Read(ref idle)?.TrySetResult();
            }

            outbox.Wake();
        }
    }

    private async Task<(Settlement Settlement, Attempt? Attempt)> AttemptAsync(Delivery delivery, Device? device, long started, CancellationToken sending)
    {
        if (device is null)
        {
            return (new Settlement.Cancelled(Reasons.DeviceRemoved), null);
        }

        if (device.Status == DeviceStatus.Invalid)
        {
            return (new Settlement.Cancelled(Reasons.DeviceInvalid), null);
        }

        var left = options.Value.LeaseDuration - clock.GetElapsedTime(started);
        if (left < AttemptMax || sending.IsCancellationRequested)
        {
            return (new Settlement.HandBack(), null);
        }

        using var lease = new CancellationTokenSource(left, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(lease.Token, sending);
        var at = clock.GetUtcNow();
        var notification = Notification(delivery, device);
        PushAnswer answer;
        try
        {
            answer = await apns.SendAsync(notification, either.Token);
        }
        catch (OperationCanceledException) when (either.IsCancellationRequested)
        {
            return (new Settlement.HandBack(), null);
        }

        var settlement = await JudgeAsync(delivery, device, notification, answer, started);
        Report(delivery, answer, settlement);
        return (settlement, new Attempt
        {
            DeliveryId = delivery.Id,
            Number = delivery.Attempts,
            At = at,
            DurationMs = (int)answer.Duration.TotalMilliseconds,
            Status = answer.Status,
            Reason = answer.Reason,
            Outcome = OutcomeName(answer.Outcome),
            ProviderId = answer.ProviderId,
        });
    }

    private async Task<Settlement> JudgeAsync(Delivery delivery, Device device, PushNotification notification, PushAnswer answer, long started)
    {
        if (answer.Outcome == PushOutcome.DeviceInvalid && notification.UsesVoip)
        {
            // the token for calls is another than the one for alerts: this call rings as an alert, and so do later ones
            await InsistAsync(() => registry.ForgetVoipTokenAsync(device, CancellationToken.None), delivery, started);
            return new Settlement.Retry(TimeSpan.Zero, Excused: true);
        }

        var invalid = false;
        if (answer.Outcome == PushOutcome.DeviceInvalid)
        {
            await InsistAsync(
                async () => invalid = await registry.InvalidateAsync(device, answer.Reason ?? "unknown", answer.InvalidSince, CancellationToken.None),
                delivery, started);
        }

        return RetryPolicy.Settle(delivery, answer, invalid, options.Value, Random.Shared.NextDouble());
    }

    private Task SettleAsync(Delivery delivery, Settlement settlement, Attempt? attempt, long started) => InsistAsync(
        async () =>
        {
            if (!await outbox.SettleAsync(delivery, settlement, attempt, CancellationToken.None))
            {
                LeaseLost(delivery.Id);
            }
        },
        delivery, started);

    /// <summary>An answer is not thrown away because the database is away for a moment: tried until the lease is over.</summary>
    private async Task InsistAsync(Func<Task> store, Delivery delivery, long started)
    {
        while (true)
        {
            try
            {
                await store();
                return;
            }
            catch (Exception exception) when (DatabaseOutage.Is(exception) && clock.GetElapsedTime(started) + SettleRetry < options.Value.LeaseDuration)
            {
                SettleFailed(exception.GetBaseException().Message, delivery.Id);
                await Task.Delay(SettleRetry, clock, CancellationToken.None);
            }
        }
    }

    private async Task NoteAcceptedAsync(Delivery delivery)
    {
        try
        {
            await registry.NoteAcceptedAsync(delivery.DeviceKey, CancellationToken.None);
        }
        catch (Exception exception) when (DatabaseOutage.Is(exception))
        {
            // the delivery is settled; that the device was reached is said by the next one
            NotNoted(exception.GetBaseException().Message);
        }
    }

    private async Task DrainAsync(CancellationTokenSource sending)
    {
        var drained = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        // a full fence: whoever counts down to zero after the look below sees it
        Interlocked.Exchange(ref idle, drained);
        if (Volatile.Read(ref inFlight) == 0)
        {
            return;
        }

        if (await Task.WhenAny(drained.Task, Task.Delay(Drain, clock, CancellationToken.None)) != drained.Task)
        {
            await sending.CancelAsync();
            await Task.WhenAny(drained.Task, Task.Delay(HandBackMax, clock, CancellationToken.None));
        }
    }

    private PushNotification Notification(Delivery delivery, Device device)
    {
        var content = Content(delivery);
        return new PushNotification
        {
            Id = delivery.Id,
            App = device.App,
            Token = device.OpenToken(masterKey),
            VoipToken = device.OpenVoipToken(masterKey),
            Sandbox = device.Environment == DeviceEnvironment.Sandbox,
            ExpiresAt = delivery.ExpiresAt,
            ThreadId = Base64Url.EncodeToString(masterKey.Mac("conversation", delivery.Account, delivery.Conversation!).AsSpan(0, 16)),
            Receipt = Receipts.For(masterKey, delivery.Id),
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
            Preview = device.Preferences?.Preview switch
            {
                DevicePreview.None => AlertPreview.None,
                DevicePreview.Sender => AlertPreview.Sender,
                DevicePreview.Full or null => AlertPreview.Full,
            },
            MessageId = delivery.StanzaId ?? delivery.MessageId,
            Badge = delivery.Badge,
            Count = delivery.Count,
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

    private static string OutcomeName(PushOutcome outcome) => outcome switch
    {
        PushOutcome.Accepted => "accepted",
        PushOutcome.DeviceInvalid => "device_invalid",
        PushOutcome.Refused => "refused",
        PushOutcome.Deferred => "deferred",
        PushOutcome.Misconfigured => "misconfigured",
        PushOutcome.Unknown => "unknown",
    };

    private void Report(Delivery delivery, PushAnswer answer, Settlement settlement)
    {
        switch (settlement)
        {
            case Settlement.Accepted:
                Accepted(delivery.Id, delivery.Attempts, (int)answer.Duration.TotalMilliseconds);
                break;
            case Settlement.Retry retry when answer.Outcome == PushOutcome.Misconfigured:
                if (MayTell(delivery.App ?? ""))
                {
                    Misconfigured(delivery.App, answer.Reason, delivery.Id, retry.Delay.TotalSeconds);
                }

                break;
            case Settlement.Retry retry:
                Deferred(delivery.Id, answer.Status, answer.Reason, delivery.Attempts, retry.Delay.TotalSeconds);
                break;
            default:
                Ended(delivery.Id, answer.Status, answer.Reason, delivery.Attempts);
                break;
        }
    }

    /// <summary>One line a minute for an app that cannot push, however many deliveries wait for it.</summary>
    private bool MayTell(string app)
    {
        var now = clock.GetTimestamp();
        var told = misconfiguredToldAt.GetOrAdd(app, _ => now);
        return told == now || (clock.GetElapsedTime(told, now) >= MisconfiguredTold && misconfiguredToldAt.TryUpdate(app, now, told));
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Delivery {DeliveryId} was accepted on attempt {Attempt} after {DurationMs} ms")]
    private partial void Accepted(Guid deliveryId, int attempt, int durationMs);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Delivery {DeliveryId} is deferred: status {Status}, {Reason}, attempt {Attempt}; due again in {DelaySeconds:0.0} s")]
    private partial void Deferred(Guid deliveryId, int? status, string? reason, int attempt, double delaySeconds);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Delivery {DeliveryId} was refused for good: status {Status}, {Reason}, attempt {Attempt}")]
    private partial void Ended(Guid deliveryId, int? status, string? reason, int attempt);

    [LoggerMessage(Level = LogLevel.Error, Message = "App {App} cannot push: APNs answers {Reason}. Check its key, team, bundle id and environment in setting Apps; delivery {DeliveryId} waits {DelaySeconds:0.0} s")]
    private partial void Misconfigured(string? app, string? reason, Guid deliveryId, double delaySeconds);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Delivery {DeliveryId} was tried, but its lease had run out: another node may send it a second time, with the same apns-id")]
    private partial void LeaseLost(Guid deliveryId);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The outcome of delivery {DeliveryId} could not be stored yet: {Problem}")]
    private partial void SettleFailed(string problem, Guid deliveryId);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A device's last accepted alert could not be noted: {Problem}")]
    private partial void NotNoted(string problem);

    [LoggerMessage(Level = LogLevel.Error, Message = "The attempt of delivery {DeliveryId} failed; its lease brings it back")]
    private partial void AttemptFailed(Exception exception, Guid deliveryId);

    [LoggerMessage(Level = LogLevel.Error, Message = "Nothing could be claimed: the database does not answer; what is due waits there")]
    private partial void ClaimFailed(Exception exception);

    [LoggerMessage(Level = LogLevel.Error, Message = "The text of delivery {DeliveryId} cannot be opened with this master key; it goes out without")]
    private partial void ContentUnreadable(Guid deliveryId);
}
