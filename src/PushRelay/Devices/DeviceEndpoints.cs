using System.Globalization;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Push;

namespace PushRelay.Devices;

/// <summary><c>/v1/devices</c>: mobile clients, or their operator's backend, register device tokens.</summary>
internal sealed class DeviceEndpoints(DeviceRegistry registry, DeviceApps apps, ServedAccounts accounts, RateLimits limits)
{
    private const string ExampleRequest = """
        {"account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"abababababababababababababababababababababababababababababababab",
         "resource":"phone","timeZone":"Asia/Shanghai"}
        """;

    private const string ExamplePatch = """
        {"preview":"sender","muted":["room@conference.example.com"],"quietHours":{"from":"22:00","to":"07:00","timeZone":"Asia/Shanghai"}}
        """;

    private const string Example = """
        {"id":"3F2A-91","account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"abab…abab","environment":"production",
         "voipToken":null,"resource":"phone","locale":null,"timeZone":"Asia/Shanghai","preview":null,"muted":null,"quietHours":null,
         "status":"active","statusReason":null,
         "push":{"jid":"push.example.com","node":"b1e0fbdbae48ade888ee47eabd788809","secret":"OTN7QLieqBtHVV1YLwWerdph"},
         "createdAt":"2026-11-23T02:56:29.398Z","updatedAt":"2026-11-23T02:56:29.398Z","lastAcceptedAt":null,"lastReceivedAt":null}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var devices = routes.MapApi("/v1/devices", "devices");
        devices
            .MapPost("", (HttpContext http, DeviceEndpoints endpoints) => endpoints.RegisterAsync(null, http))
            .WithSummary("Registers a device; the same account, app and token again is the same device")
            .Takes<DeviceRequest>()
            .WithExample(ExampleRequest, Example);
        devices
            .MapPut("{deviceId}", (string deviceId, HttpContext http, DeviceEndpoints endpoints) => endpoints.RegisterAsync(deviceId, http))
            .WithSummary("Registers a device under the app's own installation id")
            .Takes<DeviceRequest>()
            .WithExample(ExampleRequest, Example);
        devices
            .MapGet(
                "",
                (string? account, string? cursor, string? limit, HttpContext http, DeviceEndpoints endpoints) =>
                    endpoints.ListAsync(account, cursor, limit, http)
            )
            .WithSummary("Lists devices, newest first")
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");
        devices
            .MapGet(
                "{deviceId}",
                (string deviceId, string? account, HttpContext http, DeviceEndpoints endpoints) =>
                    endpoints.ShowAsync(deviceId, account, http)
            )
            .WithSummary("Shows a device")
            .WithExample(null, Example);
        devices
            .MapPatch(
                "{deviceId}",
                (string deviceId, string? account, HttpContext http, DeviceEndpoints endpoints) =>
                    endpoints.PatchAsync(deviceId, account, http)
            )
            .WithSummary("Changes preferences (RFC 7396)")
            .Takes<DevicePatchRequest>("application/merge-patch+json")
            .WithExample(ExamplePatch, Example);
        devices
            .MapDelete(
                "{deviceId}",
                (string deviceId, string? account, HttpContext http, DeviceEndpoints endpoints) =>
                    endpoints.RemoveAsync(deviceId, account, http)
            )
            .WithSummary("Removes a device and cancels what is pending for it");
    }

    private async Task<Results<Ok<DeviceAnswer>, Created<DeviceAnswer>, ProblemHttpResult>> RegisterAsync(
        string? deviceId,
        HttpContext http
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<DeviceRequest>(http.Request, http.RequestAborted);
        if (body is null)
        {
            return problem!;
        }

        var caller = ApiCaller.Of(http);
        (var registration, problem) = DeviceRules.Validate(deviceId, body, caller, apps, accounts);
        if (registration is null)
        {
            return problem!;
        }

        if (!caller.IsOperator && !limits.Registrations.TryTake(registration.Account, out var wait))
        {
            return ApiProblem.TooMany(http, wait);
        }

        registration = registration with
        {
            Actor = caller.ActorOf(http),
            Precondition = device => ApiETag.Holds(http.Request, device is null ? null : ETag(device)),
        };
        switch (await registry.RegisterAsync(registration, http.RequestAborted))
        {
            case RegistrationResult.LimitReached:
                return ApiProblem.Of(
                    409,
                    "device_limit",
                    "The account has too many devices.",
                    $"An account has at most {DeviceRegistry.DevicesPerAccountMax} valid devices; remove one first."
                );
            case RegistrationResult.PreconditionFailed:
                return ApiETag.Failed();
            case RegistrationResult.Done done:
                http.Response.Headers.Location = $"/v1/devices/{Uri.EscapeDataString(done.Device.Id)}";
                if (!done.Created)
                {
                    await registry.RecallReachedAsync([done.Device], http.RequestAborted);
                }

                var answer = Answer(done.Device, http);
                return done.Created ? TypedResults.Created((string?)null, answer) : TypedResults.Ok(answer);
            default:
                throw new System.Diagnostics.UnreachableException();
        }
    }

    private async Task<Results<Ok<DevicePage>, ProblemHttpResult>> ListAsync(
        string? account,
        string? cursor,
        string? limit,
        HttpContext http
    )
    {
        if (!ApiPage.TryParse(http, cursor, limit, out var page, out var problem))
        {
            return problem;
        }

        if (!ApiCaller.Of(http).TryNarrow(accounts, account, out var owner))
        {
            return TypedResults.Ok(new DevicePage([], null));
        }

        var devices = await registry.ListAsync(owner, page.Before, page.Limit + 1, http.RequestAborted);
        var items = devices.Take(page.Limit).ToList();
        await registry.RecallReachedAsync(items, http.RequestAborted);
        return TypedResults.Ok(new DevicePage([.. items.Select(Answer)], devices.Count > items.Count ? page.After(items[^1].Key) : null));
    }

    private async Task<Results<Ok<DeviceAnswer>, ProblemHttpResult>> ShowAsync(string deviceId, string? account, HttpContext http)
    {
        var (device, problem) = await FindAsync(deviceId, account, http, registry, accounts);
        if (device is null)
        {
            return problem!;
        }

        await registry.RecallReachedAsync([device], http.RequestAborted);
        return TypedResults.Ok(Answer(device, http));
    }

    private async Task<Results<Ok<DeviceAnswer>, ProblemHttpResult>> PatchAsync(string deviceId, string? account, HttpContext http)
    {
        var (patch, problem) = await ApiBody.ReadAsync<JsonObject>(http.Request, http.RequestAborted, "application/merge-patch+json");
        if (patch is null)
        {
            return problem!;
        }

        (var device, problem) = await FindAsync(deviceId, account, http, registry, accounts);
        if (device is null)
        {
            return problem!;
        }

        problem = ApiProblem.NotFound();
        device = await registry.ChangePreferencesAsync(
            device.Account,
            device.Id,
            ApiCaller.Of(http).ActorOf(http),
            now =>
            {
                var errors = new Dictionary<string, string[]>();
                if (!ApiETag.Holds(http.Request, ETag(now)))
                {
                    problem = ApiETag.Failed();
                    return null;
                }

                var preferences = DevicePatch.Apply(patch, now, errors);
                problem = preferences is null ? ApiProblem.Validation(errors) : problem;
                return preferences;
            },
            http.RequestAborted
        );
        if (device is null)
        {
            return problem;
        }

        await registry.RecallReachedAsync([device], http.RequestAborted);
        return TypedResults.Ok(Answer(device, http));
    }

    private async Task<Results<NoContent, ProblemHttpResult>> RemoveAsync(string deviceId, string? account, HttpContext http)
    {
        var (device, problem) = await FindAsync(deviceId, account, http, registry, accounts);
        if (device is null)
        {
            return problem!;
        }

        if (!ApiETag.Holds(http.Request, ETag(device)))
        {
            return ApiETag.Failed();
        }

        return await registry.RemoveAsync(device.Key, ApiCaller.Of(http).ActorOf(http), http.RequestAborted)
            ? TypedResults.NoContent()
            : ApiProblem.NotFound();
    }

    /// <summary>The device that a request names, or what to answer: nobody sees another account's.</summary>
    public static async Task<(Device? Device, ProblemHttpResult? Problem)> FindAsync(
        string deviceId,
        string? account,
        HttpContext http,
        DeviceRegistry registry,
        ServedAccounts accounts
    )
    {
        if (!DeviceRules.IsId(deviceId) || !ApiCaller.Of(http).TryNarrow(accounts, account, out var owner))
        {
            return (null, ApiProblem.NotFound());
        }

        var found = await registry.FindAsync(owner, deviceId, http.RequestAborted);
        return found.Count switch
        {
            0 => (null, ApiProblem.NotFound()),
            1 => (found[0], null),
            _ => (
                null,
                ApiProblem.Validation("account", "is needed: several accounts have a device with this id (?account=bob@example.com)")
            ),
        };
    }

    private DeviceAnswer Answer(Device device, HttpContext http)
    {
        http.Response.Headers.ETag = ETag(device);
        return Answer(device);
    }

    private DeviceAnswer Answer(Device device) => Answer(device, registry, accounts);

    /// <summary>The device as every answer shows it.</summary>
    public static DeviceAnswer Answer(Device device, DeviceRegistry registry, ServedAccounts accounts) =>
        new(
            device.Id,
            device.Account,
            device.App,
            device.Platform,
            device.Tokens.Hint(Channels.Alert)!,
            device.Environment,
            device.Tokens.Hint(Channels.Call),
            device.Resource,
            device.Locale,
            device.TimeZone,
            device.Preferences?.Preview is { } preview ? Name(preview) : null,
            device.Preferences?.Muted,
            Quiet(device.Preferences?.QuietHours),
            Name(device.Status),
            device.StatusReason,
            new DevicePush(accounts.ComponentOf(device.Account), device.Node, registry.NodeSecret(device.Node)),
            device.CreatedAt,
            device.UpdatedAt,
            device.LastAcceptedAt,
            device.LastReceivedAt
        );

    private static QuietHoursAnswer? Quiet(QuietHours? hours) =>
        hours is null ? null : new QuietHoursAnswer(QuietHours.Write(hours.From), QuietHours.Write(hours.To), hours.TimeZone);

    /// <summary>Changes with every change that a request can make, not with what is merely observed.</summary>
    private static string ETag(Device device) => string.Create(CultureInfo.InvariantCulture, $"\"{device.Key:N}-{device.Revision}\"");

    private static string Name(Enum value) => value.ToString().ToLower(CultureInfo.InvariantCulture);
}
