using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using PushRelay.Storage;

namespace PushRelay.Access;

internal static class AccessServices
{
    /// <summary>The policy of routes that are the operator's alone: 403 for an account.</summary>
    public const string OperatorOnly = nameof(OperatorOnly);

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
        services.AddAuthorizationBuilder()
            .SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build())
            .AddPolicy(OperatorOnly, policy => policy.RequireAuthenticatedUser());
        return services;
    }
}
