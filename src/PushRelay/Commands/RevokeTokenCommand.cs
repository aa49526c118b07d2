using PushRelay.Access;

namespace PushRelay.Commands;

/// <summary><c>pushrelay:revoke</c>: an account revokes one of its tokens. Field <c>id</c>; without a form it answers the choice.</summary>
internal sealed class RevokeTokenCommand(AccountTokens tokens) : AdHocCommand
{
    public override string Node => "pushrelay:revoke";

    public override string Name => "Revoke a token";

    public override async Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken)
    {
        if (request.Form is not { } form)
        {
            var held = await tokens.ListAsync(request.Account, null, TokenCommands.ListedMax, cancellationToken);
            return new CommandResult.NextStage(
                DataForm.ToFill(
                    "Revoke a token",
                    DataForm.Choice(
                        "id",
                        "Token",
                        held.Select(t =>
                            (t.Id.ToString("D"), $"made {TokenCommands.Time(t.CreatedAt)}, expires {TokenCommands.Time(t.ExpiresAt)}")
                        )
                    )
                )
            );
        }

        if (!form.TryGet("id", out var text) || !Guid.TryParseExact(text, "D", out var id))
        {
            return new CommandResult.InvalidField("id", "must be the id of a token, as pushrelay:tokens lists it");
        }

        return await tokens.RevokeAsync(request.Account, id, TokenCommands.Actor, cancellationToken)
            ? new CommandResult.Completed("The token is revoked.", null)
            : new CommandResult.Refused("cancel", "item-not-found", "You have no such token.");
    }
}
