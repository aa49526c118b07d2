using Microsoft.AspNetCore.Http.HttpResults;

namespace PushRelay.Api;

/// <summary>Conditional requests (RFC 9110 section 13.1) on what has a revision.</summary>
internal static class ApiETag
{
    /// <summary>Whether the request's <c>If-Match</c> and <c>If-None-Match</c> hold.</summary>
    /// <param name="request">The request.</param>
    /// <param name="current">The resource's tag with its quotes; null where there is no resource.</param>
    public static bool Holds(HttpRequest request, string? current)
    {
        var (match, noneMatch) = (request.Headers.IfMatch, request.Headers.IfNoneMatch);
        return (match.Count == 0 || Names(match, current)) && (noneMatch.Count == 0 || !Names(noneMatch, current));
    }

    public static ProblemHttpResult Failed() =>
        ApiProblem.Of(
            StatusCodes.Status412PreconditionFailed,
            "precondition_failed",
            "The resource is not what the request expects.",
            "Read it again and repeat the change."
        );

    private static bool Names(Microsoft.Extensions.Primitives.StringValues header, string? current) =>
        current is not null
        && header.SelectMany(h => h!.Split(',', StringSplitOptions.TrimEntries)).Any(tag => tag == "*" || tag == current);
}
