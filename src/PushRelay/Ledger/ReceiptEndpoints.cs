using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Api;

namespace PushRelay.Ledger;

/// <summary>The body of <c>POST /v1/receipts</c>.</summary>
public sealed record ReceiptRequest
{
    /// <summary>Payload member <c>receipt</c> of the alert.</summary>
    public string? Receipt { get; init; }

    /// <summary><c>received</c> or <c>opened</c>.</summary>
    public string? Event { get; init; }

    /// <summary>When, by the phone's clock; left out: now.</summary>
    public DateTimeOffset? At { get; init; }
}

/// <summary><c>/v1/receipts</c>, open to all callers: the receipt itself is the credential, for exactly one delivery.</summary>
internal static class ReceiptEndpoints
{
    private const int ReceiptCharsMax = 100;

    private const string Example = """{"receipt":"AZxVvXqAcADGA3nTbf8OmtYbQ4dN7rcyjX3a4kl9Xb0","event":"received"}""";

    public static void Map(IEndpointRouteBuilder routes) =>
        routes
            .MapApi("/v1/receipts", "receipts")
            .MapPost("", WriteAsync)
            .AllowAnonymous()
            .WithSummary("The phone says that an alert came, or was opened")
            .Takes<ReceiptRequest>()
            .WithExample(Example, null);

    private static async Task<Results<NoContent, ProblemHttpResult>> WriteAsync(
        HttpContext http,
        ReceiptWriter receipts,
        CancellationToken cancellationToken
    )
    {
        var (body, problem) = await ApiBody.ReadAsync<ReceiptRequest>(http.Request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        if (body.Event is not ("received" or "opened"))
        {
            return ApiProblem.Validation("event", body.Event is null ? "is missing" : "must be \"received\" or \"opened\"");
        }

        if (body.Receipt is null)
        {
            return ApiProblem.Validation("receipt", "is missing");
        }

        return
            body.Receipt.Length <= ReceiptCharsMax
            && await receipts.WriteAsync(body.Receipt, body.Event == "opened", body.At, cancellationToken)
            ? TypedResults.NoContent()
            : ApiProblem.Of(400, "bad_receipt", "This is no receipt of ours.", "receipt must be the payload's member, unchanged.");
    }
}
