using System.Diagnostics;
using Microsoft.AspNetCore.Http.Features;

namespace PushRelay.Api;

/// <summary>Headers of every answer, and requests that are refused before they are routed.</summary>
internal static class ApiHardening
{
    public static Task Apply(HttpContext context, RequestDelegate next)
    {
        // just before the headers go out: an exception clears what was set earlier
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
        // Kestrel removes dot segments, also percent-encoded ones: a proxy in front may have checked another path
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

    /// <summary>A preflight (CORS) that no setting allows: 204 without the headers that would allow it.</summary>
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
