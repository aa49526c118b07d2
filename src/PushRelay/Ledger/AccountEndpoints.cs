using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Api;

namespace PushRelay.Ledger;

/// <summary><c>/v1/accounts/{account}</c>, for the operator.</summary>
internal static class AccountEndpoints
{
    public static void Map(IEndpointRouteBuilder routes) =>
        routes
            .MapApi("/v1/accounts", "accounts")
            .MapGet("{account}", ShowAsync)
            .WithSummary("State, sessions, devices and unread of an account")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, """{"account":"bob@example.com","state":"background","unread":3,"sessions":[],"devices":[]}""");

    private static async Task<Results<Ok<AccountDetail>, ProblemHttpResult>> ShowAsync(
        string account,
        AccountQueries accounts,
        CancellationToken cancellationToken
    ) => await accounts.FindAsync(account, cancellationToken) is { } found ? TypedResults.Ok(found) : ApiProblem.NotFound();
}
