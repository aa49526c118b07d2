using PushRelay.Storage;

namespace PushRelay.Providers;

internal static class ProviderServices
{
    public static IServiceCollection AddProviders(this IServiceCollection services)
    {
        services.AddOptions<AppsOptions>().ValidateOnStart().Configure<IConfiguration, SettingsFile>((options, configuration, file) =>
        {
            options.Apps = SettingsReader.BindList<AppOptions>(configuration, "Apps");
            options.Check(file);
        });
        services.AddSingleton<ProviderTokenStore>();
        services.AddSingleton<ApnsProvider>();
        return services;
    }
}
