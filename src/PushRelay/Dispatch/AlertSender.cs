using Microsoft.Extensions.Options;
using PushRelay.Devices;
using PushRelay.Faults;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Dispatch;

/// <summary>
/// Makes one attempt of a claimed alert: sends it to the push network, reports the result to the circuit, and decides what follows for the
/// alert. An attempt that may not end within its lease is not started.
/// </summary>
internal sealed partial class AlertSender(
    DeviceRegistry registry,
    OutboxQueue outbox,
    PushNetworks networks,
    LaneCircuits circuits,
    SettlementWriter settlements,
    NotificationBuilder notifications,
    RelayMetrics metrics,
    IOptions<DispatchOptions> options,
    TimeProvider clock,
    ILogger<AlertSender> logger
) : IDisposable
{
    // what an attempt may take: the answer, and the settlement
    private static readonly TimeSpan AttemptMax = PushNetworks.AnswerMax + TimeSpan.FromSeconds(2);

    private readonly SemaphoreSlim requests = new(options.Value.Concurrency);

    public void Dispose() => requests.Dispose();

    /// <summary>Sends the alert and settles it. Never throws: an alert that cannot be settled returns its permit, and is sent again when
    /// its lease ends.</summary>
    /// <param name="alert">This method disposes of it.</param>
    /// <param name="device">Null: it was removed.</param>
    /// <param name="sending">Cancelled at a stop, when there is no time left for answers.</param>
    public async Task SendAsync(ClaimedAlert alert, Device? device, CancellationToken sending)
    {
        try
        {
            settlements.Add(await AttemptAsync(alert, device, sending));
        }
        catch (Exception exception)
        {
            // its attempt stays counted: a row that always fails like this ends as dead
            AttemptFailed(exception, alert.Head.Id);
            alert.Dispose();
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

        if (alert.Newest.Reason == Reasons.Update && await FollowsNothingAsync(alert) is { } ended)
        {
            return new SettledAlert(alert, new Settlement.Cancelled(ended), null);
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

    /// <summary>
    /// The alert withdraws or ends an earlier one that was being sent at that moment and was not accepted: neither is needed any more.
    /// </summary>
    /// <returns>Why; null: it is to be sent.</returns>
    private async Task<string?> FollowsNothingAsync(ClaimedAlert alert)
    {
        var content = notifications.ContentOf(alert.Newest);
        if (
            content.After is not { } original
            // among others' messages it only says what became of one of them
            || alert.Rows.Any(row => row.Id != original && row.Reason != Reasons.Update)
            || await outbox.IsShownAsync(original, CancellationToken.None)
        )
        {
            return null;
        }

        return content.FollowUp switch
        {
            // a corrected text is the message's text
            null when alert.Rows.Any(row => row.Id == original) => null,
            FollowUpKind.MissedCall or FollowUpKind.Read => Reasons.CallEnded,
            _ => Reasons.Retracted,
        };
    }

    private async Task<SettledAlert> RequestAsync(ClaimedAlert alert, Device device, CancellationToken sending)
    {
        var waited = clock.GetElapsedTime(alert.ClaimedAt);
        if (
            options.Value.LeaseDuration - waited < AttemptMax
            || waited >= alert.Life
            || sending.IsCancellationRequested
            || circuits.HasOpenedSince(alert)
        )
        {
            return new SettledAlert(alert, new Settlement.HandBack(), null);
        }

        var at = clock.GetUtcNow();
        PushResult result;
        try
        {
            result = await AskAsync(alert, device, sending);
        }
        catch (OperationCanceledException) when (sending.IsCancellationRequested)
        {
            return new SettledAlert(alert, new Settlement.HandBack(), null);
        }

        metrics.CountAttempt(device.App, device.Platform, result.Status, result.Code, result.Duration);
        if (result is PushResult.Accepted)
        {
            Failpoint.Reach("after_provider_200");
        }

        // the device's present lane; it may differ from the row's
        var token = result is PushResult.TokenDead { Since: null, Status: not null }
            ? await RefusedTokenOfAsync(device)
            : (RefusedToken?)null;
        result = circuits.Observe(new LaneOwner(device.Lane, device.App, device.Platform), result, token);
        var settlement = await SettleAsync(alert, device, result);
        var settled = new SettledAlert(
            alert,
            settlement,
            new Attempt
            {
                DeliveryId = alert.Head.Id,
                Number = alert.Head.Attempts,
                At = at,
                DurationMs = (int)result.Duration.TotalMilliseconds,
                Status = result.Status,
                Code = result.Code,
                Outcome = OutcomeOf(result, settlement),
                ProviderId = (result as PushResult.Accepted)?.ProviderId,
            }
        );
        Log(settled, result);
        return settled;
    }

    private async Task<RefusedToken> RefusedTokenOfAsync(Device device)
    {
        try
        {
            return new RefusedToken(device.Account, await registry.WasReachedAsync(device, CancellationToken.None));
        }
        catch (Exception exception) when (DatabaseErrors.IsOutage(exception))
        {
            // without the database the device cannot be marked invalid either
            return new RefusedToken(device.Account, false);
        }
    }

    private Task<PushResult> AskAsync(ClaimedAlert alert, Device device, CancellationToken sending)
    {
        if (!networks.TryGet(device.Platform, out var network))
        {
            // the device has registered elsewhere since, and the settings do not have that network any more
            return Task.FromResult<PushResult>(
                new PushResult.Later(Fault.Credentials, null, $"{device.Platform}_not_configured", null, TimeSpan.Zero)
            );
        }

        var notification = notifications.Build(alert, device);
        Failpoint.Reach("before_send");
        return network.SendAsync(notification, sending);
    }

    private async Task<Settlement> SettleAsync(ClaimedAlert alert, Device device, PushResult result)
    {
        var isDeviceInvalid = false;
        switch (result)
        {
            case PushResult.TokenDead { Channel: Channels.Alert } dead:
                await settlements.RetryUntilStoredAsync(async () =>
                    isDeviceInvalid = await registry.InvalidateAsync(
                        device,
                        PushCode.WordOf(dead.Code)!,
                        dead.Since,
                        CancellationToken.None
                    )
                );
                break;
            case PushResult.TokenDead dead:
                await settlements.RetryUntilStoredAsync(() => registry.ForgetTokenAsync(device, dead.Channel, CancellationToken.None));
                break;
        }

        return RetryPolicy.Settle(alert.Head, result, isDeviceInvalid, options.Value, Random.Shared.NextDouble());
    }

    private static string OutcomeOf(PushResult result, Settlement settlement) =>
        result switch
        {
            PushResult.Accepted => "accepted",
            // the answer may be about an older registration of the same token: only a later time makes the device invalid
            PushResult.TokenDead { Channel: Channels.Alert } when settlement is Settlement.Retry => "deferred",
            PushResult.TokenDead => "device_invalid",
            PushResult.Refused => "refused",
            PushResult.Later { Fault: Fault.Credentials } => "misconfigured",
            PushResult.Later => "deferred",
            PushResult.Unknown => "unknown",
            _ => throw new System.Diagnostics.UnreachableException(),
        };

    private void Log(SettledAlert settled, PushResult result)
    {
        // of several rows in one alert the newest, whose text it was, is refused
        var (id, attempt) = (settled.Alert.Head.Id, settled.Alert.Head.Attempts);
        switch (settled.Settlement)
        {
            case Settlement.Accepted:
                Accepted(id, attempt, result.Duration.TotalMilliseconds);
                break;
            case Settlement.Retry retry:
                Deferred(id, result.Status, result.Code, attempt, retry.Delay.TotalSeconds);
                break;
            case Settlement.Rejected { DeviceInvalid: true }:
                DeviceIsInvalid(id, result.Status, result.Code);
                break;
            case Settlement.Rejected:
                Refused(settled.Alert.Newest.Id, result.Status, result.Code);
                break;
            case Settlement.Dead:
                AttemptsUsedUp(id, attempt, result.Status, result.Code);
                break;
        }
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "Delivery {DeliveryId} was accepted on attempt {Attempt} after {DurationMs:0} ms")]
    private partial void Accepted(Guid deliveryId, int attempt, double durationMs);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "Delivery {DeliveryId} is deferred: status {Status}, {Code}, attempt {Attempt}; due again in {DelaySeconds:0.0} s"
    )]
    private partial void Deferred(Guid deliveryId, int? status, string? code, int attempt, double delaySeconds);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Delivery {DeliveryId} was refused, and its device is invalid until it registers again: status {Status}, {Code}"
    )]
    private partial void DeviceIsInvalid(Guid deliveryId, int? status, string? code);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Delivery {DeliveryId} was refused and is not tried again: status {Status}, {Code}")]
    private partial void Refused(Guid deliveryId, int? status, string? code);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Delivery {DeliveryId} is dead: its attempts are used up with attempt {Attempt}; last status {Status}, {Code}"
    )]
    private partial void AttemptsUsedUp(Guid deliveryId, int attempt, int? status, string? code);

    [LoggerMessage(Level = LogLevel.Error, Message = "The attempt of delivery {DeliveryId} failed; it is tried again when its lease ends")]
    private partial void AttemptFailed(Exception exception, Guid deliveryId);
}
