using System.Globalization;
using PushRelay.Presence;
using PushRelay.Telemetry;

namespace PushRelay.Bridge;

/// <summary>The servers' modules whose streams this node holds: too old, or events lost to their bounds.</summary>
internal sealed class ModuleWatch(PresenceTracker presence, Conditions conditions, TimeProvider clock) : IWatch
{
    /// <summary>So long events that were dropped are a condition.</summary>
    public static readonly TimeSpan DroppedLasts = TimeSpan.FromMinutes(10);

    private static readonly Version Ours = Version.Parse(BridgeProtocol.ModuleVersion);

    // how many each stream had dropped when it was looked at last, and when that rose last
    private readonly Dictionary<StreamName, (long Count, DateTimeOffset? RoseAt)> dropped = [];
    private readonly HashSet<string> seen = new(StringComparer.Ordinal);

    public Task LookAsync(CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var sources = presence.Sources();
        foreach (var (stream, source) in sources)
        {
            seen.Add(stream.Server);
            var (before, roseAt) = dropped.GetValueOrDefault(stream);
            dropped[stream] = (source.Dropped, source.Dropped > before ? now : roseAt);
        }

        foreach (var gone in dropped.Keys.Except(sources.Select(s => s.Stream)).ToList())
        {
            dropped.Remove(gone);
        }

        foreach (var server in seen)
        {
            ShowDropped(server, now);
            var old = sources.Where(s => s.Stream.Server == server && IsOld(s.Source.Module)).Select(s => s.Source.Module).FirstOrDefault();
            Show(
                ConditionKind.ModuleOutdated,
                server,
                old is null ? null : $"the server has version {old}, this relay comes with {BridgeProtocol.ModuleVersion}"
            );
        }

        seen.IntersectWith(sources.Select(s => s.Stream.Server));
        return Task.CompletedTask;
    }

    /// <summary>An older minor version; what cannot be read is another's module, of which nothing is known.</summary>
    internal static bool IsOld(string module) =>
        Version.TryParse(module.Split('-', '+')[0], out var version)
        && (version.Major, version.Minor).CompareTo((Ours.Major, Ours.Minor)) < 0;

    private void ShowDropped(string server, DateTimeOffset now)
    {
        var lately = dropped.Where(d => d.Key.Server == server && d.Value.RoseAt is { } at && now - at < DroppedLasts).ToList();
        Show(
            ConditionKind.EventsDropped,
            server,
            lately.Count == 0
                ? null
                : string.Create(CultureInfo.InvariantCulture, $"{lately.Sum(d => d.Value.Count)} since the module was loaded")
        );
    }

    private void Show(ConditionKind kind, string server, string? detail)
    {
        if (detail is null)
        {
            conditions.Clear(kind, server);
        }
        else
        {
            conditions.Raise(kind, server, detail);
        }
    }
}
