using System.Globalization;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.Options;
using PushRelay.Access;

namespace PushRelay.Commands;

/// <summary><c>pushrelay:token</c>: an account gets a token for the REST interface. One stage, no fields.</summary>
internal sealed class IssueTokenCommand(AccountTokens tokens, IOptions<ApiOptions> options, IServer server) : AdHocCommand
{
    public override string Node => "pushrelay:token";

    public override string Name => "Get a token for push registration";

    /// <summary>Where the app finds the REST interface.</summary>
    private string Api =>
        string.IsNullOrEmpty(options.Value.PublicUrl)
            ? server.Features.Get<IServerAddressesFeature>()?.Addresses.FirstOrDefault() ?? ""
            : options.Value.PublicUrl;

    public override async Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken)
    {
        return await tokens.IssueAsync(request.Account, TokenCommands.Actor, cancellationToken) switch
        {
            TokenIssue.Issued(var secret, var token) => new CommandResult.Completed(
                "The token is shown this once. Anyone who has it can register devices for you.",
                DataForm.Result(
                    "Token for push registration",
                    DataForm.Field("token", "Token", secret),
                    DataForm.Field("expires", "Expires", TokenCommands.Time(token.ExpiresAt)),
                    DataForm.Field("api", "API", Api)
                )
            ),
            TokenIssue.TooMany(var wait) => new CommandResult.Refused(
                "wait",
                "policy-violation",
                $"Too many tokens at once; try again in {Math.Ceiling(wait.TotalSeconds).ToString(CultureInfo.InvariantCulture)} seconds."
            ),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }
}
