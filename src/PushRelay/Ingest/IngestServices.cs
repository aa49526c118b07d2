namespace PushRelay.Ingest;

internal static class IngestServices
{
    public static IServiceCollection AddIngest(this IServiceCollection services)
    {
        services.AddSingleton<DeliveryFactory>().AddSingleton<ReadPushes>();
        services.AddSingleton<EventIngest>();
        return services;
    }
}
