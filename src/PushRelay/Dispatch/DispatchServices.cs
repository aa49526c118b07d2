using PushRelay.Settings;

namespace PushRelay.Dispatch;

internal static class DispatchServices
{
    public static IServiceCollection AddDispatch(this IServiceCollection services)
    {
        services
            .AddOptions<DispatchOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration>(
                (options, configuration) =>
                {
                    SettingsReader.Bind(configuration, "Dispatch", options);
                    options.Check();
                }
            );
        services
            .AddOptions<RetentionOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration>(
                (options, configuration) =>
                {
                    SettingsReader.Bind(configuration, "Retention", options);
                    options.Check();
                }
            );
        services.AddSingleton<LaneCircuits>();
        services.AddSingleton<NotificationBuilder>();
        services.AddSingleton<AlertSender>();
        services.AddSingleton<SettlementWriter>();
        services.AddHealthChecks().AddCheck<LaneCircuits>("apps");
        services.AddHostedService<PushDispatcher>();
        services.AddSingleton<Housekeeping>().AddHostedService(provider => provider.GetRequiredService<Housekeeping>());
        return services;
    }
}
