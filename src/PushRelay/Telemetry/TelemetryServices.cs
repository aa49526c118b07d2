using OpenTelemetry.Metrics;
using PushRelay.Settings;

namespace PushRelay.Telemetry;

internal static class TelemetryServices
{
    public static IServiceCollection AddTelemetry(this IServiceCollection services, IConfiguration configuration) =>
        services
            .AddRelayLogging(configuration)
            .AddSettings<TelemetryOptions>("Telemetry", "What monitoring reads.")
            .AddSingleton<Conditions>()
            .AddSingleton<RelayMetrics>()
            .AddSingleton<ClockSkew>()
            .AddHostedService<Watches>()
            .AddOpenTelemetry()
            .WithMetrics(metrics =>
                metrics
                    .AddMeter(RelayMetrics.MeterName, $"{RelayMetrics.MeterName}.*")
                    .AddPrometheusExporter(exporter => exporter.ScrapeResponseCacheDurationMilliseconds = 0)
            )
            .Services;
}
