using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Push.WebPush;

namespace PushRelay.Devices;

/// <summary><c>/v1/apps/{app}</c>, open to all callers: what an app has to know before it can register.</summary>
internal static class AppEndpoints
{
    private const string Example = """
        {"id":"com.example.chat","platforms":["apns","webpush"],
         "webPush":{"publicKey":"BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"}}
        """;

    public static void Map(IEndpointRouteBuilder routes) =>
        routes
            .MapApi("/v1/apps", "apps")
            .MapGet("{app}", Show)
            .AllowAnonymous()
            .WithSummary("Shows the push networks of an app, and the key that a browser subscribes with")
            .WithExample(null, Example);

    private static Results<Ok<AppResponse>, ProblemHttpResult> Show(string app, AppCatalog apps, WebPushNetwork webPush) =>
        apps.Find(app) is { } found
            ? TypedResults.Ok(
                new AppResponse(
                    found.Id,
                    found.Platforms,
                    webPush.PublicKeyOf(found.Id) is { } publicKey ? new WebPushKeyResponse(publicKey) : null
                )
            )
            : ApiProblem.NotFound();
}

/// <summary>The public part of an app.</summary>
/// <param name="Id">As registrations name it.</param>
/// <param name="Platforms">The push networks that reach it.</param>
/// <param name="WebPush">Where Web Push is among them.</param>
public sealed record AppResponse(
    string Id,
    IReadOnlyCollection<string> Platforms,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] WebPushKeyResponse? WebPush
);

/// <param name="PublicKey">For <c>applicationServerKey</c>: P-256, uncompressed, base64url.</param>
public sealed record WebPushKeyResponse(string PublicKey);
