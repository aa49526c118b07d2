using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.Extensions.Options;
using Microsoft.IdentityModel.Protocols;
using Microsoft.IdentityModel.Protocols.OpenIdConnect;
using Microsoft.IdentityModel.Tokens;
using PushRelay.Apps;

namespace PushRelay.Access;

/// <summary>Takes the access tokens of the operator's identity provider, and of one account only.</summary>
internal static class JwtAuthentication
{
    public const string SchemeName = "Jwt";

    private const int MetadataBytesMax = 256 * 1024;

    /// <summary>Claims that only an ID token has: it proves a sign-in to another service, not a right here.</summary>
    private static readonly string[] IdTokenClaims = ["nonce", "at_hash", "c_hash"];

    private static readonly TimeSpan MetadataTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Skew = TimeSpan.FromMinutes(1);

    /// <summary>A token that lives longer cannot be taken back in time.</summary>
    private static readonly TimeSpan LifetimeMax = TimeSpan.FromDays(31);

    /// <summary>Set where the provider, not the caller, is at fault.</summary>
    private static readonly object ProviderAway = new();

    public static bool IsProviderAway(HttpContext context) => context.Items.ContainsKey(ProviderAway);

    public static bool LooksLikeOne(string credential) =>
        credential.StartsWith("eyJ", StringComparison.Ordinal) && credential.Count(c => c == '.') == 2;

    public static void Configure(JwtBearerOptions bearer, IOptions<ApiOptions> api, ServedAccounts accounts, TimeProvider clock)
    {
        var options = api.Value.Jwt;
        if (!options.IsOn)
        {
            return;
        }

        bearer.MapInboundClaims = false;
        bearer.SaveToken = false;
        if (!string.IsNullOrEmpty(options.Authority))
        {
            bearer.Authority = options.Authority;
            // Check() lets plain HTTP through on the loopback only
            bearer.RequireHttpsMetadata = new Uri(options.Authority).Scheme == "https";
            var http = new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false })
            {
                Timeout = MetadataTimeout,
                MaxResponseContentBufferSize = MetadataBytesMax,
            };
            bearer.Backchannel = http;
            bearer.ConfigurationManager = new ProviderKeys(
                options.Authority.TrimEnd('/') + "/.well-known/openid-configuration",
                http,
                bearer.RequireHttpsMetadata,
                clock
            );
        }

        bearer.TokenValidationParameters = new TokenValidationParameters
        {
            ValidAlgorithms = [.. options.Algorithms],
            ValidAudience = options.Audience,
            ValidIssuer = options.Issuer,
            ValidateIssuer = !string.IsNullOrEmpty(options.Issuer) || !string.IsNullOrEmpty(options.Authority),
            IssuerSigningKey = options.OpenKey(),
            RequireSignedTokens = true,
            LifetimeValidator = (notBefore, expires, _, _) => IsAlive(notBefore, expires, clock.GetUtcNow().UtcDateTime),
        };
        bearer.Events = new JwtBearerEvents
        {
            OnTokenValidated = context =>
            {
                var account = context.Principal!.FindAll(options.AccountClaim).Select(c => c.Value).ToList();
                if (
                    account.Count == 1
                    && accounts.TryName(account[0], out var name, out _)
                    && !IdTokenClaims.Any(claim => context.Principal.HasClaim(c => c.Type == claim))
                )
                {
                    context.Principal = Caller.Principal(SchemeName, "jwt", name);
                }
                else
                {
                    context.Fail("no access token of an account served here");
                }

                return Task.CompletedTask;
            },
            OnAuthenticationFailed = async context =>
            {
                if (context.Options.ConfigurationManager is { } provider && await IsAwayAsync(provider, context.HttpContext.RequestAborted))
                {
                    context.HttpContext.Items[ProviderAway] = true;
                }

                context.Fail("the token is not valid");
            },
        };
    }

    /// <summary>Without the provider's keys a token cannot be checked. Once read they are kept.</summary>
    private static async Task<bool> IsAwayAsync(
        IConfigurationManager<OpenIdConnectConfiguration> provider,
        CancellationToken cancellationToken
    )
    {
        try
        {
            await provider.GetConfigurationAsync(cancellationToken);
            return false;
        }
        catch (InvalidOperationException)
        {
            return true;
        }
    }

    private static bool IsAlive(DateTime? notBefore, DateTime? expires, DateTime now) =>
        expires is { } end && end > now - Skew && (notBefore ?? now) < now + Skew && end - now <= LifetimeMax;
}
