namespace PushRelay.Deliveries;

internal static class DeliveryServices
{
    public static IServiceCollection AddDeliveries(this IServiceCollection services) => services.AddSingleton<DeliveryLog>().AddSingleton<TestAlerts>();
}
