using PushRelay.Apps;
using PushRelay.Push.Apns;
using PushRelay.Telemetry;

namespace PushRelay.Push;

internal static class PushServices
{
    public static IServiceCollection AddPush(this IServiceCollection services)
    {
        services.AddNetworkSettings<ApnsOptions>(ApnsNetwork.Name, "Apns", "How the app is reached over APNs.");
        services.AddSingleton<ApnsTokenStore>();
        services.AddSingleton<IPushNetwork, ApnsNetwork>().AddDoctor<ApnsDoctor>(needsKey: true);
        services.AddSingleton<PushNetworks>();
        return services;
    }
}
