namespace PushRelay.Links;

internal static class LinkServices
{
    public static IServiceCollection AddLinks(this IServiceCollection services)
    {
        // the XMPP library answers pings
        services.AddSingleton(new DiscoFeature("urn:xmpp:ping"));
        services.AddSingleton<LinkService>();
        services.AddHostedService(provider => provider.GetRequiredService<LinkService>());
        services.AddHealthChecks().AddCheck<LinkService>("xmpp");
        return services;
    }
}
