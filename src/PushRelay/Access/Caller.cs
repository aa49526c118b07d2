using System.Security.Claims;
using PushRelay.Apps;
using PushRelay.Audit;

namespace PushRelay.Access;

/// <summary>The caller, over REST or XMPP: an operator, who acts on every account served, or one account.</summary>
/// <param name="Name">As audit and log call it: an operator key's name, or how an account proved itself.</param>
/// <param name="Account">Null: an operator.</param>
/// <param name="Address">The peer's, where there is one.</param>
internal sealed record Caller(string Name, string? Account, string? Address)
{
    private const string AccountClaim = "pushrelay:account";
    private const string ViewerClaim = "pushrelay:viewer";

    public bool IsOperator => Account is null;

    /// <summary>As the audit keeps it.</summary>
    public Actor Actor => new(Name, Address);

    public static Caller Of(HttpContext context) =>
        new(context.User.Identity?.Name ?? "", AccountOf(context.User), context.Connection.RemoteIpAddress?.ToString());

    /// <summary>A route's handler has it as a parameter.</summary>
    public static ValueTask<Caller?> BindAsync(HttpContext context) => ValueTask.FromResult<Caller?>(Of(context));

    /// <returns>Null: an operator's.</returns>
    public static string? AccountOf(ClaimsPrincipal user) => user.FindFirstValue(AccountClaim);

    /// <summary>It reads everything and changes nothing.</summary>
    public static bool IsViewer(ClaimsPrincipal user) => user.HasClaim(claim => claim.Type == ViewerClaim);

    public static ClaimsPrincipal Principal(string scheme, string name, string? account, bool isViewer = false)
    {
        var identity = new ClaimsIdentity([new Claim(ClaimTypes.Name, name)], scheme);
        if (account is not null)
        {
            identity.AddClaim(new Claim(AccountClaim, account));
        }

        if (isViewer)
        {
            identity.AddClaim(new Claim(ViewerClaim, "true"));
        }

        return new ClaimsPrincipal(identity);
    }

    /// <summary>Whose resources a request means that names <paramref name="account"/>, or none.</summary>
    /// <param name="accounts">The served ones.</param>
    /// <param name="account">As the request has it.</param>
    /// <param name="owner">Null: of all accounts (operators only).</param>
    /// <returns>False: this caller may not see that account.</returns>
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
