using PushRelay.Links;

namespace PushRelay.PushService;

internal static class PushServiceServices
{
    public static IServiceCollection AddPushService(this IServiceCollection services)
    {
        services.AddSingleton<PublishWriter>();
        services.AddSingleton<IIqHandler, PublishHandler>();
        services.AddSingleton<ILinkWorker, Push2Service>();
        services.AddSingleton(new DiscoFeature(Publish.Push.NamespaceName));
        services.AddSingleton(new DiscoFeature(Publish.Push2.NamespaceName));
        foreach (var part in (string[])["", "#publish", "#publish-options"])
        {
            services.AddSingleton(new DiscoFeature(Publish.PubSub.NamespaceName + part));
        }

        return services;
    }
}
