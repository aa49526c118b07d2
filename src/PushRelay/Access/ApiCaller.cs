using System.Security.Claims;
using PushRelay.Apps;
using PushRelay.Audit;

namespace PushRelay.Access;

/// <summary>Who makes a request: an operator, who acts on every account served, or one account.</summary>
/// <param name="Name">As audit and log call it: an operator key's name, or how an account proved itself.</param>
/// <param name="Account">Null: an operator.</param>
internal sealed record ApiCaller(string Name, string? Account)
{
    private const string AccountClaim = "pushrelay:account";

    public bool IsOperator => Account is null;

    public static ApiCaller Of(HttpContext context) => Of(context.User);

    public static ApiCaller Of(ClaimsPrincipal user) => new(user.Identity?.Name ?? "", user.FindFirstValue(AccountClaim));

    public Actor ActorOf(HttpContext context) => new(Name, context.Connection.RemoteIpAddress?.ToString());

    public static ClaimsPrincipal Principal(string scheme, string name, string? account)
    {
        var identity = new ClaimsIdentity([new Claim(ClaimTypes.Name, name)], scheme);
        if (account is not null)
        {
            identity.AddClaim(new Claim(AccountClaim, account));
        }

        return new ClaimsPrincipal(identity);
    }

    /// <summary>Whose resources a request means that names <paramref name="account"/>, or none.</summary>
    /// <param name="accounts">Tells the served ones.</param>
    /// <param name="account">As the request has it.</param>
    /// <param name="owner">Null: everybody's (operators only).</param>
    /// <returns>False: nobody's that this caller can see.</returns>
    public bool TryNarrow(ServedAccounts accounts, string? account, out string? owner)
    {
        owner = Account;
        if (account is null)
        {
            return true;
        }

        if (!accounts.TryName(account, out var named, out _) || (Account is not null && named != Account))
        {
            return false;
        }

        owner = named;
        return true;
    }
}
