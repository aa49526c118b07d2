using PushRelay.Ingest.Policy;
using PushRelay.Settings;

namespace PushRelay.Ingest;

internal static class IngestServices
{
    public static IServiceCollection AddIngest(this IServiceCollection services)
    {
        services.AddSettings<AlertsOptions>("Alerts", "When an alert goes out.");
        services.AddSingleton<AlertPacer>().AddSingleton<DeliveryFactory>();
        services.AddSingleton<EventIngest>();
        return services;
    }
}
