using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Links;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Cli;

/// <summary>One thing that was looked at.</summary>
/// <param name="Name">A word, and what it is about where there are several.</param>
/// <param name="Ok">Nothing is to be done.</param>
/// <param name="Detail">What was found; where it is not well, with the cure.</param>
internal sealed record DoctorCheck(string Name, bool Ok, string Detail);

/// <summary>
/// Looks at everything that an alert needs on its way, beside a running relay or without one: disturbs no link that a node has, changes
/// nothing, alerts nobody.
/// </summary>
internal sealed class Doctor(IServiceProvider services, TimeProvider clock)
{
    private const int ComponentSecretCharsMin = 16;

    private static readonly TimeSpan ClockSkewMax = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan ApnsTimeout = TimeSpan.FromSeconds(15);

    /// <summary>In the order that an operator mends them; what needs what failed is left out.</summary>
    public async IAsyncEnumerable<DoctorCheck> RunAsync(
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken
    )
    {
        var storage = services.GetRequiredService<RelayStorage>();
        var schema = await TryAsync(
            "storage",
            () => storage.CheckSchemaAsync(cancellationToken),
            "reachable, the schema is this version's"
        );
        yield return schema;
        if (schema.Ok)
        {
            var key = await TryAsync("key", () => storage.OpenKeyAsync(cancellationToken), "the master key is this database's");
            yield return key;
            yield return await CheckClockAsync(cancellationToken);
            foreach (var component in services.GetRequiredService<IOptions<XmppOptions>>().Value.Components)
            {
                foreach (var check in await CheckLinkAsync(component, cancellationToken))
                {
                    yield return check;
                }
            }

            if (!key.Ok)
            {
                yield break;
            }

            yield return await CheckSafetyAsync(cancellationToken);

            foreach (var app in services.GetRequiredService<IOptions<AppsOptions>>().Value.Apps)
            {
                yield return await CheckApnsAsync(app, cancellationToken);
            }
        }
    }

    private static async Task<DoctorCheck> TryAsync(string name, Func<Task> look, string fine)
    {
        try
        {
            await look();
            return new DoctorCheck(name, true, fine);
        }
        catch (SettingsException exception)
        {
            return new DoctorCheck(name, false, exception.Message);
        }
    }

    /// <summary>
    /// What works, and opens a door. That plain HTTP leaves the machine, where a proxy that nobody has told of may be before it, and that
    /// the
    /// database user may do more than it needs, is only said.
    /// </summary>
    private async Task<DoctorCheck> CheckSafetyAsync(CancellationToken cancellationToken)
    {
        const string Name = "safety";
        var open = OpenDoors().ToList();
        if (open.Count > 0)
        {
            return new DoctorCheck(Name, false, Told(open));
        }

        var careful = PlainHttp().ToList();

        await using var db = await services.GetRequiredService<IDbContextFactory<RelayDb>>().CreateDbContextAsync(cancellationToken);
        var superuser =
            !db.IsSqlite
            && await db
                .Database.SqlQuery<bool>($"SELECT rolsuper AS \"Value\" FROM pg_roles WHERE rolname = current_user")
                .SingleAsync(cancellationToken);
        if (superuser)
        {
            careful.Add("the database user is a superuser: give the relay one of its own that owns its database only");
        }

        return new DoctorCheck(Name, true, careful.Count > 0 ? $"careful: {Told(careful)}" : "nothing stands open");
    }

    private string Told(IEnumerable<string> findings)
    {
        var (file, settings) = (services.GetRequiredService<SettingsFile>(), services.GetRequiredService<IConfiguration>());
        return string.Join("; ", findings.Select(finding => file.Locate(finding, settings)));
    }

    private IEnumerable<string> OpenDoors()
    {
        var keyFile = services.GetRequiredService<IOptions<StorageOptions>>().Value.MasterKeyFile;
        if (!OperatingSystem.IsWindows() && (File.GetUnixFileMode(keyFile) & UnixFileMode.OtherRead) != 0)
        {
            yield return $"Everybody on this machine may read Storage:MasterKeyFile. Cure: chmod 600 {keyFile}";
        }

        foreach (var (index, component) in services.GetRequiredService<IOptions<XmppOptions>>().Value.Components.Index())
        {
            if (component.Secret.Length < ComponentSecretCharsMin)
            {
                yield return string.Create(
                    CultureInfo.InvariantCulture,
                    $"Xmpp:Components:{index}:Secret has fewer than {ComponentSecretCharsMin} characters. Cure: one made with openssl "
                        + $"rand -hex 32, here and in the XMPP server"
                );
            }
        }
    }

    private IEnumerable<string> PlainHttp()
    {
        var behindTls =
            services.GetRequiredService<IOptions<ApiOptions>>().Value.PublicUrl?.StartsWith("https://", StringComparison.OrdinalIgnoreCase)
            == true;
        foreach (var url in (services.GetRequiredService<IConfiguration>()["Urls"] ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries))
        {
            var address = BindingAddress.Parse(url);
            if (
                !behindTls
                && address.Scheme == "http"
                && !address.IsUnixPipe
                && address.Host != "localhost"
                && !(System.Net.IPAddress.TryParse(address.Host, out var ip) && System.Net.IPAddress.IsLoopback(ip))
            )
            {
                yield return $"Urls has {url}, plain HTTP beyond this machine. Cure: a proxy with TLS before it, whose https address "
                    + $"Api:PublicUrl then is, or http://127.0.0.1:{address.Port.ToString(CultureInfo.InvariantCulture)}";
            }
        }
    }

    private async Task<DoctorCheck> CheckClockAsync(CancellationToken cancellationToken)
    {
        await using var db = await services.GetRequiredService<IDbContextFactory<RelayDb>>().CreateDbContextAsync(cancellationToken);
        var before = clock.GetUtcNow();
        var there = await services.GetRequiredService<DatabaseClock>().NowAsync(db, cancellationToken);
        var after = clock.GetUtcNow();
        var skew = there - (before + ((after - before) / 2));
        var seconds = Math.Abs(skew.TotalSeconds).ToString("0.0", CultureInfo.InvariantCulture);
        return skew.Duration() - (after - before) <= ClockSkewMax
            ? new DoctorCheck("clock", true, db.IsSqlite ? "the database goes by this machine's" : $"{seconds} s from the database's")
            : new DoctorCheck(
                "clock",
                false,
                $"This machine is {seconds} s {(skew > TimeSpan.Zero ? "behind" : "ahead of")} the database. Cure: let both keep their "
                    + $"time by NTP; APNs refuses tokens of a wrong hour."
            );
    }

    private async Task<IReadOnlyList<DoctorCheck>> CheckLinkAsync(ComponentOptions component, CancellationToken cancellationToken)
    {
        await using var db = await services.GetRequiredService<IDbContextFactory<RelayDb>>().CreateDbContextAsync(cancellationToken);
        var now = await services.GetRequiredService<DatabaseClock>().NowAsync(db, cancellationToken);
        var name = LinkHolder.LeaseOf(component.Domain);
        var lease = await db.Set<Lease>().AsNoTracking().SingleOrDefaultAsync(l => l.Name == name, cancellationToken);
        if (lease is null || lease.Holder.Length == 0 || lease.ExpiresAt <= now)
        {
            return await ProbeAsync(component, cancellationToken);
        }

        var streams = await db.Set<StoredStream>()
            .AsNoTracking()
            .Where(s => component.Servers.Contains(s.Server))
            .ToListAsync(cancellationToken);
        var linked = lease.InUse || streams.Exists(s => s.Live && now - s.AsOf <= PresenceStore.AgeMax);
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
        var known = streams.Where(s => s.Live && now - s.AsOf <= PresenceStore.AgeMax).ToList();
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
                    + $"has what it answers."
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
        var probe = new LinkProbe(component, clock);
        var name = $"link {component.Domain}";
        if (await probe.ConnectAsync(cancellationToken) is { } problem)
        {
            return [new DoctorCheck(name, false, problem)];
        }

        var answers = await probe.AskAsync(cancellationToken);
        return
        [
            new DoctorCheck(name, true, "the server takes the component; no relay has the link now"),
            .. component.Servers.Select(server =>
                answers.GetValueOrDefault(server) switch
                {
                    { Snapshot: { } snapshot, Sessions: var sessions } => new DoctorCheck(
                        $"server {server}",
                        true,
                        Describe(snapshot.Server, snapshot.Module, sessions, snapshot.Dropped)
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

    /// <summary>A push to a token that no device has: the answer to it tells whether the credentials are right.</summary>
    private async Task<DoctorCheck> CheckApnsAsync(AppOptions app, CancellationToken cancellationToken)
    {
        var name = $"apns {app.Id}";
        var sandbox = app.Apns.Environment == PushRelay.Apns.ApnsEnvironment.Sandbox;
        var where = app.Apns.EndpointUri?.GetLeftPart(UriPartial.Authority) ?? (sandbox ? "Apple's sandbox" : "Apple");
        var network = services.GetRequiredService<PushNetworks>().TryGet("apns", out var apns)
            ? apns
            : throw new InvalidOperationException();
        var address = new PushAddress
        {
            App = app.Id,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = new('0', 64) },
        };
        var usable = (TokenCheck.Usable)network.Check(address);
        PushResult result;
        try
        {
            result = await network
                .SendAsync(
                    new Notification
                    {
                        Id = Guid.NewGuid(),
                        Address = usable.Address,
                        Lane = usable.Lane,
                        ExpiresAt = clock.GetUtcNow(),
                        ThreadId = "doctor",
                        Receipt = "doctor",
                        Kind = PushKind.Message,
                        Account = "",
                        From = "doctor",
                        Type = "normal",
                        Badge = 0,
                    },
                    cancellationToken
                )
                .WaitAsync(ApnsTimeout, clock, cancellationToken);
        }
        catch (TimeoutException)
        {
            return new DoctorCheck(name, false, $"{where} does not answer within {ApnsTimeout.TotalSeconds:0} s. {Reach(app)}");
        }

        var word = PushCode.WordOf(result.Code);
        return result switch
        {
            PushResult.TokenDead or PushResult.Accepted => new DoctorCheck(
                name,
                true,
                $"{where} takes key {app.Apns.KeyId} of team {app.Apns.TeamId} for {app.Apns.BundleId}"
            ),
            PushResult.Later { Fault: Fault.Credentials } when word is "InvalidProviderToken" or "MissingProviderToken" => new DoctorCheck(
                name,
                false,
                $"{where} answers {word}. Cure: TeamId, KeyId and KeyFile must be one key of Apple's, not revoked, for this "
                    + $"environment; and this machine's clock right."
            ),
            PushResult.Later { Fault: Fault.Credentials } => new DoctorCheck(
                name,
                false,
                $"{where} answers {word}. Cure: BundleId must be an app of the team, and the key allowed for it and this " + $"environment."
            ),
            { Status: null } => new DoctorCheck(name, false, $"{where} cannot be reached ({word}). {Reach(app)}"),
            _ => new DoctorCheck(
                name,
                false,
                $"{where} answers {result.Status?.ToString(CultureInfo.InvariantCulture)} {word}. Cure: ask again later; it "
                    + $"says nothing of the credentials."
            ),
        };
    }

    private static string Reach(AppOptions app) =>
        app.Apns.EndpointUri is null
            ? "Cure: let this machine reach port 443 of api.push.apple.com and api.sandbox.push.apple.com."
            : "Cure: check Endpoint, and TrustedCertificateFile for its certificate.";

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
