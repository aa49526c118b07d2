using Microsoft.Extensions.Options;
using PushRelay.Apps;
using PushRelay.Push.Apns;
using PushRelay.Push.Connections;
using PushRelay.Push.Fcm;
using PushRelay.Push.JPush;
using PushRelay.Push.WebPush;
using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Push;

internal static class PushServices
{
    public static IServiceCollection AddPush(this IServiceCollection services)
    {
        services.AddSettings<NetworkOptions>("Network", "How push networks are reached, all of them.");
        services.AddNetworkSettings<ApnsOptions>(ApnsNetwork.Name, "Apns", "How the app is reached over APNs.");
        services.AddNetworkSettings<FcmOptions>(FcmNetwork.Name, "Fcm", "How the app is reached over FCM.");
        services.AddNetworkSettings<WebPushOptions>(WebPushNetwork.Name, "WebPush", "How browsers and UnifiedPush apps are reached.");
        services.AddNetworkSettings<JPushOptions>(JPushNetwork.Name, "JPush", "How the app is reached over JPush.");
        services.AddSingleton(provider => new PushConnector(
            provider.GetRequiredService<IOptions<NetworkOptions>>().Value.OpenProxy(),
            provider.GetRequiredService<TimeProvider>()
        ));
        services.AddSingleton<ApnsTokenStore>().AddSingleton<SharedAccessTokens>();
        services.AddNetwork<ApnsNetwork>().AddNetwork<FcmNetwork>().AddNetwork<WebPushNetwork>().AddNetwork<JPushNetwork>();
        services.AddWatch<ApnsComplaints>().AddWatch<CertificateWatch>();
        services.AddDoctor<ApnsDoctor>(needsKey: true).AddDoctor<NetworkDoctor>(needsKey: true);
        services.AddSingleton<PushNetworks>();
        return services;
    }

    private static IServiceCollection AddNetwork<T>(this IServiceCollection services)
        where T : class, IPushNetwork =>
        services.AddSingleton<T>().AddSingleton<IPushNetwork>(provider => provider.GetRequiredService<T>());
}
