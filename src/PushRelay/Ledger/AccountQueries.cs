using Microsoft.EntityFrameworkCore;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Presence;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>An account at this moment: what an alert to it would be decided by.</summary>
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

    /// <param name="account">However it is spelt.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    /// <returns>Null where it is no account of a served host. Any other has a state, also where nobody knows it.</returns>
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
