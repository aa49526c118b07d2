using System.Globalization;
using System.Xml.Linq;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Audit;

namespace PushRelay.Commands;

/// <summary>The commands by which an account gets, sees and revokes its tokens for the REST interface.</summary>
internal sealed class TokenCommands(AccountTokens tokens, IOptions<ApiOptions> options, IServer server)
{
    private const int ListedMax = 100;

    private static readonly XNamespace Data = "jabber:x:data";
    private static readonly Actor Account = new("xmpp", null);

    public IEnumerable<AdHocCommand> All =>
        [
            new("pushrelay:token", "Get a token for push registration", IssueAsync),
            new("pushrelay:tokens", "List my tokens", ListAsync),
            new("pushrelay:revoke", "Revoke a token", RevokeAsync),
        ];

    /// <summary>Where the app finds the REST interface.</summary>
    private string Api =>
        string.IsNullOrEmpty(options.Value.PublicUrl)
            ? server.Features.Get<IServerAddressesFeature>()?.Addresses.FirstOrDefault() ?? ""
            : options.Value.PublicUrl;

    private async Task<CommandAnswer> IssueAsync(
        string account,
        IReadOnlyDictionary<string, string>? form,
        CancellationToken cancellationToken
    )
    {
        return await tokens.IssueAsync(account, Account, cancellationToken) switch
        {
            TokenIssue.Issued(var secret, var token) => new CommandAnswer.Done(
                "The token is shown this once. Whoever has it can register devices for you.",
                Result(
                    "Token for push registration",
                    Field("token", "Token", secret),
                    Field("expires", "Expires", Time(token.ExpiresAt)),
                    Field("api", "API", Api)
                )
            ),
            TokenIssue.TooMany(var wait) => new CommandAnswer.Refuse(
                "wait",
                "policy-violation",
                $"Too many tokens at once; try again in {Math.Ceiling(wait.TotalSeconds).ToString(CultureInfo.InvariantCulture)} seconds."
            ),
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }

    private async Task<CommandAnswer> ListAsync(
        string account,
        IReadOnlyDictionary<string, string>? form,
        CancellationToken cancellationToken
    )
    {
        var held = await tokens.ListAsync(account, null, ListedMax, cancellationToken);
        return new CommandAnswer.Done(
            held.Count == 1 ? "1 token" : $"{held.Count.ToString(CultureInfo.InvariantCulture)} tokens",
            Result(
                "My tokens",
                [
                    new XElement(Data + "reported", Column("id", "Id"), Column("created", "Created"), Column("expires", "Expires")),
                    .. held.Select(t => new XElement(
                        Data + "item",
                        Field("id", null, t.Id.ToString("D")),
                        Field("created", null, Time(t.CreatedAt)),
                        Field("expires", null, Time(t.ExpiresAt))
                    )),
                ]
            )
        );
    }

    private async Task<CommandAnswer> RevokeAsync(
        string account,
        IReadOnlyDictionary<string, string>? form,
        CancellationToken cancellationToken
    )
    {
        if (form is null)
        {
            var held = await tokens.ListAsync(account, null, ListedMax, cancellationToken);
            return new CommandAnswer.Ask(
                new XElement(
                    Data + "x",
                    new XAttribute("type", "form"),
                    new XElement(Data + "title", "Revoke a token"),
                    new XElement(
                        Data + "field",
                        new XAttribute("var", "id"),
                        new XAttribute("type", "list-single"),
                        new XAttribute("label", "Token"),
                        new XElement(Data + "required"),
                        held.Select(t => new XElement(
                            Data + "option",
                            new XAttribute("label", $"made {Time(t.CreatedAt)}, expires {Time(t.ExpiresAt)}"),
                            new XElement(Data + "value", t.Id.ToString("D"))
                        ))
                    )
                )
            );
        }

        return
            Guid.TryParseExact(form.GetValueOrDefault("id"), "D", out var id)
            && await tokens.RevokeAsync(account, id, Account, cancellationToken)
            ? new CommandAnswer.Done("The token is revoked.", null)
            : new CommandAnswer.Refuse("cancel", "item-not-found", "You have no such token.");
    }

    private static XElement Result(string title, params object[] content) =>
        new(Data + "x", new XAttribute("type", "result"), new XElement(Data + "title", title), content);

    private static XElement Column(string name, string label) =>
        new(Data + "field", new XAttribute("var", name), new XAttribute("type", "text-single"), new XAttribute("label", label));

    private static XElement Field(string name, string? label, string value) =>
        new(
            Data + "field",
            new XAttribute("var", name),
            label is null ? null : new XAttribute("type", "text-single"),
            label is null ? null : new XAttribute("label", label),
            new XElement(Data + "value", value)
        );

    private static string Time(DateTimeOffset at) =>
        at.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
