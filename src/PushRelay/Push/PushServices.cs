using PushRelay.Apps;
using PushRelay.Push.Apns;
using PushRelay.Settings;

namespace PushRelay.Push;

internal static class PushServices
{
    public static IServiceCollection AddPush(this IServiceCollection services)
    {
        services
            .AddOptions<AppsOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration, SettingsFile>(
                (options, configuration, file) =>
                {
                    options.Apps = SettingsReader.BindList<AppOptions>(configuration, "Apps");
                    options.Check(file);
                }
            );
        services.AddSingleton<ApnsTokenStore>();
        services.AddSingleton<IPushNetwork, ApnsNetwork>();
        services.AddSingleton<PushNetworks>();
        return services;
    }
}
