namespace PushRelay.Api;

internal static class ApiServices
{
    public static IServiceCollection AddApi(this IServiceCollection services)
    {
        services.AddSingleton<ListPages>().AddSingleton<Idempotency>();
        services.AddProblemDetails(problems => problems.CustomizeProblemDetails = ApiProblem.Complete);
        services.AddOpenApi(ApiDocument.Name, ApiDocument.Configure);
        return services;
    }
}
