using System.Security.Cryptography;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;

namespace PushRelay.Access;

/// <summary>Tells an operator by <c>Authorization: Bearer KEY</c> (RFC 6750 section 2.1); compares in constant time, whichever key it is.</summary>
internal sealed class OperatorKeyHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options, ILoggerFactory loggers, UrlEncoder encoder, IOptions<ApiOptions> api)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, loggers, encoder)
{
    public const string SchemeName = "OperatorKey";

    private const string Prefix = "Bearer ";

    protected override Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        // an array of no or several headers is no credential
        if (Request.Headers.Authorization is not [{ } header] || !header.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase))
        {
            return Task.FromResult(AuthenticateResult.NoResult());
        }

        var presented = OperatorKey.Hash(header[Prefix.Length..].Trim());
        string? name = null;
        foreach (var key in api.Value.OperatorKeys)
        {
            if (CryptographicOperations.FixedTimeEquals(presented, key.Hash()))
            {
                name = key.Name;
            }
        }

        if (name is null)
        {
            return Task.FromResult(AuthenticateResult.Fail("unknown key"));
        }

        return Task.FromResult(AuthenticateResult.Success(new AuthenticationTicket(ApiCaller.Principal(SchemeName, name, account: null), SchemeName)));
    }

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        Response.Headers.WWWAuthenticate = "Bearer realm=\"pushrelay\"";
        Response.StatusCode = StatusCodes.Status401Unauthorized;
        return Task.CompletedTask;
    }
}
