using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Api;
using PushRelay.Apps;

namespace PushRelay.Access;

/// <summary>The body of <c>POST /v1/tokens</c>.</summary>
public sealed record TokenRequest
{
    public string? Account { get; init; }
}

/// <summary>An account token as it is shown after its issue: never the token itself.</summary>
public sealed record TokenResponse(Guid Id, string Account, DateTimeOffset CreatedAt, DateTimeOffset ExpiresAt, bool Current);

/// <summary>An account token, shown this once.</summary>
public sealed record NewTokenResponse(Guid Id, string Account, string Token, DateTimeOffset CreatedAt, DateTimeOffset ExpiresAt);

/// <summary><c>/v1/tokens</c>: credentials of accounts.</summary>
internal static class TokenEndpoints
{
    private const string Example = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","account":"bob@example.com","createdAt":"2026-11-23T02:56:29.398Z",
         "expiresAt":"2027-02-21T02:56:29.398Z","current":true}
        """;

    private const string ExampleNew = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","account":"bob@example.com","token":"pra_...",
         "createdAt":"2026-11-23T02:56:29.398Z","expiresAt":"2027-02-21T02:56:29.398Z"}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var tokens = routes.MapApi("/v1/tokens", "tokens");
        tokens
            .MapPost("", IssueAsync)
            .WithSummary("Issues an account token")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .Takes<TokenRequest>()
            .WithExample("""{"account":"bob@example.com"}""", ExampleNew);
        tokens
            .MapPost("renew", RenewAsync)
            .WithSummary("Replaces the account token that the request comes with")
            .WithExample(null, ExampleNew);
        tokens
            .MapGet("", ListAsync)
            .WithSummary("Lists the valid account tokens")
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");
        tokens.MapDelete("{id}", RevokeAsync).WithSummary("Revokes an account token");
    }

    private static async Task<Results<Created<NewTokenResponse>, ProblemHttpResult>> IssueAsync(
        HttpContext http,
        Caller caller,
        AccountTokens tokens,
        ServedAccounts accounts,
        CancellationToken cancellationToken
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<TokenRequest>(http.Request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        return accounts.TryName(body.Account, out var account, out var why)
            ? Show(await tokens.IssueAsync(account, caller.Actor, cancellationToken), http.Response)
            : ApiProblem.Validation("account", body.Account is null ? "is missing" : why);
    }

    /// <summary>Only a token renews itself: what an identity provider vouches for ends when the provider says so.</summary>
    private static async Task<Results<Created<NewTokenResponse>, ProblemHttpResult>> RenewAsync(
        HttpContext http,
        Caller caller,
        AccountTokens tokens,
        CancellationToken cancellationToken
    ) =>
        AccountTokenHandler.Of(http) is { } token
            ? Show(await tokens.RenewAsync(token, caller.Actor, cancellationToken), http.Response)
            : ApiProblem.Of(403, "forbidden", "This credential may not do that.", "Only an account token can be renewed, by itself.");

    private static Results<Created<NewTokenResponse>, ProblemHttpResult> Show(TokenIssue issue, HttpResponse response) =>
        issue switch
        {
            TokenIssue.Issued(var secret, var token) => TypedResults.Created(
                (string?)null,
                new NewTokenResponse(token.Id, token.Account, secret, token.CreatedAt, token.ExpiresAt)
            ),
            TokenIssue.TooMany(var wait) => ApiProblem.TooMany(response, wait),
            _ => throw new System.Diagnostics.UnreachableException(),
        };

    private static async Task<Results<Ok<Page<TokenResponse>>, ProblemHttpResult>> ListAsync(
        string? account,
        string? cursor,
        string? limit,
        HttpContext http,
        Caller caller,
        AccountTokens tokens,
        ServedAccounts accounts,
        ListPages pages,
        CancellationToken cancellationToken
    )
    {
        if (!pages.TryRead("tokens", caller.Account, cursor, limit, out var page, out var error))
        {
            return ApiProblem.Of(error);
        }

        if (!caller.TryNarrow(accounts, account, out var owner))
        {
            return TypedResults.Ok(new Page<TokenResponse>([], null));
        }

        var current = AccountTokenHandler.Of(http)?.Id;
        var rows = await tokens.ListAsync(owner, page.Before, page.RowsToRead, cancellationToken);
        return TypedResults.Ok(
            page.Cut(rows, t => t.Id, t => new TokenResponse(t.Id, t.Account, t.CreatedAt, t.ExpiresAt, t.Id == current))
        );
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> RevokeAsync(
        string id,
        Caller caller,
        AccountTokens tokens,
        CancellationToken cancellationToken
    ) =>
        Guid.TryParseExact(id, "D", out var key) && await tokens.RevokeAsync(caller.Account, key, caller.Actor, cancellationToken)
            ? TypedResults.NoContent()
            : ApiProblem.NotFound();
}
