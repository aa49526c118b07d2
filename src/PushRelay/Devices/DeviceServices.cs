namespace PushRelay.Devices;

internal static class DeviceServices
{
    public static IServiceCollection AddDevices(this IServiceCollection services)
    {
        services.AddSingleton<DeviceApps>();
        services.AddSingleton<RecentDevices>();
        services.AddSingleton<RegistrationWriter>();
        services.AddSingleton<DeviceRegistry>();
        services.AddSingleton<DeviceEndpoints>();
        return services;
    }
}
