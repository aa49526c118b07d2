using System.Globalization;
using PushRelay.Access;

namespace PushRelay.Commands;

/// <summary><c>pushrelay:tokens</c>: an account sees its tokens for the REST interface. One stage, no fields.</summary>
internal sealed class ListTokensCommand(AccountTokens tokens) : AdHocCommand
{
    public override string Node => "pushrelay:tokens";

    public override string Name => "List my tokens";

    public override async Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken)
    {
        var held = await tokens.ListAsync(request.Account, null, TokenCommands.ListedMax, cancellationToken);
        return new CommandResult.Completed(
            held.Count == 1 ? "1 token" : $"{held.Count.ToString(CultureInfo.InvariantCulture)} tokens",
            DataForm.Result(
                "My tokens",
                DataForm.Table(
                    [("id", "Id"), ("created", "Created"), ("expires", "Expires")],
                    held.Select(t =>
                        (IReadOnlyList<string>)[t.Id.ToString("D"), TokenCommands.Time(t.CreatedAt), TokenCommands.Time(t.ExpiresAt)]
                    )
                )
            )
        );
    }
}
