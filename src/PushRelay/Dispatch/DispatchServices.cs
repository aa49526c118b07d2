using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Dispatch;

internal static class DispatchServices
{
    public static IServiceCollection AddDispatch(this IServiceCollection services)
    {
        services.AddSettings<DispatchOptions>("Dispatch", "How deliveries are tried.");
        services.AddSingleton<LaneCircuits>();
        services.AddSingleton<NotificationBuilder>();
        services.AddSingleton<AlertSender>();
        services.AddSingleton<SettlementWriter>();
        services.AddWatch<PendingWatch>();
        services.AddHealthChecks().AddCheck<LaneCircuits>("apps");
        services.AddHostedService<PushDispatcher>();
        services.AddSingleton<Housekeeping>().AddHostedService(provider => provider.GetRequiredService<Housekeeping>());
        return services;
    }
}
