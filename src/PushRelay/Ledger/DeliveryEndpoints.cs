using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Outbox;

namespace PushRelay.Ledger;

/// <summary><c>/v1/deliveries</c>: why an alert came, or did not.</summary>
internal static class DeliveryEndpoints
{
    private const string Example = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","account":"bob@example.com","device":"3F2A-91",
         "app":"com.example.chat","platform":"apns",
         "event":{"source":"bridge","class":"text","from":"alice@example.com","id":"16d29059d1ce","stanzaId":"DfZjcbF3",
          "at":"2026-11-23T02:56:26.380Z"},
         "state":"accepted","reason":"offline","count":1,"coalescedInto":null,"attempts":1,"createdAt":"2026-11-23T02:56:26.452Z",
         "dueAt":"2026-11-23T02:56:26.452Z","expiresAt":"2026-11-24T02:56:26.380Z","settledAt":"2026-11-23T02:56:26.533Z",
         "receivedAt":null,"openedAt":null}
        """;

    private const string ExampleAttempt = """
        {"number":1,"at":"2026-11-23T02:56:26.459Z","durationMs":73,"status":200,"reason":null,"outcome":"accepted",
         "providerId":"01a20655-59a4-7000-827e-9b3efa90293d","apnsId":"01a20655-59a4-7000-827e-9b3efa90293d"}
        """;

    private const string ExampleSituation = """
        {"account":"offline","ownSession":"offline","tied":false,"otherInFront":false,"muted":false,
         "mention":false,"quietHours":false,"unacked":false}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var deliveries = routes.MapApi("/v1/deliveries", "deliveries");
        deliveries
            .MapGet("", ListAsync)
            .WithSummary("The delivery log, newest first")
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");
        deliveries
            .MapGet("{id}", ShowAsync)
            .WithSummary("One delivery with what its decision looked at, and every attempt")
            .WithExample(null, $$"""{{Example[..^1]}},"situation":{{ExampleSituation}},"log":[{{ExampleAttempt}}]}""");
        deliveries
            .MapPost("{id}/retry", RetryAsync)
            .WithSummary("Sends a dead, rejected or expired delivery again")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, Example);
        routes
            .MapApi("/v1/alerts", "alerts")
            .MapPost("", SendAsync)
            .WithSummary("An operator's own alert, by the same rules as a message")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .Takes<AlertRequest>()
            .WithExample(
                """{"account":"bob@example.com","title":"Maintenance","body":"Tonight from 2 to 3","timeToLive":"01:00:00"}""",
                $$"""{"items":[{{Example}}]}"""
            );
        routes
            .MapApi("/v1/devices", "devices")
            .MapPost("{deviceId}/test", TestAsync)
            .WithSummary("Sends a test alert")
            .WithExample(null, Example);
    }

    private static async Task<Results<Accepted<DeliverySummary>, ProblemHttpResult>> TestAsync(
        string deviceId,
        string? account,
        HttpContext http,
        Caller caller,
        DeviceQueries devices,
        TestAlerts alerts,
        RateLimits limits,
        CancellationToken cancellationToken
    )
    {
        var found = await devices.FindAsync(account, deviceId, caller, cancellationToken);
        if (found is not DeviceResult.Done(var device, _))
        {
            return DeviceEndpoints.Problem(found, http.Response);
        }

        if (!caller.IsOperator && !limits.Tests.TryTake(device.Key.ToString("N"), out var wait))
        {
            return ApiProblem.TooMany(http.Response, wait);
        }

        var delivery = await alerts.SendAsync(device, Idempotency.KeyOf(http), caller.Actor, cancellationToken);
        return TypedResults.Accepted($"/v1/deliveries/{delivery.Id:D}", delivery);
    }

    private static async Task<Results<Accepted<AlertResponse>, ProblemHttpResult>> SendAsync(
        HttpContext http,
        Caller caller,
        OwnAlerts alerts,
        CancellationToken cancellationToken
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<AlertRequest>(http.Request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        return await alerts.SendAsync(body, Idempotency.KeyOf(http), caller.Actor, cancellationToken) switch
        {
            OwnAlertResult.Made made => TypedResults.Accepted((string?)null, new AlertResponse(made.Deliveries)),
            OwnAlertResult.Invalid invalid => ApiProblem.Validation(invalid.Errors),
            _ => ApiProblem.NotFound(),
        };
    }

    private static async Task<Results<Accepted<DeliverySummary>, ProblemHttpResult>> RetryAsync(
        string id,
        Caller caller,
        DeliveryRetries retries,
        CancellationToken cancellationToken
    )
    {
        if (!Guid.TryParseExact(id, "D", out var key))
        {
            return ApiProblem.NotFound();
        }

        return await retries.RetryAsync(key, caller.Actor, cancellationToken) switch
        {
            RetryResult.Pending pending => TypedResults.Accepted($"/v1/deliveries/{id}", pending.Delivery),
            RetryResult.Refused refused => ApiProblem.Of(409, "not_retryable", "The delivery cannot be sent again.", refused.Why),
            _ => ApiProblem.NotFound(),
        };
    }

    private static async Task<Results<Ok<Page<DeliverySummary>>, ProblemHttpResult>> ListAsync(
        string? account,
        string? device,
        string? app,
        string? platform,
        string? state,
        string? reason,
        [FromQuery(Name = "class")] string? kind,
        string? from,
        string? to,
        string? cursor,
        string? limit,
        Caller caller,
        DeliveryQueries deliveries,
        ServedAccounts accounts,
        ListPages pages,
        CancellationToken cancellationToken
    )
    {
        if (!pages.TryRead("deliveries", caller.Account, cursor, limit, out var page, out var error))
        {
            return ApiProblem.Of(error);
        }

        DeliveryState? wanted = null;
        if (state is not null)
        {
            if (!Names.TryParse(state, out DeliveryState parsed))
            {
                return ApiProblem.Validation(
                    "state",
                    $"must be one of {string.Join(", ", Enum.GetValues<DeliveryState>().Select(Names.Of))}"
                );
            }

            wanted = parsed;
        }

        EventClass? wantedClass = null;
        if (kind is not null)
        {
            if (!Names.TryParse(kind, out EventClass parsed))
            {
                return ApiProblem.Validation("class", $"must be one of {string.Join(", ", Enum.GetValues<EventClass>().Select(Names.Of))}");
            }

            wantedClass = parsed;
        }

        if (!ApiTime.TryParse(from, out var earliest))
        {
            return ApiProblem.Validation("from", ApiTime.Form);
        }

        if (!ApiTime.TryParse(to, out var end))
        {
            return ApiProblem.Validation("to", ApiTime.Form);
        }

        if (!caller.TryNarrow(accounts, account, out var owner) || (device is not null && !DeviceRules.IsId(device)))
        {
            return TypedResults.Ok(new Page<DeliverySummary>([], null));
        }

        var filter = new DeliveryFilter
        {
            Account = owner,
            Device = device,
            App = app,
            Platform = platform,
            State = wanted,
            Reason = reason,
            Class = wantedClass,
            From = earliest,
            To = end,
        };
        return TypedResults.Ok(await deliveries.ListAsync(filter, page, cancellationToken));
    }

    private static async Task<Results<Ok<DeliveryDetail>, ProblemHttpResult>> ShowAsync(
        string id,
        Caller caller,
        DeliveryQueries deliveries,
        CancellationToken cancellationToken
    )
    {
        if (
            !Guid.TryParseExact(id, "D", out var key) || await deliveries.FindAsync(caller.Account, key, cancellationToken) is not { } found
        )
        {
            return ApiProblem.NotFound();
        }

        return TypedResults.Ok(found);
    }
}
