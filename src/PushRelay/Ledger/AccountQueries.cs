using Microsoft.EntityFrameworkCore;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>The present state of an account, which decides about an alert.</summary>
public sealed record AccountDetail(
    string Account,
    string State,
    int Unread,
    IReadOnlyList<AccountSession> Sessions,
    IReadOnlyList<DeviceResponse> Devices
);

/// <summary>One XMPP session, as its server last reported it.</summary>
public sealed record AccountSession(string Resource, string State, bool Available, int Priority, string? Show, DateTimeOffset Since);

/// <summary>Reads accounts, for REST, pages and command line alike.</summary>
internal sealed class AccountQueries(
    IDbContextFactory<RelayDb> databases,
    PresenceCopy presence,
    DeviceQueries devices,
    ServedAccounts accounts
)
{
    /// <summary>Beyond the valid ones there are the invalid, which are kept to say why.</summary>
    private const int DevicesMax = 200;

    /// <param name="account">In any spelling.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    /// <returns>Null if it is not an account of a served host. Any other account has a state; it may be <c>unknown</c>.</returns>
    public async Task<AccountDetail?> FindAsync(string account, CancellationToken cancellationToken)
    {
        if (!accounts.TryName(account, out var name, out _))
        {
            return null;
        }

        var (state, sessions) = await presence.OfAsync(ServedAccounts.ServerOf(name), name, cancellationToken);
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var unread = await db.Set<UnreadCount>().Where(u => u.Account == name).SumAsync(u => u.Count, cancellationToken);
        return new AccountDetail(
            name,
            PresenceNames.Of(state),
            unread,
            [
                .. sessions
                    .OrderBy(s => s.Since)
                    .Select(s => new AccountSession(s.Resource, PresenceNames.Of(s.State), s.Available, s.Priority, s.Show, s.Since)),
            ],
            await devices.OfAccountAsync(name, DevicesMax, cancellationToken)
        );
    }
}
