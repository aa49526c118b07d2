using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Push.WebPush;
using PushRelay.Storage;

namespace PushRelay.Devices;

/// <summary>Which devices are asked for; what is null does not count.</summary>
internal sealed record DeviceFilter
{
    public string? Account { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    public DeviceStatus? Status { get; init; }
}

/// <summary>Finds devices for REST, the command line and pages. A caller sees only its own devices; an operator sees all.</summary>
internal sealed class DeviceQueries(
    DeviceRegistry registry,
    ServedAccounts accounts,
    NodeSecrets secrets,
    IDbContextFactory<RelayDb> databases,
    TimeProvider timers
)
{
    /// <summary>The device that a caller means.</summary>
    /// <param name="account">Whose; null: the caller's own, for an operator the only account with such a device.</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="cancellationToken">Stops the query.</param>
    /// <returns>Done, NotFound, or Invalid where the account is needed.</returns>
    public async Task<DeviceResult> FindAsync(string? account, string id, Caller caller, CancellationToken cancellationToken)
    {
        if (!DeviceRules.IsId(id) || !caller.TryNarrow(accounts, account, out var owner))
        {
            return new DeviceResult.NotFound();
        }

        return await registry.FindAsync(owner, id, cancellationToken) switch
        {
            [] => new DeviceResult.NotFound(),
            [var device] => new DeviceResult.Done(device, Created: false),
            _ => new DeviceResult.Invalid(
                new Dictionary<string, string>
                {
                    ["account"] = "is needed: several accounts have a device with this id (?account=bob@example.com)",
                }
            ),
        };
    }

    /// <summary>The caller's device with this XEP-0357 node.</summary>
    /// <returns>Done or NotFound.</returns>
    public async Task<DeviceResult> FindNodeAsync(string node, Caller caller, CancellationToken cancellationToken) =>
        ToResult((await registry.OfNodesAsync([node], cancellationToken)).Values.FirstOrDefault(d => d.Account == caller.Account));

    /// <summary>The caller's device with this alert token.</summary>
    /// <param name="app">Its app.</param>
    /// <param name="token">As it is kept.</param>
    /// <param name="caller">An account.</param>
    /// <param name="cancellationToken">Stops the query.</param>
    /// <returns>Done or NotFound.</returns>
    public async Task<DeviceResult> FindTokenAsync(string app, string token, Caller caller, CancellationToken cancellationToken) =>
        ToResult(await registry.FindTokenAsync(caller.Account!, app, token, cancellationToken));

    /// <summary>An account's devices, newest first, for the account itself.</summary>
    public Task<IReadOnlyList<Device>> OfAsync(string account, CancellationToken cancellationToken) =>
        registry.ListAsync(account, null, DeviceRegistry.DevicesPerAccountMax, cancellationToken);

    private static DeviceResult ToResult(Device? device) =>
        device is null ? new DeviceResult.NotFound() : new DeviceResult.Done(device, Created: false);

    /// <summary>Newest first.</summary>
    /// <param name="filter">Which; without an account the caller's own; for an operator those of all accounts.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="page">Which part.</param>
    /// <param name="cancellationToken">Stops the query.</param>
    /// <returns>Empty for an account that this caller cannot see.</returns>
    public async Task<Page<DeviceResponse>> ListAsync(
        DeviceFilter filter,
        Caller caller,
        PageRequest page,
        CancellationToken cancellationToken
    )
    {
        if (!caller.TryNarrow(accounts, filter.Account, out var owner))
        {
            return new Page<DeviceResponse>([], null);
        }

        var devices = await registry.ListAsync(filter with { Account = owner }, page.Before, page.RowsToRead, cancellationToken);
        var accepted = await LastAcceptedAsync(devices, cancellationToken);
        return page.Cut(devices, d => d.Key, d => Show(d, accepted));
    }

    /// <summary>An account's devices, newest first.</summary>
    public async Task<IReadOnlyList<DeviceResponse>> OfAccountAsync(string account, int limit, CancellationToken cancellationToken)
    {
        var devices = await registry.ListAsync(account, null, limit, cancellationToken);
        var accepted = await LastAcceptedAsync(devices, cancellationToken);
        return [.. devices.Select(d => Show(d, accepted))];
    }

    /// <summary>The device as every permitted caller sees it.</summary>
    public async Task<DeviceResponse> ShowAsync(Device device, CancellationToken cancellationToken) =>
        Show(device, await LastAcceptedAsync([device], cancellationToken));

    /// <summary>A device that is new: nothing was ever sent to it.</summary>
    public DeviceResponse ShowNew(Device device) => Show(device, new Dictionary<Guid, DateTimeOffset>());

    /// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>.</summary>
    public DevicePush PushOf(Device device) => new(accounts.ComponentOf(device.Account), device.Node, secrets.Of(device.Node));

    private async Task<IReadOnlyDictionary<Guid, DateTimeOffset>> LastAcceptedAsync(
        IReadOnlyList<Device> devices,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var keys = devices.Select(d => d.Key).ToList();
        return await OutboxQueue.LastAcceptedAsync(
            db,
            db.Set<Device>().Where(d => keys.Contains(d.Key)).Select(d => new DeliveryTarget { Account = d.Account, DeviceKey = d.Key }),
            cancellationToken
        );
    }

    private DeviceResponse Show(Device device, IReadOnlyDictionary<Guid, DateTimeOffset> accepted)
    {
        var hint = device.Tokens.Hint(Channels.Alert)!;
        var lastAccepted = accepted.TryGetValue(device.Key, out var at) ? at : device.LastAcceptedAt;
        var isSubscription = device.Platform == WebPushNetwork.Name;
        return new(
            device.Id,
            device.Account,
            device.App,
            device.Platform,
            isSubscription ? null : hint,
            device.Environment,
            device.Tokens.Hint(Channels.Call),
            isSubscription ? new SubscriptionResponse(hint) : null,
            device.Tokens.Hint(Channels.PublicKey) is not null,
            device.Resource,
            device.Locale,
            device.TimeZone,
            device.Preferences?.Preview is { } preview ? EnumName.Of(preview) : null,
            device.Preferences?.Muted,
            device.Preferences?.MentionsOnly,
            device.Preferences?.Groups is { } groups ? EnumName.Of(groups) : null,
            Show(device.Preferences?.QuietHours),
            EnumName.Of(device.Status),
            device.StatusReason,
            PushOf(device),
            device.CreatedAt,
            device.UpdatedAt,
            device.Confirms(lastAccepted, timers.GetUtcNow()),
            lastAccepted,
            device.LastReceivedAt
        )
        {
            Revision = device.RevisionName,
        };
    }

    private static QuietHoursResponse? Show(QuietHours? hours) =>
        hours is null
            ? null
            : new QuietHoursResponse(
                QuietHours.Write(hours.From),
                QuietHours.Write(hours.To),
                hours.TimeZone,
                EnumName.Of(hours.Alerts),
                hours.Calls
            );
}
