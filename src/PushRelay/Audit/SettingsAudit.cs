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
            var target = $"{section} {Hash("settings", [section, .. values])}{suffix}";
            if (last is null ? values.Length > 0 : target != last.Target)
            {
                changes.Add((AuditActions.SettingsChanged, target));
            }
        }

        var held = past.Where(r => r.Action != AuditActions.SettingsChanged)
            .GroupBy(r => r.Target!)
            .Where(g => g.First().Action == AuditActions.OperatorKeyAdded)
            .Select(g => g.Key)
            .ToHashSet(StringComparer.Ordinal);
        foreach (var (name, hash) in operatorKeys)
        {
            var target = $"{name} {Hash("operator key", [name, Convert.ToHexString(hash)])}{suffix}";
            if (!held.Remove(target))
            {
                changes.Add((AuditActions.OperatorKeyAdded, target));
            }
        }

        changes.AddRange(held.Select(gone => (AuditActions.OperatorKeyRemoved, gone)));
        var records = changes.ConvertAll(c => audit.Record(db, now, Actor.Command, c.Action, null, c.Target));
        await db.SaveChangesAsync(cancellationToken);
        records.ForEach(audit.Log);
    }

    private string Hash(string purpose, string[] words) => Convert.ToHexStringLower(masterKey.Mac(purpose, words).AsSpan(0, 6));
}
