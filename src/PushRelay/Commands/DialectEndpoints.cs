using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Devices;

namespace PushRelay.Commands;

/// <summary>The routes that apps of two dialects call in addition to the commands. The apps need exactly these answers.</summary>
internal static class DialectEndpoints
{
    private static readonly string[] RegisterFields = ["type", "node", "token"];

    private const string Removed = """{"result":"success"}""";

    public static void Map(IEndpointRouteBuilder routes)
    {
        var dialects = routes.ServiceProvider.GetRequiredService<IOptions<XmppOptions>>().Value.Dialects;
        if (dialects.Contains(Dialects.AppServer))
        {
            routes
                .MapApi("/push_appserver/v1", "dialects")
                .MapPost("register", RegisterAsync)
                .WithSummary("mod_push_appserver: registers a device; the body is a form with type, node and token")
                .WithExample(null, "OK\nb1e0fbdbae48ade888ee47eabd788809\nOTN7QLieqBtHVV1YLwWerdph");
        }

        if (dialects.Contains(Dialects.Tigase))
        {
            foreach (var path in (string[])["/unregister-device", "/rest/push/unregister-device"])
            {
                routes
                    .MapApi(path, "dialects")
                    .MapPost("{domain}", UnregisterAsync)
                    .AllowAnonymous()
                    .WithSummary("Tigase: removes a device whose account cannot log in any more; its token is the credential")
                    .WithExample("""{"account":"bob@example.com","provider":"tigase:messenger:apns:1","device-token":"abab"}""", Removed);
            }
        }
    }

    /// <summary>Lines: <c>OK</c>, node, secret. The original takes no proof of whose device it is; this one does.</summary>
    private static async Task<Results<ContentHttpResult, ProblemHttpResult>> RegisterAsync(
        HttpContext http,
        Caller caller,
        DeviceDoor door,
        Registrations registrations,
        DeviceQueries queries,
        CancellationToken cancellationToken
    )
    {
        var (form, problem) = await ApiBody.ReadFormAsync(http.Request, cancellationToken);
        if (form is null)
        {
            return problem!;
        }

        var errors = RegisterFields
            .Where(field => string.IsNullOrWhiteSpace(form.GetValueOrDefault(field)))
            .ToDictionary(field => field, _ => "is missing");
        if (errors.Count > 0)
        {
            return ApiProblem.Validation(errors);
        }

        if (door.OnlyApp(form["type"]) is not { } app)
        {
            return DeviceEndpoints.Problem(new DeviceResult.UnknownApp(), http.Response);
        }

        var request = AppServerRegisterCommand.Registration(app, form["type"], form["node"], form["token"]) with
        {
            Account = form.GetValueOrDefault("account"),
        };
        var result = await registrations.RegisterAsync(request, caller, cancellationToken);
        if (result is not DeviceResult.Done(var device, _))
        {
            return DeviceEndpoints.Problem(result, http.Response);
        }

        var push = queries.PushOf(device);
        return TypedResults.Text($"OK\n{push.Node}\n{push.Secret}", "text/plain; charset=utf-8");
    }

    private static async Task<Results<ContentHttpResult, ProblemHttpResult>> UnregisterAsync(
        string domain,
        HttpContext http,
        DeviceDoor door,
        Registrations registrations,
        ServedAccounts accounts,
        CancellationToken cancellationToken
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<JsonObject>(http.Request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        if (
            !accounts.TryName(Text(body, "account"), out var account, out _)
            || accounts.ComponentOf(account) != domain
            || Text(body, "provider") is not { } provider
            || Text(body, "device-token") is not { } token
            || door.OfProvider(provider) is not { } app
        )
        {
            return ApiProblem.NotFound();
        }

        var caller = new Caller("device token", account, http.Connection.RemoteIpAddress?.ToString());
        var normal = DeviceDoor.Token(DeviceDoor.PlatformOf(app, provider), token);
        return await registrations.UnregisterTokenAsync(app.Id, normal, caller, cancellationToken) is DeviceResult.Done
            ? TypedResults.Text(Removed, "application/json")
            : ApiProblem.NotFound();
    }

    private static string? Text(JsonObject body, string member) =>
        body[member] is JsonValue value && value.TryGetValue<string>(out var text) ? text : null;
}
