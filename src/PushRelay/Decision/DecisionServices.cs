using PushRelay.Storage;

namespace PushRelay.Decision;

internal static class DecisionServices
{
    public static IServiceCollection AddDecision(this IServiceCollection services)
    {
        services.AddOptions<AlertsOptions>().ValidateOnStart().Configure<IConfiguration>((options, configuration) =>
        {
            SettingsReader.Bind(configuration, "Alerts", options);
            options.Check();
        });
        services.AddSingleton<AlertPacer>();
        services.AddSingleton<EventIngest>();
        return services;
    }
}
