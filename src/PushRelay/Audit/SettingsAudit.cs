using Microsoft.EntityFrameworkCore;
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
    SettingNode settings
)
{
    private const int LookedBackMax = 2000;

    private static readonly string[] Actions =
    [
        AuditActions.SettingsChanged,
        AuditActions.OperatorKeyAdded,
        AuditActions.OperatorKeyRemoved,
    ];

    /// <param name="operatorKeys">Name and SHA-256 of each key in the settings.</param>
    /// <param name="cancellationToken">Stops the statements.</param>
    public async Task RecordAsync(IEnumerable<(string Name, byte[] Hash)> operatorKeys, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var (now, machine, suffix) = (await clock.NowAsync(db, cancellationToken), Actor.Command.Address, " " + file.Path);
        var past = (
            await db.Set<AuditRecord>()
                .AsNoTracking()
                .Where(r => Actions.Contains(r.Action) && r.Address == machine)
                .OrderByDescending(r => r.Id)
                .Take(LookedBackMax)
                .Select(r => new { r.Action, r.Target })
                .ToListAsync(cancellationToken)
        )
            .Where(r => r.Target!.EndsWith(suffix, StringComparison.Ordinal))
            .ToList();
        var changes = new List<(string Action, string Target)>();
        foreach (var section in settings.Children.Select(node => node.Name))
        {
            var last = past.Find(r =>
                r.Action == AuditActions.SettingsChanged && r.Target!.StartsWith(section + " ", StringComparison.Ordinal)
            );
            var values = configuration
                .GetSection(section)
                .AsEnumerable()
                .Where(s => s.Value is not null)
                .OrderBy(s => s.Key, StringComparer.Ordinal)
                .SelectMany(s => new[] { s.Key, s.Value! })
                .ToArray();
            var hashes = Hashes("settings", [section, .. values]).Select(hash => $"{section} {hash}{suffix}").ToList();
            if (last is null ? values.Length > 0 : !hashes.Contains(last.Target!))
            {
                changes.Add((AuditActions.SettingsChanged, hashes[0]));
            }
        }

        var held = past.Where(r => r.Action != AuditActions.SettingsChanged)
            .GroupBy(r => r.Target!)
            .Where(g => g.First().Action == AuditActions.OperatorKeyAdded)
            .Select(g => g.Key)
            .ToHashSet(StringComparer.Ordinal);
        foreach (var (name, hash) in operatorKeys)
        {
            var names = Hashes("operator key", [name, Convert.ToHexString(hash)]).Select(mac => $"{name} {mac}{suffix}").ToList();
            if (held.RemoveWhere(names.Contains) == 0)
            {
                changes.Add((AuditActions.OperatorKeyAdded, names[0]));
            }
        }

        changes.AddRange(held.Select(gone => (AuditActions.OperatorKeyRemoved, gone)));
        var records = changes.ConvertAll(c => audit.Record(db, now, Actor.Command, c.Action, null, c.Target));
        await db.SaveChangesAsync(cancellationToken);
        records.ForEach(audit.Log);
    }

    /// <summary>Under each master key: one that was replaced since changes nothing here.</summary>
    private IEnumerable<string> Hashes(string purpose, string[] words) =>
        masterKey.Macs(purpose, words).Select(mac => Convert.ToHexStringLower(mac.AsSpan(0, 6)));
}
