using PushRelay.Settings;

namespace PushRelay.Devices;

internal static class DeviceServices
{
    public static IServiceCollection AddDevices(this IServiceCollection services)
    {
        services
            .AddOptions<DeviceAppsOptions>()
            .Configure<IConfiguration>(
                (options, configuration) => options.Apps = SettingsReader.BindList<DeviceAppsOptions.App>(configuration, "Apps")
            );
        services.AddSingleton<DeviceApps>();
        services.AddSingleton<RecentDevices>();
        services.AddSingleton<RegistrationWriter>();
        services.AddSingleton<DeviceRegistry>();
        services.AddSingleton<DeviceQueries>();
        services.AddSingleton<Registrations>();
        return services;
    }
}
