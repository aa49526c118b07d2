using System.Globalization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;

namespace PushRelay.Api;

/// <summary>RFC 9457 problems with our stable codes: <c>urn:pushrelay:problem:CODE</c>.</summary>
internal static class ApiProblem
{
    public static ProblemHttpResult Validation(string field, string message) =>
        Validation(new Dictionary<string, string[]> { [field] = [message] });

    public static ProblemHttpResult Validation(Dictionary<string, string[]> errors) =>
        Of(
            StatusCodes.Status400BadRequest,
            "validation",
            "The request is not valid.",
            string.Join(" ", errors.Select(e => $"{e.Key} {e.Value[0]}.")),
            errors
        );

    public static ProblemHttpResult Validation(IReadOnlyDictionary<string, string> errors) =>
        Validation(errors.ToDictionary(e => e.Key, string[] (e) => [e.Value]));

    public static ProblemHttpResult Of(PageError error) =>
        error switch
        {
            PageError.Limit => Validation("limit", $"must be a number from 1 to {ListPages.LimitMax}"),
            PageError.Cursor => Of(
                400,
                "bad_cursor",
                "The cursor is not one of ours.",
                "cursor must be the next of an earlier page.",
                new() { ["cursor"] = ["is not valid"] }
            ),
        };

    public static ProblemHttpResult NotFound() => Of(StatusCodes.Status404NotFound, "not_found", "There is no such resource.", null);

    public static ProblemHttpResult TooMany(HttpResponse response, TimeSpan wait)
    {
        SetTooMany(response, wait);
        var (code, title) = Describe(response.StatusCode);
        return Of(response.StatusCode, code, title, null);
    }

    /// <summary>429 with the whole seconds to wait (RFC 6585 section 4), for where no route answers: the body is added later.</summary>
    public static void SetTooMany(HttpResponse response, TimeSpan wait)
    {
        response.StatusCode = StatusCodes.Status429TooManyRequests;
        response.Headers.RetryAfter = Math.Ceiling(wait.TotalSeconds).ToString(CultureInfo.InvariantCulture);
    }

    public static ProblemHttpResult Of(int status, string code, string title, string? detail, Dictionary<string, string[]>? errors = null)
    {
        var problem = new ProblemDetails
        {
            Status = status,
            Title = title,
            Detail = detail,
            Type = TypeOf(code),
        };
        problem.Extensions["code"] = code;
        if (errors is not null)
        {
            problem.Extensions["errors"] = errors;
        }

        return TypedResults.Problem(problem);
    }

    /// <summary>What the framework answers itself (no route, no credential, a fault) in the same shape.</summary>
    public static void Complete(ProblemDetailsContext context)
    {
        var problem = context.ProblemDetails;
        if (!problem.Extensions.ContainsKey("code"))
        {
            var (code, title) = Describe(problem.Status ?? context.HttpContext.Response.StatusCode);
            problem.Type = TypeOf(code);
            problem.Title = title;
            problem.Detail = null;
            problem.Extensions["code"] = code;
        }

        problem.Extensions["traceId"] = ApiHardening.TraceId(context.HttpContext);
    }

    private static string TypeOf(string code) => $"urn:pushrelay:problem:{code}";

    private static (string Code, string Title) Describe(int status) =>
        status switch
        {
            400 => ("bad_request", "The request cannot be read."),
            401 => ("unauthorized", "A valid credential is needed."),
            403 => ("forbidden", "This credential may not do that."),
            404 => ("not_found", "There is no such resource."),
            408 => ("request_timeout", "The request came too slowly."),
            405 => ("method_not_allowed", "The resource does not know this method."),
            413 => ("too_large", "The request is too large."),
            415 => ("unsupported_media_type", "The request must be application/json."),
            429 => ("too_many_requests", "Too many requests; ask again after the seconds that Retry-After says."),
            503 => ("unavailable", "The relay cannot answer now; ask again later."),
            _ => ("internal", "The relay failed; the log has the details under this traceId."),
        };
}
