using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using PushRelay.Storage;

namespace PushRelay.Access;

internal static class AccessServices
{
    public static IServiceCollection AddAccess(this IServiceCollection services)
    {
        services.AddOptions<ApiOptions>().ValidateOnStart().Configure<IConfiguration>((options, configuration) =>
        {
            options.OperatorKeys = SettingsReader.BindList<OperatorKey>(configuration, "Api:OperatorKeys");
            options.Check();
        });
        services.AddOptions<ServedOptions>().Configure<IConfiguration>((options, configuration) =>
            options.Components = SettingsReader.BindList<ServedOptions.ServedComponent>(configuration, "Xmpp:Components"));
        services.AddSingleton<ServedAccounts>();
        services.AddProblemDetails(problems => problems.CustomizeProblemDetails = ApiProblem.Complete);
        services.AddAuthentication(OperatorKeyHandler.SchemeName)
            .AddScheme<AuthenticationSchemeOptions, OperatorKeyHandler>(OperatorKeyHandler.SchemeName, null);
        // a route that says nothing needs a credential
        services.AddAuthorizationBuilder().SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build());
        return services;
    }
}
