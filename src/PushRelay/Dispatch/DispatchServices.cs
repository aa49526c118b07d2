using PushRelay.Settings;

namespace PushRelay.Dispatch;

internal static class DispatchServices
{
    public static IServiceCollection AddDispatch(this IServiceCollection services)
    {
        services.AddSettings<DispatchOptions>("Dispatch", "How deliveries are tried.");
        services.AddSingleton<AppCircuits>();
        services.AddSingleton<SettlementWriter>();
        services.AddHealthChecks().AddCheck<AppCircuits>("apps");
        services.AddHostedService<PushDispatcher>();
        services.AddSingleton<Housekeeping>().AddHostedService(provider => provider.GetRequiredService<Housekeeping>());
        return services;
    }
}
