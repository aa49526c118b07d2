using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>An account at this moment: what an alert to it would be decided by.</summary>
public sealed record AccountAnswer(
    string Account,
    string State,
    int Unread,
    IReadOnlyList<AccountSession> Sessions,
    IReadOnlyList<DeviceResponse> Devices
);

/// <summary>One XMPP session, as its server last reported it.</summary>
public sealed record AccountSession(string Resource, string State, bool Available, int Priority, string? Show, DateTimeOffset Since);

/// <summary><c>/v1/accounts/{account}</c>, for the operator.</summary>
internal static class AccountEndpoints
{
    /// <summary>Beyond the valid ones there are the invalid, which are kept to say why.</summary>
    private const int DevicesMax = 200;

    public static void Map(IEndpointRouteBuilder routes) =>
        routes
            .MapApi("/v1/accounts", "accounts")
            .MapGet("{account}", ShowAsync)
            .WithSummary("State, sessions, devices and unread of an account")
            .RequireAuthorization(AccessServices.OperatorOnly)
            .WithExample(null, """{"account":"bob@example.com","state":"background","unread":3,"sessions":[],"devices":[]}""");

    private static async Task<Results<Ok<AccountAnswer>, ProblemHttpResult>> ShowAsync(
        string account,
        PresenceStore presence,
        DeviceQueries devices,
        ServedAccounts accounts,
        IDbContextFactory<RelayDb> databases,
        CancellationToken cancellationToken
    )
    {
        if (!accounts.TryName(account, out var name, out _))
        {
            return ApiProblem.NotFound();
        }

        var (state, sessions) = await presence.OfAsync(ServedAccounts.ServerOf(name), name, cancellationToken);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var unread = await db.Set<UnreadCount>().Where(u => u.Account == name).SumAsync(u => u.Count, cancellationToken);
        return TypedResults.Ok(
            new AccountAnswer(
                name,
                EnumName.Of(state),
                unread,
                [
                    .. sessions
                        .OrderBy(s => s.Since)
                        .Select(s => new AccountSession(s.Resource, EnumName.Of(s.State), s.Available, s.Priority, s.Show, s.Since)),
                ],
                await devices.OfAccountAsync(name, DevicesMax, cancellationToken)
            )
        );
    }
}
