namespace PushRelay.Telemetry;

internal static class TelemetryServices
{
    public static IServiceCollection AddTelemetry(this IServiceCollection services, IConfiguration configuration) =>
        services.AddRelayLogging(configuration).AddSingleton<Conditions>();
}
