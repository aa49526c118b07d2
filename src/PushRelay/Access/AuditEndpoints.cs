using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;

namespace PushRelay.Access;

/// <summary>One record of the audit.</summary>
public sealed record AuditResponse(
    Guid Id,
    DateTimeOffset At,
    string Actor,
    string? Address,
    string Action,
    string? Account,
    string? Target,
    string Result
);

/// <summary><c>/v1/audit</c>: who did what, and who was refused. It is here because the Audit module must not use the REST
/// interface.</summary>
internal static class AuditEndpoints
{
    private const string Example = """
        {"id":"01a20655-59a4-7000-827e-9b3efa90293d","at":"2026-11-23T02:56:29.398Z","actor":"ops","address":"127.0.0.1",
         "action":"device.registered","account":"bob@example.com","target":"3F2A-91","result":"done"}
        """;

    public static void Map(IEndpointRouteBuilder routes) =>
        routes
            .MapApi("/v1/audit", "audit")
            .MapGet("", ListAsync)
            .WithSummary("Who changed what")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, $$"""{"items":[{{Example}}],"next":null}""");

    private static async Task<Results<Ok<Page<AuditResponse>>, ProblemHttpResult>> ListAsync(
        string? account,
        string? cursor,
        string? limit,
        Caller caller,
        AuditTrail audit,
        ServedAccounts accounts,
        ListPages pages,
        CancellationToken cancellationToken
    )
    {
        if (!pages.TryRead("audit", caller.Account, cursor, limit, out var page, out var error))
        {
            return ApiProblem.Of(error);
        }

        if (!caller.TryNarrow(accounts, account, out var owner))
        {
            return TypedResults.Ok(new Page<AuditResponse>([], null));
        }

        var rows = await audit.ListAsync(owner, page.Before, page.RowsToRead, cancellationToken);
        return TypedResults.Ok(page.Cut(rows, r => r.Id, Show));
    }

    private static AuditResponse Show(AuditRecord record) =>
        new(record.Id, record.At, record.Actor, record.Address, record.Action, record.Account, record.Target, record.Result);
}
