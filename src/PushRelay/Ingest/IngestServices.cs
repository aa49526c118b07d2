using PushRelay.Ingest.Policy;
using PushRelay.Settings;

namespace PushRelay.Ingest;

internal static class IngestServices
{
    public static IServiceCollection AddIngest(this IServiceCollection services)
    {
        services
            .AddOptions<AlertsOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration>(
                (options, configuration) =>
                {
                    SettingsReader.Bind(configuration, "Alerts", options);
                    options.Check();
                }
            );
        services.AddSingleton<AlertPacer>().AddSingleton<DeliveryFactory>();
        services.AddSingleton<EventIngest>();
        return services;
    }
}
