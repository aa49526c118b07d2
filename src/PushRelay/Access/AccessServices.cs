using System.Net;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.HttpOverrides;
using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Limits;
using PushRelay.Settings;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Access;

internal static class AccessServices
{
    /// <summary>The policy of routes that are the operator's alone: 403 for an account.</summary>
    public const string OperatorOnly = nameof(OperatorOnly);

    private const string AnyCredential = nameof(AnyCredential);

    public static IServiceCollection AddAccess(this IServiceCollection services)
    {
        services
            .AddSettings<ListenOptions>("", "Where the REST interface listens.")
            .AddSettings<ApiOptions>("Api", "Who may use the REST interface, and how often.");
        services.AddSingleton<RateLimits>().AddSingleton<AccountTokens>();
        services.AddSingleton<AccessUpkeep>().AddHostedService(provider => provider.GetRequiredService<AccessUpkeep>());
        services.AddDoctor<PlainHttpDoctor>();
        services
            .AddAuthentication(AnyCredential)
            .AddPolicyScheme(
                AnyCredential,
                null,
                scheme =>
                {
                    scheme.ForwardDefaultSelector = Choose;
                    scheme.ForwardChallenge = scheme.ForwardForbid = OperatorKeyHandler.SchemeName;
                }
            )
            .AddScheme<AuthenticationSchemeOptions, OperatorKeyHandler>(OperatorKeyHandler.SchemeName, null)
            .AddScheme<AuthenticationSchemeOptions, AccountTokenHandler>(AccountTokenHandler.SchemeName, null)
            .AddJwtBearer(JwtAuthentication.SchemeName, _ => { });
        services
            .AddOptions<JwtBearerOptions>(JwtAuthentication.SchemeName)
            .Configure<IOptions<ApiOptions>, ServedAccounts, TimeProvider>(JwtAuthentication.Configure);
        // a route without a policy of its own needs a credential
        services
            .AddAuthorizationBuilder()
            .SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build())
            .AddPolicy(
                OperatorOnly,
                policy => policy.RequireAuthenticatedUser().RequireAssertion(context => Caller.AccountOf(context.User) is null)
            );
        services.AddCors();
        services.AddOptions<ForwardedHeadersOptions>().Configure<IOptions<ApiOptions>>(TrustProxies);
        return services;
    }

    /// <summary>The pipeline before the routes.</summary>
    public static void UseAccess(this WebApplication app)
    {
        var options = app.Services.GetRequiredService<IOptions<ApiOptions>>().Value;
        if (options.TrustedProxies.Count > 0)
        {
            app.UseForwardedHeaders();
        }

        app.Use(ApiHardening.Apply);
        app.UseExceptionHandler(
            new ExceptionHandlerOptions
            {
                // a request that breaks while it is read is the caller's fault; a database that is away comes back
                StatusCodeSelector = exception =>
                    exception is BadHttpRequestException bad ? bad.StatusCode
                    : DatabaseErrors.IsOutage(exception) ? StatusCodes.Status503ServiceUnavailable
                    : StatusCodes.Status500InternalServerError,
            }
        );
        app.UseStatusCodePages();
        app.UseRouting();
        if (options.CorsOrigins.Count > 0)
        {
            app.UseCors(cors =>
                cors.WithOrigins([.. options.CorsOrigins])
                    .WithMethods("GET", "POST", "PUT", "PATCH", "DELETE")
                    .WithHeaders("Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key")
                    .WithExposedHeaders("ETag", "Location", "Retry-After")
            );
        }

        app.Use(ApiHardening.AnswerPreflight);
        app.UseAuthentication();
        app.Use(LimitAsync);
        app.UseAuthorization();
        app.Use(KeepViewersOutAsync);
        app.Use((context, next) => context.RequestServices.GetRequiredService<Idempotency>().ApplyAsync(context, next));
    }

    private static string Choose(HttpContext context) =>
        BearerCredential.Of(context.Request) switch
        {
            { } token when token.StartsWith(AccountTokens.Prefix, StringComparison.Ordinal) => AccountTokenHandler.SchemeName,
            { } jwt
                when JwtAuthentication.LooksLikeOne(jwt)
                    && context.RequestServices.GetRequiredService<IOptions<ApiOptions>>().Value.Jwt.IsOn => JwtAuthentication.SchemeName,
            _ => OperatorKeyHandler.SchemeName,
        };

    /// <summary>A viewer may only read: every route that changes something answers 403, in addition to the route's own policy.</summary>
    private static Task KeepViewersOutAsync(HttpContext context, RequestDelegate next) =>
        Caller.IsViewer(context.User)
        && !HttpMethods.IsGet(context.Request.Method)
        && !HttpMethods.IsHead(context.Request.Method)
        && context.GetEndpoint()?.Metadata.GetMetadata<Microsoft.AspNetCore.Authorization.IAllowAnonymous>() is null
            ? context.ForbidAsync(OperatorKeyHandler.SchemeName)
            : next(context);

    private static Task LimitAsync(HttpContext context, RequestDelegate next)
    {
        var limits = context.RequestServices.GetRequiredService<RateLimits>();
        var caller = Caller.Of(context);
        var (known, isProbe) = (
            context.User.Identity?.IsAuthenticated == true,
            context.Request.Path.StartsWithSegments("/health", StringComparison.Ordinal)
        );
        var wait = TimeSpan.Zero;
        var free =
            isProbe
            || (known && caller.IsOperator)
            || (
                known
                    ? limits.Requests.TryTake(caller.Account!, out wait)
                    : limits.Anonymous.TryTake(RateLimit.KeyOf(context.Connection.RemoteIpAddress), out wait)
            );
        if (free)
        {
            return next(context);
        }

        ApiProblem.SetTooMany(context.Response, wait);
        return Task.CompletedTask;
    }

    private static void TrustProxies(ForwardedHeadersOptions forwarded, IOptions<ApiOptions> api)
    {
        forwarded.ForwardedHeaders = ForwardedHeaders.XForwardedFor;
        forwarded.KnownProxies.Clear();
        forwarded.KnownIPNetworks.Clear();
        foreach (var proxy in api.Value.TrustedProxies)
        {
            if (IPAddress.TryParse(proxy, out var address))
            {
                forwarded.KnownProxies.Add(address);
            }
            else
            {
                forwarded.KnownIPNetworks.Add(System.Net.IPNetwork.Parse(proxy));
            }
        }
    }
}
