using System.Globalization;
using System.Runtime.CompilerServices;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Settings;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Bridge;

/// <summary>
/// Checks every component link and the servers behind it: by what the node that holds the link has stored, or over a short link of its own
/// where no node holds it.
/// </summary>
internal sealed class LinkDoctor(
    IOptions<XmppOptions> options,
    LeaseTable leases,
    IDbContextFactory<RelayDb> databases,
    DatabaseClock databaseClock,
    SettingsSource settings,
    TimeProvider clock
) : IDoctor
{
    private const int SecretCharsMin = 16;

    public async IAsyncEnumerable<DoctorCheck> ExamineAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var (index, component) in options.Value.Components.Index())
        {
            foreach (var check in await CheckAsync(component, cancellationToken))
            {
                yield return check;
            }

            if (component.Secret.Length < SecretCharsMin)
            {
                var setting = $"Xmpp:Components:{index.ToString(CultureInfo.InvariantCulture)}:Secret";
                yield return new DoctorCheck(
                    DoctorCheck.Safety,
                    false,
                    settings.Locate(
                        new SettingsProblem(
                            setting,
                            $"{setting} has fewer than {SecretCharsMin} characters. Cure: one made with openssl rand -hex 32, here and in "
                                + "the XMPP server"
                        )
                    )
                );
            }
        }
    }

    private async Task<IReadOnlyList<DoctorCheck>> CheckAsync(ComponentOptions component, CancellationToken cancellationToken)
    {
        if (await leases.HolderOfAsync(LinkHolder.LeaseOf(component.Domain), cancellationToken) is not { } lease)
        {
            return await ProbeAsync(component, cancellationToken);
        }

        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var now = await databaseClock.NowAsync(db, cancellationToken);
        var streams = await db.Set<StoredStream>()
            .AsNoTracking()
            .Where(s => component.Servers.Contains(s.Server))
            .ToListAsync(cancellationToken);
        var linked = lease.InUse || streams.Exists(s => s.Live && now - s.AsOf <= PresenceCopy.AgeMax);
        return
        [
            new DoctorCheck(
                $"link {component.Domain}",
                linked,
                linked
                    ? $"node {lease.Holder} has it"
                    : $"Node {lease.Holder} should have it, but is not linked. Cure: its log says why: "
                        + $"{component.Host}:{component.Port.ToString(CultureInfo.InvariantCulture)}, Domain or Secret."
            ),
            .. component.Servers.Select(server => CheckServer(server, [.. streams.Where(s => s.Server == server)], now)),
        ];
    }

    private static DoctorCheck CheckServer(string server, IReadOnlyList<StoredStream> streams, DateTimeOffset now)
    {
        var known = streams.Where(s => s.Live && now - s.AsOf <= PresenceCopy.AgeMax).ToList();
        if (streams.Count == 0 || known.Count < streams.Count)
        {
            var silent = streams.FirstOrDefault(s => !known.Contains(s));
            var last = silent is { Software: not "?" }
                ? $"; the last it said, {Ago(now - silent.HeardAt)} ago, was as {silent.Software}"
                : "";
            return new DoctorCheck(
                $"server {server}",
                false,
                $"Its sessions are unknown{last}. Cure: load mod_push_relay for this virtual host with this component; the relay's log "
                    + "has what it answers."
            );
        }

        return new DoctorCheck(
            $"server {server}",
            true,
            string.Join(
                "; ",
                known.Select(s =>
                    Describe(s.Software, s.Module, s.Sessions, s.Dropped)
                    + $", heard {Ago(now - s.HeardAt)} ago"
                    + (s.Node.Length > 0 ? $" ({s.Node})" : "")
                )
            )
        );
    }

    private async Task<IReadOnlyList<DoctorCheck>> ProbeAsync(ComponentOptions component, CancellationToken cancellationToken)
    {
        var name = $"link {component.Domain}";
        if (await LinkProbe.ConnectAsync(component, clock, cancellationToken) is { } problem)
        {
            return [new DoctorCheck(name, false, problem)];
        }

        var answers = await new BridgeProbe(component, clock).AskAsync(cancellationToken);
        return
        [
            new DoctorCheck(name, true, "the server takes the component; no relay has the link now"),
            .. component.Servers.Select(server =>
                answers.GetValueOrDefault(server) switch
                {
                    { Snapshot: { } snapshot, Sessions: var sessions } => new DoctorCheck(
                        $"server {server}",
                        true,
                        Describe(snapshot.Software, snapshot.Module, sessions, snapshot.Dropped)
                    ),
                    var answer => new DoctorCheck(
                        $"server {server}",
                        false,
                        $"It {(answer?.Condition is { } condition ? $"answers {condition}" : "does not answer")}. Cure: load "
                            + $"mod_push_relay for this virtual host with the component {component.Domain}."
                    ),
                }
            ),
        ];
    }

    private static string Describe(string software, string module, int sessions, long dropped) =>
        string.Create(
            CultureInfo.InvariantCulture,
            $"{software}, mod_push_relay {module}, {sessions} sessions, {dropped} events "
                + $"dropped{(dropped > 0 ? " (the relay was away for longer than the module's queue lasts)" : "")}"
        );

    private static string Ago(TimeSpan age) =>
        age < TimeSpan.FromMinutes(2)
            ? string.Create(CultureInfo.InvariantCulture, $"{Math.Max(0, age.TotalSeconds):0} s")
            : string.Create(CultureInfo.InvariantCulture, $"{age.TotalMinutes:0} min");
}
