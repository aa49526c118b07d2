using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Secrets;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Audit;

/// <summary>
/// At the start, audits which settings sections and operator keys changed since this machine's last start with the same file. Stores keyed
/// hashes, never values.
/// </summary>
internal sealed class SettingsAudit(
    IDbContextFactory<RelayDb> databases,
    AuditTrail audit,
    MasterKey masterKey,
    DatabaseClock clock,
    IConfiguration configuration,
    SettingsFile file,
    SettingNode settings,
    IOptions<ApiOptions> options
)
{
    private const string Changed = "settings.changed";
    private const string KeyAdded = "operator_key.added";
    private const string KeyRemoved = "operator_key.removed";
    private const int LookedBackMax = 2000;

    private static readonly string[] Actions = [Changed, KeyAdded, KeyRemoved];

    /// <summary>Once a start.</summary>
    public async Task NoteAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var (now, machine, place) = (await clock.NowAsync(db, cancellationToken), Actor.Command.Address, " " + file.Path);
        var past = (
            await db.Set<AuditRecord>()
                .AsNoTracking()
                .Where(r => Actions.Contains(r.Action) && r.Address == machine)
                .OrderByDescending(r => r.Id)
                .Take(LookedBackMax)
                .Select(r => new { r.Action, r.Target })
                .ToListAsync(cancellationToken)
        )
            .Where(r => r.Target!.EndsWith(place, StringComparison.Ordinal))
            .ToList();
        var told = new List<(string Action, string Target)>();
        foreach (var section in settings.Children.Select(node => node.Name))
        {
            var last = past.Find(r => r.Action == Changed && r.Target!.StartsWith(section + " ", StringComparison.Ordinal));
            var values = configuration
                .GetSection(section)
                .AsEnumerable()
                .Where(s => s.Value is not null)
                .OrderBy(s => s.Key, StringComparer.Ordinal)
                .SelectMany(s => new[] { s.Key, s.Value! })
                .ToArray();
            var now12 = Hashes("settings", [section, .. values]).Select(hash => $"{section} {hash}{place}").ToList();
            if (last is null ? values.Length > 0 : !now12.Contains(last.Target!))
            {
                told.Add((Changed, now12[0]));
            }
        }

        var held = past.Where(r => r.Action != Changed)
            .GroupBy(r => r.Target!)
            .Where(g => g.First().Action == KeyAdded)
            .Select(g => g.Key)
            .ToHashSet(StringComparer.Ordinal);
        foreach (var key in options.Value.OperatorKeys)
        {
            var names = Hashes("operator key", [key.Name, Convert.ToHexString(key.Hash())])
                .Select(hash => $"{key.Name} {hash}{place}")
                .ToList();
            if (held.RemoveWhere(names.Contains) == 0)
            {
                told.Add((KeyAdded, names[0]));
            }
        }

        told.AddRange(held.Select(gone => (KeyRemoved, gone)));
        var records = told.ConvertAll(t => audit.Note(db, now, Actor.Command, t.Action, null, t.Target));
        await db.SaveChangesAsync(cancellationToken);
        records.ForEach(audit.Tell);
    }

    /// <summary>Under each master key: one that was replaced since changes nothing here.</summary>
    private IEnumerable<string> Hashes(string purpose, string[] words) =>
        masterKey.Macs(purpose, words).Select(mac => Convert.ToHexStringLower(mac.AsSpan(0, 6)));
}
