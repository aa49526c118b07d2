using System.Collections.Frozen;
using System.Diagnostics.CodeAnalysis;

namespace PushRelay.Push;

/// <summary>The push networks of this relay, by platform.</summary>
internal sealed class PushNetworks(IEnumerable<IPushNetwork> networks)
{
    /// <summary>From the call of <see cref="IPushNetwork.SendAsync"/> to its answer, at most.</summary>
    public static readonly TimeSpan AnswerMax = TimeSpan.FromSeconds(10);

    private readonly FrozenDictionary<string, IPushNetwork> byPlatform = networks.ToFrozenDictionary(
        n => n.Platform,
        StringComparer.Ordinal
    );

    public IReadOnlyCollection<string> Platforms => byPlatform.Keys;

    /// <summary>Each app with each network that the settings give it.</summary>
    public IReadOnlySet<(string App, string Platform)> Reachable { get; } =
        networks.SelectMany(n => n.Apps.Select(app => (app, n.Platform))).ToFrozenSet();

    /// <summary>Of the networks whose lanes have a bound: <see cref="IPushNetwork.InFlightPerLaneMax"/>.</summary>
    public IReadOnlyDictionary<string, int> LaneMax { get; } =
        networks.Where(n => n.InFlightPerLaneMax is not null).ToFrozenDictionary(n => n.Platform, n => n.InFlightPerLaneMax!.Value);

    /// <summary><see cref="IPushNetwork.TakesFollowUps"/>.</summary>
    public bool TakesFollowUps(string platform, string app) =>
        byPlatform.TryGetValue(platform, out var network) && network.TakesFollowUps(app);

    /// <summary><see cref="IPushNetwork.TakesWakeups"/>.</summary>
    public bool TakesWakeups(string platform) => byPlatform.TryGetValue(platform, out var network) && network.TakesWakeups;

    public bool TryGet(string platform, [NotNullWhen(true)] out IPushNetwork? network) => byPlatform.TryGetValue(platform, out network);
}
