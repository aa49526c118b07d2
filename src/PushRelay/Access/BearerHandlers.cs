using System.Security.Cryptography;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Limits;

namespace PushRelay.Access;

/// <summary>The credential of a request: <c>Authorization: Bearer ...</c> (RFC 6750 section 2.1), exactly one.</summary>
internal static class BearerCredential
{
    private const string Prefix = "Bearer ";

    /// <summary>Null where there is none; several headers are none.</summary>
    public static string? Of(HttpRequest request) =>
        request.Headers.Authorization is [{ } header]
        && header.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)
        && header.Length > Prefix.Length
            ? header[Prefix.Length..].Trim()
            : null;
}

/// <summary>Recognises an operator by its key, compared in constant time with every key. Answers 401, 403 and 429 for every
/// scheme.</summary>
internal sealed class OperatorKeyHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory loggers,
    UrlEncoder encoder,
    IOptions<ApiOptions> api,
    RateLimits limits,
    DeniedAudit denied
) : AuthenticationHandler<AuthenticationSchemeOptions>(options, loggers, encoder)
{
    public const string SchemeName = "OperatorKey";

    protected override Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        if (BearerCredential.Of(Request) is not { } credential)
        {
            return Task.FromResult(AuthenticateResult.NoResult());
        }

        var presented = OperatorKey.Hash(credential);
        OperatorKey? known = null;
        foreach (var key in api.Value.OperatorKeys)
        {
            if (CryptographicOperations.FixedTimeEquals(presented, key.Hash()))
            {
                known = key;
            }
        }

        return Task.FromResult(
            known is null
                ? AuthenticateResult.Fail("unknown key")
                : AuthenticateResult.Success(
                    new AuthenticationTicket(
                        Caller.Principal(SchemeName, known.Name, account: null, isViewer: known.Role == OperatorRole.Viewer),
                        SchemeName
                    )
                )
        );
    }

    protected override async Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        if (JwtAuthentication.IsProviderAway(Context))
        {
            Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            return;
        }

        if (Request.Headers.Authorization.Count > 0)
        {
            var address = Context.Connection.RemoteIpAddress;
            if (!limits.Failures.TryTake(RateLimit.KeyOf(address), out var wait))
            {
                ApiProblem.SetTooMany(Response, wait);
                return;
            }

            await denied.RecordCredentialAsync(address, Context.RequestAborted);
        }

        Response.Headers.WWWAuthenticate = "Bearer realm=\"pushrelay\"";
        Response.StatusCode = StatusCodes.Status401Unauthorized;
    }

    protected override async Task HandleForbiddenAsync(AuthenticationProperties properties)
    {
        var caller = Caller.Of(Context);
        var route = (Context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText?.TrimEnd('/');
        await denied.RecordRouteAsync(Context.Connection.RemoteIpAddress, caller.Actor, caller.Account, route, Context.RequestAborted);
        Response.StatusCode = StatusCodes.Status403Forbidden;
    }
}

/// <summary>Recognises an account by the token that it got over its own XMPP stream.</summary>
internal sealed class AccountTokenHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options,
    ILoggerFactory loggers,
    UrlEncoder encoder,
    AccountTokens tokens,
    ServedAccounts accounts
) : AuthenticationHandler<AuthenticationSchemeOptions>(options, loggers, encoder)
{
    public const string SchemeName = "AccountToken";

    private static readonly object TokenItem = new();

    /// <summary>The token that a request came with; null where it came with another credential.</summary>
    public static AccountToken? Of(HttpContext context) => context.Items[TokenItem] as AccountToken;

    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        // tokens of a server that is no longer configured are refused
        if (
            BearerCredential.Of(Request) is not { } credential
            || await tokens.FindAsync(credential, Context.RequestAborted) is not { } token
            || !accounts.TryName(token.Account, out _, out _)
        )
        {
            return AuthenticateResult.Fail("unknown or expired token");
        }

        Context.Items[TokenItem] = token;
        return AuthenticateResult.Success(
            new AuthenticationTicket(Caller.Principal(SchemeName, "account-token", token.Account), SchemeName)
        );
    }
}
