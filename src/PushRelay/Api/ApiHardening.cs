using System.Diagnostics;
using Microsoft.AspNetCore.Http.Features;

namespace PushRelay.Api;

/// <summary>What holds for every answer, and which requests are not even looked at.</summary>
internal static class ApiHardening
{
    public static Task Apply(HttpContext context, RequestDelegate next)
    {
        // last of all: an exception takes away what was set before
        context.Response.OnStarting(() =>
        {
            var headers = context.Response.Headers;
            headers.TryAdd("Cache-Control", "no-store");
            headers.TryAdd("X-Content-Type-Options", "nosniff");
            headers.TryAdd("X-Frame-Options", "DENY");
            headers.TryAdd("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
            headers.TryAdd("Referrer-Policy", "no-referrer");
            headers.TryAdd("X-Request-Id", TraceId(context));
            return Task.CompletedTask;
        });
        // Kestrel takes dot segments away, written as they are or percent-encoded: a proxy before us may have read another path
        if (HasDotSegments(context.Features.Get<IHttpRequestFeature>()?.RawTarget))
        {
            context.Response.StatusCode = StatusCodes.Status400BadRequest;
            return context
                .RequestServices.GetRequiredService<IProblemDetailsService>()
                .WriteAsync(new ProblemDetailsContext { HttpContext = context })
                .AsTask();
        }

        return next(context);
    }

    /// <summary>A browser asks whether a page of another origin may: not unless settings say so, which was looked at before.</summary>
    public static Task AnswerPreflight(HttpContext context, RequestDelegate next)
    {
        if (
            HttpMethods.IsOptions(context.Request.Method)
            && context.Request.Headers.Origin.Count > 0
            && context.Request.Headers.AccessControlRequestMethod.Count > 0
        )
        {
            context.Response.StatusCode = StatusCodes.Status204NoContent;
            return Task.CompletedTask;
        }

        return next(context);
    }

    /// <summary>Names the request in answer and log.</summary>
    public static string TraceId(HttpContext context) => Activity.Current?.TraceId.ToString() ?? context.TraceIdentifier;

    private static bool HasDotSegments(string? target)
    {
        var path = (target ?? "").Split('?', 2)[0];
        return path.Contains('%', StringComparison.Ordinal) || path.Contains("/.", StringComparison.Ordinal)
            ? path.Replace("%2e", ".", StringComparison.OrdinalIgnoreCase).Split('/').Any(segment => segment is "." or "..")
            : false;
    }
}
