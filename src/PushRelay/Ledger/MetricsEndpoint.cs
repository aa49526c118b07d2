using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Telemetry;

namespace PushRelay.Ledger;

/// <summary>
/// <c>/metrics</c>, in Prometheus' text format: for operators on the addresses of the REST interface; with <c>Telemetry:MetricsUrl</c>
/// there only, open, and nothing else is there.
/// </summary>
internal static class MetricsEndpoint
{
    private const string Path = "/metrics";

    /// <summary>Before any other middleware: the own listener knows no credentials.</summary>
    public static void UseMetricsListener(this WebApplication app)
    {
        if (app.Services.GetRequiredService<IOptions<TelemetryOptions>>().Value.Listener is not { } listener)
        {
            return;
        }

        // what is added here replaces the host's own list
        foreach (
            var url in app
                .Services.GetRequiredService<IOptions<ListenOptions>>()
                .Value.Urls.Split(';', StringSplitOptions.RemoveEmptyEntries)
        )
        {
            app.Urls.Add(url.Trim());
        }

        app.Urls.Add(listener.ToString());
        app.MapWhen(
            context => context.Connection.LocalPort == listener.Port,
            own =>
            {
                own.Use(RefreshAsync);
                own.UseOpenTelemetryPrometheusScrapingEndpoint(context => context.Request.Path == Path);
                own.Run(context =>
                {
                    context.Response.StatusCode = StatusCodes.Status404NotFound;
                    return Task.CompletedTask;
                });
            }
        );
    }

    public static void Map(WebApplication app)
    {
        if (app.Services.GetRequiredService<IOptions<TelemetryOptions>>().Value.Listener is null)
        {
            app.MapPrometheusScrapingEndpoint(Path, meterProvider: null, branch => branch.Use(RefreshAsync), optionsName: null)
                .WithMetadata(new HttpMethodMetadata([HttpMethods.Get]))
                .RequireAuthorization(AccessServices.OperatorOnly);
        }
    }

    private static async Task RefreshAsync(HttpContext context, RequestDelegate next)
    {
        await context.RequestServices.GetRequiredService<MetricSamples>().RefreshAsync(context.RequestAborted);
        await next(context);
    }
}
