using Microsoft.AspNetCore.Diagnostics.HealthChecks;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace PushRelay.Telemetry;

/// <summary>
/// <c>/health/live</c>: the process answers. <c>/health/ready</c>: 200 with <c>ready</c>, or <c>degraded</c> where a link is down;
/// 503 with <c>unready</c> only where the database fails, else a load balancer would take away every node at once; with
/// <c>?strict=true</c> also where it is <c>degraded</c>.
/// </summary>
internal static class HealthEndpoints
{
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapHealthChecks("/health/live", Options(_ => false)).AllowAnonymous();
        routes.MapHealthChecks("/health/ready", Options(_ => true)).AllowAnonymous();
    }

    private static HealthCheckOptions Options(Func<HealthCheckRegistration, bool> which) =>
        new()
        {
            Predicate = which,
            ResponseWriter = (context, report) =>
            {
                if (report.Status == HealthStatus.Degraded && context.Request.Query["strict"] == "true")
                {
                    context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
                }

                return context.Response.WriteAsJsonAsync(
                    new
                    {
                        status = Name(report.Status),
                        checks = report.Entries.ToDictionary(
                            e => e.Key,
                            e => new { status = Name(e.Value.Status), detail = e.Value.Description }
                        ),
                    },
                    context.RequestAborted
                );
            },
        };

    private static string Name(HealthStatus status) =>
        status switch
        {
            HealthStatus.Healthy => "ready",
            HealthStatus.Degraded => "degraded",
            HealthStatus.Unhealthy => "unready",
        };
}
