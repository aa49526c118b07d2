using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;

namespace PushRelay.Access;

/// <summary>The body of <c>POST /v1/tokens</c>.</summary>
public sealed record TokenRequest
{
    public string? Account { get; init; }
}

/// <summary>An account token as the outside sees it after its issue: never the token itself.</summary>
public sealed record TokenAnswer(Guid Id, string Account, DateTimeOffset CreatedAt, DateTimeOffset ExpiresAt, bool Current);

/// <summary>An account token, shown this once.</summary>
public sealed record NewTokenAnswer(Guid Id, string Account, string Token, DateTimeOffset CreatedAt, DateTimeOffset ExpiresAt);

/// <summary>A page of a list, newest first.</summary>
public sealed record TokenPage(IReadOnlyList<TokenAnswer> Items, string? Next);

/// <summary>One record of the audit.</summary>
public sealed record AuditAnswer(
    Guid Id,
    DateTimeOffset At,
    string Actor,
    string? Address,
    string Action,
    string? Account,
    string? Target,
    string Result
);

/// <summary>A page of a list, newest first.</summary>
public sealed record AuditPage(IReadOnlyList<AuditAnswer> Items, string? Next);

/// <summary><c>/v1/tokens</c> and <c>/v1/audit</c>: who may come in, and who did what.</summary>
internal sealed class TokenEndpoints(AccountTokens tokens, AuditTrail audit, ServedAccounts accounts)
{
    private const string Example = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","account":"bob@example.com","createdAt":"2026-11-23T02:56:29.398Z","expiresAt":"2027-02-21T02:56:29.398Z","current":true}
        """;

    private const string ExampleNew = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","account":"bob@example.com","token":"pra_...","createdAt":"2026-11-23T02:56:29.398Z","expiresAt":"2027-02-21T02:56:29.398Z"}
        """;

    private const string ExampleRecord = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","at":"2026-11-23T02:56:29.398Z","actor":"ops","address":"127.0.0.1","action":"device.registered",
         "account":"bob@example.com","target":"3F2A-91","result":"done"}
        """;

    public static void Map(IEndpointRouteBuilder routes)
    {
        var group = routes.MapApi("/v1/tokens", "tokens");
        group
            .MapPost("", (HttpContext http, TokenEndpoints endpoints) => endpoints.IssueAsync(http))
            .WithSummary("Issues an account token")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .Takes<TokenRequest>()
            .WithExample("""{"account":"bob@example.com"}""", ExampleNew);
        group
            .MapPost("renew", (HttpContext http, TokenEndpoints endpoints) => endpoints.RenewAsync(http))
            .WithSummary("Replaces the account token that the request comes with")
            .WithExample(null, ExampleNew);
        group
            .MapGet(
                "",
                (string? account, string? cursor, string? limit, HttpContext http, TokenEndpoints endpoints) =>
                    endpoints.ListAsync(account, cursor, limit, http)
            )
            .WithSummary("Lists the account tokens that hold")
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");
        group
            .MapDelete("{id}", (string id, HttpContext http, TokenEndpoints endpoints) => endpoints.RevokeAsync(id, http))
            .WithSummary("Revokes an account token");
        routes
            .MapApi("/v1/audit", "audit")
            .MapGet(
                "",
                (string? account, string? cursor, string? limit, HttpContext http, TokenEndpoints endpoints) =>
                    endpoints.AuditAsync(account, cursor, limit, http)
            )
            .WithSummary("Who changed what")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, $$"""{"items":[{{ExampleRecord}}],"next":null}""");
    }

    private async Task<Results<Created<NewTokenAnswer>, ProblemHttpResult>> IssueAsync(HttpContext http)
    {
        var (body, problem) = await ApiBody.ReadAsync<TokenRequest>(http.Request, http.RequestAborted);
        if (body is null)
        {
            return problem!;
        }

        return accounts.TryName(body.Account, out var account, out var why)
            ? await AnswerAsync(tokens.TryIssue(account, ApiCaller.Of(http).ActorOf(http), out var wait, http.RequestAborted), wait, http)
            : ApiProblem.Validation("account", body.Account is null ? "is missing" : why);
    }

    /// <summary>Only a token renews itself: what an identity provider vouches for ends when the provider says so.</summary>
    private async Task<Results<Created<NewTokenAnswer>, ProblemHttpResult>> RenewAsync(HttpContext http) =>
        AccountTokenHandler.Of(http) is { } token
            ? await AnswerAsync(tokens.TryRenew(token, ApiCaller.Of(http).ActorOf(http), out var wait, http.RequestAborted), wait, http)
            : ApiProblem.Of(403, "forbidden", "This credential may not do that.", "Only an account token can be renewed, by itself.");

    private static async Task<Results<Created<NewTokenAnswer>, ProblemHttpResult>> AnswerAsync(
        Task<(string Token, AccountToken Kept)>? issuing,
        TimeSpan wait,
        HttpContext http
    )
    {
        if (issuing is null)
        {
            return ApiProblem.TooMany(http, wait);
        }

        var (secret, token) = await issuing;
        return TypedResults.Created((string?)null, new NewTokenAnswer(token.Id, token.Account, secret, token.CreatedAt, token.ExpiresAt));
    }

    private async Task<Results<Ok<TokenPage>, ProblemHttpResult>> ListAsync(
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
            return TypedResults.Ok(new TokenPage([], null));
        }

        var current = AccountTokenHandler.Of(http)?.Id;
        var rows = await tokens.ListAsync(owner, page.Before, page.Limit + 1, http.RequestAborted);
        var items = rows.Take(page.Limit).ToList();
        return TypedResults.Ok(
            new TokenPage(
                [.. items.Select(t => new TokenAnswer(t.Id, t.Account, t.CreatedAt, t.ExpiresAt, t.Id == current))],
                rows.Count > items.Count ? page.After(items[^1].Id) : null
            )
        );
    }

    private async Task<Results<NoContent, ProblemHttpResult>> RevokeAsync(string id, HttpContext http)
    {
        var caller = ApiCaller.Of(http);
        return
            Guid.TryParseExact(id, "D", out var key)
            && await tokens.RevokeAsync(caller.Account, key, caller.ActorOf(http), http.RequestAborted)
            ? TypedResults.NoContent()
            : ApiProblem.NotFound();
    }

    private async Task<Results<Ok<AuditPage>, ProblemHttpResult>> AuditAsync(
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
            return TypedResults.Ok(new AuditPage([], null));
        }

        var rows = await audit.ListAsync(owner, page.Before, page.Limit + 1, http.RequestAborted);
        var items = rows.Take(page.Limit).ToList();
        return TypedResults.Ok(
            new AuditPage(
                [.. items.Select(r => new AuditAnswer(r.Id, r.At, r.Actor, r.Address, r.Action, r.Account, r.Target, r.Result))],
                rows.Count > items.Count ? page.After(items[^1].Id) : null
            )
        );
    }
}
