using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Devices;

/// <summary>
/// Registers, changes and removes devices, for callers over REST and XMPP. All changes go through this class. Here are the checks, who may
/// act on which account, the rate limit, the limit of devices, the expected revision and the audit; a door only translates.
/// </summary>
internal sealed class Registrations(
    RegistrationWriter writer,
    DeviceRegistry registry,
    DeviceQueries queries,
    IDbContextFactory<RelayDb> databases,
    DatabaseClock clock,
    AuditTrail audit,
    RecentDevices recent,
    PushNetworks networks,
    ServedAccounts accounts,
    RateLimits limits,
    RelayMetrics metrics
)
{
    /// <summary>Registers a device; the same account, app and token again is the same device. What the request leaves out goes back to its
    /// default, but preferences stay.</summary>
    /// <exception cref="OperationCanceledException">Stopped while it waited; once it is being written it is written.</exception>
    public async Task<DeviceResult> RegisterAsync(RegistrationRequest request, Caller caller, CancellationToken cancellationToken)
    {
        var result = await CheckAndWriteAsync(request, caller, cancellationToken);
        metrics.CountRegistration(
            caller.IsOperator ? "operator"
                : caller.Address is null ? "xmpp"
                : "account",
            result switch
            {
                DeviceResult.Done { Created: true } => "created",
                DeviceResult.Done => "renewed",
                DeviceResult.TooMany => "too_many",
                DeviceResult.LimitReached => "limit_reached",
                _ => "refused",
            }
        );
        return result;
    }

    private async Task<DeviceResult> CheckAndWriteAsync(RegistrationRequest request, Caller caller, CancellationToken cancellationToken)
    {
        if (Check(request, caller, out var refusal) is not { } registration)
        {
            return refusal!;
        }

        if (!caller.IsOperator && !limits.Registrations.TryTake(registration.Account, out var wait))
        {
            return new DeviceResult.TooMany(wait);
        }

        return await writer.RegisterAsync(registration, cancellationToken);
    }

    /// <summary>Removes a device and cancels what is pending for it.</summary>
    /// <param name="account">Whose; null: the caller's own, for an operator the only account with such a device.</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="expected">Of the device.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    public Task<DeviceResult> UnregisterAsync(
        string? account,
        string id,
        ExpectedRevision expected,
        Caller caller,
        CancellationToken cancellationToken
    ) => UnregisterAsync(() => queries.FindAsync(account, id, caller, cancellationToken), expected, caller, cancellationToken);

    /// <summary>Removes an account's device by its XEP-0357 node.</summary>
    public Task<DeviceResult> UnregisterNodeAsync(string node, Caller caller, CancellationToken cancellationToken) =>
        UnregisterAsync(() => queries.FindNodeAsync(node, caller, cancellationToken), ExpectedRevision.Any, caller, cancellationToken);

    /// <summary>Removes an account's device by its alert token, which may be written as the app likes.</summary>
    public Task<DeviceResult> UnregisterTokenAsync(string app, string token, Caller caller, CancellationToken cancellationToken) =>
        UnregisterAsync(() => FindTokenAsync(app, token, caller, cancellationToken), ExpectedRevision.Any, caller, cancellationToken);

    private async Task<DeviceResult> FindTokenAsync(string app, string token, Caller caller, CancellationToken cancellationToken)
    {
        var asked = new PushAddress
        {
            App = app,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = token },
        };
        foreach (var platform in networks.Platforms)
        {
            if (
                networks.TryGet(platform, out var network)
                && network.Check(asked) is TokenCheck.Usable(var address, _)
                && await queries.FindTokenAsync(app, address.Tokens[Channels.Alert], caller, cancellationToken) is DeviceResult.Done found
            )
            {
                return found;
            }
        }

        return new DeviceResult.NotFound();
    }

    private async Task<DeviceResult> UnregisterAsync(
        Func<Task<DeviceResult>> findAsync,
        ExpectedRevision expected,
        Caller caller,
        CancellationToken cancellationToken
    )
    {
        while (true)
        {
            var found = await findAsync();
            if (found is not DeviceResult.Done(var device, _))
            {
                return found;
            }

            if (!expected.Holds(device.RevisionName))
            {
                return new DeviceResult.Changed();
            }

            // changed in between: look again
            if (await registry.RemoveAsync(device, caller.Actor, cancellationToken))
            {
                return found;
            }
        }
    }

    /// <summary>Changes a device's preferences.</summary>
    /// <param name="account">Whose; null: the caller's own, for an operator the only account with such a device.</param>
    /// <param name="id">As the outside knows it.</param>
    /// <param name="patch">A merge patch (RFC 7396).</param>
    /// <param name="expected">Of the device.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    public async Task<DeviceResult> ChangePreferencesAsync(
        string? account,
        string id,
        JsonObject patch,
        ExpectedRevision expected,
        Caller caller,
        CancellationToken cancellationToken
    )
    {
        while (true)
        {
            var found = await queries.FindAsync(account, id, caller, cancellationToken);
            if (found is not DeviceResult.Done(var device, _))
            {
                return found;
            }

            if (!expected.Holds(device.RevisionName))
            {
                return new DeviceResult.Changed();
            }

            var errors = new Dictionary<string, string>();
            if (DevicePatch.Apply(patch, device, errors) is not { } preferences)
            {
                return new DeviceResult.Invalid(errors);
            }

            // nothing changed: no revision, and nothing to audit
            if (preferences.ToJson() == (device.Preferences ?? new DevicePreferences()).ToJson())
            {
                return found;
            }

            if (await TrySaveAsync(device, preferences, caller.Actor, cancellationToken))
            {
                return found;
            }
        }
    }

    /// <summary>The registration that the request asks for; null with what stands against it. Changes nothing.</summary>
    internal Registration? Check(RegistrationRequest request, Caller caller, out DeviceResult? refusal)
    {
        var errors = new Dictionary<string, string>();
        void Require(bool holds, string field, string message)
        {
            if (!holds)
            {
                errors.TryAdd(field, message);
            }
        }

        refusal = null;
        string? account = null;
        Require(
            request.Id is null || DeviceRules.IsId(request.Id),
            "deviceId",
            "must be 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        );
        if ((request.Account ?? caller.Account) is not { } named)
        {
            Require(false, "account", "is missing");
        }
        else if (!accounts.TryName(named, out account, out var why))
        {
            Require(false, "account", why);
        }
        else if (caller.Account is not null && caller.Account != account)
        {
            // another account looks like an absent one
            refusal = new DeviceResult.NotFound();
            return null;
        }

        Require(request.App is not null, "app", "is missing");
        var usable = CheckTokens(request, errors);
        var resource = DeviceRules.NormaliseResource(request.Resource);
        Require(
            request.Resource is null || resource is not null,
            "resource",
            "must be an XMPP resource: 1 to 1023 bytes without control characters"
        );
        Require(request.Locale is null || ApiBody.IsClean(request.Locale), "locale", "must not have control characters");
        Require(
            request.TimeZone is null || DeviceRules.IsTimeZone(request.TimeZone),
            "timeZone",
            "must be a time zone of the IANA database, such as Asia/Shanghai"
        );
        if (errors.Count > 0 || usable is null || account is null)
        {
            refusal = new DeviceResult.Invalid(errors);
            return null;
        }

        if (!networks.Reachable.Contains((usable.Address.App, request.Platform!)))
        {
            var isKnown = networks.Reachable.Any(reachable => reachable.App == usable.Address.App);
            errors["platform"] = "is none of the app's push networks";
            refusal = isKnown ? new DeviceResult.Invalid(errors) : new DeviceResult.UnknownApp();
            return null;
        }

        return new Registration
        {
            Account = account,
            Id = request.Id,
            Platform = request.Platform!,
            Address = usable.Address,
            Lane = usable.Lane,
            Resource = resource,
            Locale = DeviceRules.NormaliseLocale(request.Locale),
            TimeZone = DeviceRules.NormaliseTimeZone(request.TimeZone),
            Exclusive = request.Exclusive,
            Dialect = request.Dialect,
            Actor = caller.Actor,
            Expected = request.Expected,
        };
    }

    /// <summary>The tokens as their network keeps them; null with the errors.</summary>
    private TokenCheck.Usable? CheckTokens(RegistrationRequest request, Dictionary<string, string> errors)
    {
        if (request.Platform is null || !networks.TryGet(request.Platform, out var network))
        {
            var must = $"must be {string.Join(" or ", networks.Platforms.Order(StringComparer.Ordinal).Select(p => $"\"{p}\""))}";
            errors.TryAdd("platform", request.Platform is null ? $"is missing; it {must}" : must);
            return null;
        }

        var asked = new PushAddress
        {
            App = request.App ?? "",
            Environment = request.Environment,
            Tokens = request.Tokens,
        };
        switch (network.Check(asked))
        {
            case TokenCheck.Usable usable:
                return usable;
            case TokenCheck.Refused refused:
                foreach (var (field, message) in refused.Errors)
                {
                    errors.TryAdd(field, message);
                }

                return null;
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    /// <returns>False: the device is not as it was read any more, or gone.</returns>
    private async Task<bool> TrySaveAsync(Device device, DevicePreferences preferences, Actor actor, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        db.Attach(device);
        device.Preferences = preferences.IsEmpty ? null : preferences;
        device.UpdatedAt = await clock.NowAsync(db, cancellationToken);
        device.Revision++;
        var record = audit.Record(db, device.UpdatedAt, actor, AuditActions.DeviceChanged, device.Account, device.Id);
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateConcurrencyException)
        {
            return false;
        }

        recent.Forget([device.Key]);
        audit.Log(record);
        return true;
    }
}
