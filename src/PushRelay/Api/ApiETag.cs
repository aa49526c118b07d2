using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Primitives;

namespace PushRelay.Api;

/// <summary>Conditional requests (RFC 9110 section 13.1) on what has a revision: its strong entity tag is the quoted revision.</summary>
internal static class ApiETag
{
    /// <summary>What the request's <c>If-Match</c> and <c>If-None-Match</c> ask for.</summary>
    public static ExpectedRevision ExpectedBy(HttpRequest request) =>
        new(RevisionsOf(request.Headers.IfMatch), RevisionsOf(request.Headers.IfNoneMatch));

    public static void Set(HttpResponse response, string revision) => response.Headers.ETag = $"\"{revision}\"";

    public static ProblemHttpResult Failed() =>
        ApiProblem.Of(
            StatusCodes.Status412PreconditionFailed,
            "precondition_failed",
            "The resource is not what the request expects.",
            "Read it again and repeat the change."
        );

    private static List<string>? RevisionsOf(StringValues header) =>
        header.Count == 0
            ? null
            : [.. header.SelectMany(h => h!.Split(',', StringSplitOptions.TrimEntries)).Select(RevisionOf).OfType<string>()];

    /// <summary>Null for what is none of our tags: a weak one, or one without quotes.</summary>
    private static string? RevisionOf(string tag) =>
        tag == ExpectedRevision.Anything ? tag
        : tag is ['"', .. var revision, '"'] && revision != ExpectedRevision.Anything ? revision
        : null;
}
