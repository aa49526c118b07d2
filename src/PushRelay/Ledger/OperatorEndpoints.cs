using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Ledger;

/// <summary>What is wrong now, of this node.</summary>
public sealed record ConditionList(IReadOnlyList<ConditionResponse> Items);

/// <param name="Kind">One of docs/operating.md.</param>
/// <param name="Subject">Of what.</param>
/// <param name="Since">When it began.</param>
/// <param name="Detail">One sentence.</param>
/// <param name="Cure">What an operator can do about it.</param>
public sealed record ConditionResponse(string Kind, string Subject, DateTimeOffset Since, string Detail, string Cure);

/// <summary>Every app.</summary>
public sealed record AppList(IReadOnlyList<OperatedApp> Items);

/// <summary>An app as its operator sees it.</summary>
public sealed record OperatedApp(string Id, IReadOnlyList<OperatedNetwork> Networks);

/// <summary>One push network of an app.</summary>
/// <param name="Platform">As devices name it.</param>
/// <param name="Devices">Active ones.</param>
/// <param name="InvalidDevices">Those whose token is dead.</param>
/// <param name="OpenCircuits">Lanes that wait; empty: all send.</param>
public sealed record OperatedNetwork(string Platform, int Devices, int InvalidDevices, IReadOnlyList<OpenLane> OpenCircuits);

/// <param name="Lane">What shares one fate at the network.</param>
/// <param name="Code">What the network said.</param>
/// <param name="Since">When it opened.</param>
/// <param name="NextProbeAt">When one delivery is tried next.</param>
public sealed record OpenLane(string Lane, string Code, DateTimeOffset Since, DateTimeOffset NextProbeAt);

/// <param name="App">Which.</param>
/// <param name="Probed">How many open circuits are probed earlier for it.</param>
public sealed record ResumedApp(string App, int Probed);

/// <summary><c>/v1/conditions</c> and <c>/v1/apps</c>, for the operator.</summary>
internal static class OperatorEndpoints
{
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes
            .MapApi("/v1/conditions", "operation")
            .MapGet("", Conditions)
            .WithSummary("What is wrong now, each with its cure")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(
                null,
                """
                {"items":[{"kind":"link_down","subject":"push.example.com","since":"2026-11-23T02:56:26.380Z",
                 "detail":"component push.example.com is not connected","cure":"start the XMPP server"}]}
                """
            );
        var apps = routes.MapApi("/v1/apps", "apps");
        apps.MapGet("", ListAsync)
            .WithSummary("Every app with its push networks, circuits and devices")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(
                null,
                """
                {"items":[{"id":"com.example.chat","networks":[{"platform":"apns","devices":2,"invalidDevices":0,"openCircuits":[]}]}]}
                """
            );
        apps.MapPost("{app}/resume", ResumeAsync)
            .WithSummary("Probes the open circuits of an app now")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, """{"app":"com.example.chat","probed":1}""");
    }

    private static Ok<ConditionList> Conditions(Conditions conditions) =>
        TypedResults.Ok(
            new ConditionList([
                .. conditions.Snapshot().Select(c => new ConditionResponse(c.Kind.Name, c.Subject, c.Since, c.Text, c.Kind.Cure)),
            ])
        );

    private static async Task<Ok<AppList>> ListAsync(
        AppCatalog catalog,
        IDbContextFactory<RelayDb> databases,
        CancellationToken cancellationToken
    )
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var circuits = await CircuitTable.AllAsync(db, cancellationToken);
        var devices = await db.Set<Device>()
            .GroupBy(d => new
            {
                d.App,
                d.Platform,
                d.Status,
            })
            .Select(g => new { g.Key, Count = g.Count() })
            .ToDictionaryAsync(g => (g.Key.App, g.Key.Platform, g.Key.Status), g => g.Count, cancellationToken);
        return TypedResults.Ok(
            new AppList([
                .. catalog.Apps.Select(app => new OperatedApp(
                    app.Id,
                    [
                        .. app.Platforms.Select(platform => new OperatedNetwork(
                            platform,
                            devices.GetValueOrDefault((app.Id, platform, DeviceStatus.Active)),
                            devices.GetValueOrDefault((app.Id, platform, DeviceStatus.Invalid)),
                            [
                                .. circuits
                                    .Where(c => c.App == app.Id && c.Platform == platform)
                                    .Select(c => new OpenLane(c.Lane.Id, c.Code, c.OpenedAt, c.ProbeAt)),
                            ]
                        )),
                    ]
                )),
            ])
        );
    }

    private static async Task<Results<Accepted<ResumedApp>, ProblemHttpResult>> ResumeAsync(
        string app,
        Caller caller,
        AppCatalog catalog,
        IDbContextFactory<RelayDb> databases,
        DatabaseClock clock,
        AuditTrail audit,
        CancellationToken cancellationToken
    )
    {
        if (catalog.Find(app) is null)
        {
            return ApiProblem.NotFound();
        }

        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var probed = await CircuitTable.ProbeNowAsync(db, app, await clock.NowAsync(db, cancellationToken), cancellationToken);
        await audit.WriteAsync(caller.Actor, AuditActions.AppResumed, null, app, AuditTrail.Done, cancellationToken);
        return TypedResults.Accepted((string?)null, new ResumedApp(app, probed));
    }
}
