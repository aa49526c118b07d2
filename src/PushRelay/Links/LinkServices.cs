using PushRelay.Apps;
using PushRelay.Settings;

namespace PushRelay.Links;

internal static class LinkServices
{
    public static IServiceCollection AddLinks(this IServiceCollection services)
    {
        services
            .AddOptions<XmppOptions>()
            .ValidateOnStart()
            .Configure<IConfiguration>(
                (options, configuration) =>
                {
                    options.Components = SettingsReader.BindList<ComponentOptions>(configuration, "Xmpp:Components");
                    options.Check();
                }
            );
        // the XMPP library answers pings
        services.AddSingleton(new DiscoFeature("urn:xmpp:ping"));
        services.AddSingleton<LinkService>();
        services.AddHostedService(provider => provider.GetRequiredService<LinkService>());
        services.AddHealthChecks().AddCheck<LinkService>("xmpp");
        return services;
    }
}
