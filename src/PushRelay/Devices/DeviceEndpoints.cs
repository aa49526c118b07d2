using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Api;

namespace PushRelay.Devices;

/// <summary><c>/v1/devices</c>: mobile clients, or their operator's backend, register device tokens.</summary>
internal static class DeviceEndpoints
{
    private const string ExampleRequest = """
        {"account":"bob@example.com","app":"com.example.chat","platform":"apns",
         "token":"abababababababababababababababababababababababababababababababab","resource":"phone","timeZone":"Asia/Shanghai"}
        """;

    private const string ExamplePatch = """
        {"preview":"sender","muted":["room@conference.example.com"],"mentionsOnly":["team@conference.example.com"],"groups":"all",
         "quietHours":{"from":"22:00","to":"07:00","timeZone":"Asia/Shanghai","alerts":"silent","calls":false}}
        """;

    private const string Example = """
        {"id":"3F2A-91","account":"bob@example.com","app":"com.example.chat","platform":"apns","token":"abab…abab",
         "environment":"production","voipToken":null,"resource":"phone","locale":null,"timeZone":"Asia/Shanghai",
         "preview":null,"muted":null,"mentionsOnly":null,"groups":null,"quietHours":null,"status":"active","statusReason":null,
         "push":{"jid":"push.example.com","node":"b1e0fbdbae48ade888ee47eabd788809","secret":"OTN7QLieqBtHVV1YLwWerdph"},
         "createdAt":"2026-11-23T02:56:29.398Z","updatedAt":"2026-11-23T02:56:29.398Z",
         "confirms":false,"lastAcceptedAt":null,"lastReceivedAt":null}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var devices = routes.MapApi("/v1/devices", "devices");
        devices
            .MapPost("", RegisterAsync)
            .WithSummary("Registers a device; the same account, app and token again is the same device")
            .Takes<DeviceRequest>()
            .WithExample(ExampleRequest, Example);
        devices
            .MapPut("{deviceId}", RegisterByIdAsync)
            .WithSummary("Registers a device under the app's own installation id")
            .Takes<DeviceRequest>()
            .WithExample(ExampleRequest, Example);
        devices
            .MapGet("", ListAsync)
            .WithSummary("Lists devices, newest first")
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");
        devices.MapGet("{deviceId}", ShowAsync).WithSummary("Shows a device").WithExample(null, Example);
        devices
            .MapPatch("{deviceId}", PatchAsync)
            .WithSummary("Changes preferences (RFC 7396)")
            .Takes<DevicePatchRequest>("application/merge-patch+json")
            .WithExample(ExamplePatch, Example);
        devices.MapDelete("{deviceId}", RemoveAsync).WithSummary("Removes a device and cancels what is pending for it");
    }

    /// <summary>The problem that a request about a device ended in.</summary>
    /// <param name="result">Anything but <see cref="DeviceResult.Done"/>.</param>
    /// <param name="response">Gets the header that belongs to it.</param>
    public static ProblemHttpResult Problem(DeviceResult result, HttpResponse response) =>
        result switch
        {
            DeviceResult.Invalid(var errors) => ApiProblem.Validation(errors),
            DeviceResult.NotFound => ApiProblem.NotFound(),
            DeviceResult.Changed => ApiETag.Failed(),
            DeviceResult.TooMany(var wait) => ApiProblem.TooMany(response, wait),
            DeviceResult.UnknownApp => ApiProblem.Of(
                400,
                "unknown_app",
                "The app is not configured.",
                "app is none of those in setting Apps.",
                new() { ["app"] = ["is not configured"] }
            ),
            DeviceResult.LimitReached => ApiProblem.Of(
                409,
                "device_limit",
                "The account has too many devices.",
                $"An account has at most {DeviceRegistry.DevicesPerAccountMax} valid devices; remove one first."
            ),
            _ => throw new System.Diagnostics.UnreachableException(),
        };

    private static Task<Results<Ok<DeviceResponse>, Created<DeviceResponse>, ProblemHttpResult>> RegisterAsync(
        HttpContext http,
        Caller caller,
        Registrations registrations,
        DeviceQueries queries,
        CancellationToken cancellationToken
    ) => RegisterByIdAsync(null, http, caller, registrations, queries, cancellationToken);

    private static async Task<Results<Ok<DeviceResponse>, Created<DeviceResponse>, ProblemHttpResult>> RegisterByIdAsync(
        string? deviceId,
        HttpContext http,
        Caller caller,
        Registrations registrations,
        DeviceQueries queries,
        CancellationToken cancellationToken
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<DeviceRequest>(http.Request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        var request = body.ToRegistration(deviceId, ApiETag.ExpectedBy(http.Request));
        var result = await registrations.RegisterAsync(request, caller, cancellationToken);
        if (result is not DeviceResult.Done(var device, var created) done)
        {
            return Problem(result, http.Response);
        }

        http.Response.Headers.Location = $"/v1/devices/{Uri.EscapeDataString(device.Id)}";
        var shown = created ? queries.ShowNew(device) : await queries.ShowAsync(device, cancellationToken);
        shown = done.Warnings.Count > 0 ? shown with { Warnings = done.Warnings } : shown;
        ApiETag.Set(http.Response, shown.Revision);
        return created ? TypedResults.Created((string?)null, shown) : TypedResults.Ok(shown);
    }

    private static async Task<Results<Ok<Page<DeviceResponse>>, ProblemHttpResult>> ListAsync(
        string? account,
        string? app,
        string? platform,
        string? status,
        string? cursor,
        string? limit,
        Caller caller,
        DeviceQueries queries,
        ListPages pages,
        CancellationToken cancellationToken
    )
    {
        if (!pages.TryRead("devices", caller.Account, cursor, limit, out var page, out var error))
        {
            return ApiProblem.Of(error);
        }

        if (status is not (null or "active" or "invalid"))
        {
            return ApiProblem.Validation("status", "must be \"active\" or \"invalid\"");
        }

        var filter = new DeviceFilter
        {
            Account = account,
            App = app,
            Platform = platform,
            Status = status switch
            {
                "active" => DeviceStatus.Active,
                "invalid" => DeviceStatus.Invalid,
                _ => null,
            },
        };
        return TypedResults.Ok(await queries.ListAsync(filter, caller, page, cancellationToken));
    }

    private static async Task<Results<Ok<DeviceResponse>, ProblemHttpResult>> ShowAsync(
        string deviceId,
        string? account,
        HttpResponse response,
        Caller caller,
        DeviceQueries queries,
        CancellationToken cancellationToken
    ) => await AnswerAsync(await queries.FindAsync(account, deviceId, caller, cancellationToken), response, queries, cancellationToken);

    private static async Task<Results<Ok<DeviceResponse>, ProblemHttpResult>> PatchAsync(
        string deviceId,
        string? account,
        HttpContext http,
        Caller caller,
        Registrations registrations,
        DeviceQueries queries,
        CancellationToken cancellationToken
    )
    {
        var (patch, problem) = await ApiBody.ReadAsync<JsonObject>(http.Request, cancellationToken, "application/merge-patch+json");
        if (patch is null)
        {
            return problem!;
        }

        var expected = ApiETag.ExpectedBy(http.Request);
        var result = await registrations.ChangePreferencesAsync(account, deviceId, patch, expected, caller, cancellationToken);
        return await AnswerAsync(result, http.Response, queries, cancellationToken);
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> RemoveAsync(
        string deviceId,
        string? account,
        HttpContext http,
        Caller caller,
        Registrations registrations,
        CancellationToken cancellationToken
    )
    {
        var expected = ApiETag.ExpectedBy(http.Request);
        var result = await registrations.UnregisterAsync(account, deviceId, expected, caller, cancellationToken);
        return result is DeviceResult.Done ? TypedResults.NoContent() : Problem(result, http.Response);
    }

    private static async Task<Results<Ok<DeviceResponse>, ProblemHttpResult>> AnswerAsync(
        DeviceResult result,
        HttpResponse response,
        DeviceQueries queries,
        CancellationToken cancellationToken
    )
    {
        if (result is not DeviceResult.Done(var device, _))
        {
            return Problem(result, response);
        }

        var shown = await queries.ShowAsync(device, cancellationToken);
        ApiETag.Set(response, shown.Revision);
        return TypedResults.Ok(shown);
    }
}
