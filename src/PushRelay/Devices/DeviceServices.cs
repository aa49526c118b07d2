using PushRelay.Settings;

namespace PushRelay.Devices;

internal static class DeviceServices
{
    public static IServiceCollection AddDevices(this IServiceCollection services)
    {
        services.AddSettings<DevicesOptions>("Devices", "Devices that are registered.");
        services.AddSingleton<RecentDevices>();
        services.AddSingleton<RegistrationWriter>();
        services.AddSingleton<DeviceRegistry>();
        services.AddSingleton<NodeSecrets>();
        services.AddSingleton<DeviceQueries>();
        services.AddSingleton<Registrations>();
        return services;
    }
}
