using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Api;

namespace PushRelay.Ledger;

/// <summary><c>/v1/accounts/{account}</c>, for the operator.</summary>
internal static class AccountEndpoints
{
    private const string ExampleItem = """
        {"kind":"decision","at":"2026-11-23T02:56:26.452Z","text":"Not alerted on 3F2A-91: the account was in front.",
         "delivery":"01a20655-59a4-7000-827e-9b3efa90293d","device":"3F2A-91","state":"suppressed","reason":"foreground"}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var accounts = routes.MapApi("/v1/accounts", "accounts");
        accounts
            .MapGet("{account}", ShowAsync)
            .WithSummary("State, sessions, devices and unread of an account")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, """{"account":"bob@example.com","state":"background","unread":3,"sessions":[],"devices":[]}""");
        accounts
            .MapGet("{account}/explain", ExplainAsync)
            .WithSummary("Everything that happened to an account, newest first, each with a sentence")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, $$"""{"account":"bob@example.com","state":"offline","items":[{{ExampleItem}}],"next":null}""");
        accounts
            .MapGet("{account}/export", ExportAsync)
            .WithSummary("Everything that is kept about an account")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .Produces<object>()
            .WithExample(null, """{"account":"bob@example.com","exportedAt":"2026-11-23T02:56:26.452Z","devices":[],"deliveries":[]}""");
        accounts
            .MapDelete("{account}", EraseAsync)
            .WithSummary("Erases everything about an account; the audit keeps that it happened")
            .RequireAuthorization(AccessServices.OperatorOnly);
    }

    private static async Task<Results<Ok<AccountDetail>, ProblemHttpResult>> ShowAsync(
        string account,
        AccountQueries accounts,
        CancellationToken cancellationToken
    ) => await accounts.FindAsync(account, cancellationToken) is { } found ? TypedResults.Ok(found) : ApiProblem.NotFound();

    private static async Task<Results<Ok<Explanation>, ProblemHttpResult>> ExplainAsync(
        string account,
        string? from,
        string? to,
        string? cursor,
        string? limit,
        TimeLine timeLine,
        ListPages pages,
        CancellationToken cancellationToken
    )
    {
        if (!pages.TryRead($"explain {account}", null, cursor, limit, out var page, out var error))
        {
            return ApiProblem.Of(error);
        }

        if (!ApiTime.TryParse(from, out var earliest))
        {
            return ApiProblem.Validation("from", ApiTime.Form);
        }

        if (!ApiTime.TryParse(to, out var end))
        {
            return ApiProblem.Validation("to", ApiTime.Form);
        }

        if (earliest > end)
        {
            return ApiProblem.Validation("from", "must not be after to");
        }

        return await timeLine.OfAsync(account, earliest, end, page, cancellationToken) is { } found
            ? TypedResults.Ok(found)
            : ApiProblem.NotFound();
    }

    private static Results<PushStreamHttpResult, ProblemHttpResult> ExportAsync(
        string account,
        AccountData data,
        CancellationToken cancellationToken
    ) =>
        data.NameOf(account) is { } name
            ? TypedResults.Stream(output => data.ExportAsync(name, output, cancellationToken), "application/json")
            : ApiProblem.NotFound();

    private static async Task<Results<NoContent, ProblemHttpResult>> EraseAsync(
        string account,
        Caller caller,
        AccountData data,
        CancellationToken cancellationToken
    )
    {
        if (data.NameOf(account) is not { } name)
        {
            return ApiProblem.NotFound();
        }

        await data.EraseAsync(name, caller.Actor, cancellationToken);
        return TypedResults.NoContent();
    }
}
