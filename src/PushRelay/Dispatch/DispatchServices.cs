using PushRelay.Storage;

namespace PushRelay.Dispatch;

internal static class DispatchServices
{
    public static IServiceCollection AddDispatch(this IServiceCollection services)
    {
        services.AddOptions<DispatchOptions>().ValidateOnStart().Configure<IConfiguration>((options, configuration) =>
        {
            SettingsReader.Bind(configuration, "Dispatch", options);
            options.Check();
        });
        services.AddOptions<RetentionOptions>().ValidateOnStart().Configure<IConfiguration>((options, configuration) =>
        {
            SettingsReader.Bind(configuration, "Retention", options);
            options.Check();
        });
        services.AddHostedService<PushDispatcher>();
        services.AddHostedService<Housekeeping>();
        return services;
    }
}
