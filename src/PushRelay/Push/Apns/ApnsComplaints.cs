using System.Globalization;
using PushRelay.Apns;
using PushRelay.Telemetry;

namespace PushRelay.Push.Apns;

/// <summary>
/// What Apple's refusals say together: a build that registers for the wrong environment, and a second sender with the same key. Each node
/// counts its own answers. Thread-safe.
/// </summary>
internal sealed class ApnsComplaints(Conditions conditions, TimeProvider clock) : IWatch
{
    public const int TokensMin = 20;
    public const int TokenUpdatesMin = 2;
    public static readonly TimeSpan Within = TimeSpan.FromHours(1);

    private readonly Lock sync = new();

    // the last few of each, by what they are told apart by
    private readonly Dictionary<(ConditionKind Kind, string App, string Lane), Dictionary<string, DateTimeOffset>> notes = [];
    private long updates;

    /// <summary>Learns from an answer.</summary>
    public void Note(string app, Lane lane, string token, ApnsResponse response)
    {
        switch (response.KnownReason)
        {
            case ApnsReason.BadDeviceToken:
                Note(ConditionKind.EnvironmentMismatch, app, lane, token, TokensMin);
                break;
            case ApnsReason.TooManyProviderTokenUpdates:
                var number = Interlocked.Increment(ref updates).ToString(CultureInfo.InvariantCulture);
                Note(ConditionKind.KeyContested, app, lane, number, TokenUpdatesMin);
                break;
        }
    }

    public Task LookAsync(CancellationToken cancellationToken)
    {
        lock (sync)
        {
            var old = clock.GetUtcNow() - Within;
            foreach (var noted in notes.Values)
            {
                foreach (var what in noted.Where(n => n.Value <= old).Select(n => n.Key).ToList())
                {
                    noted.Remove(what);
                }
            }

            foreach (var same in notes.GroupBy(n => (n.Key.Kind, n.Key.App)))
            {
                Show(same.Key.Kind, same.Key.App);
            }
        }

        return Task.CompletedTask;
    }

    private void Note(ConditionKind kind, string app, Lane lane, string what, int enough)
    {
        lock (sync)
        {
            var key = (kind, app, lane.Id);
            if (!notes.TryGetValue(key, out var noted))
            {
                notes[key] = noted = new Dictionary<string, DateTimeOffset>(StringComparer.Ordinal);
            }

            noted[what] = clock.GetUtcNow();
            if (noted.Count > enough)
            {
                noted.Remove(noted.MinBy(n => n.Value).Key);
            }

            Show(kind, app);
        }
    }

    private void Show(ConditionKind kind, string app)
    {
        var subject = $"{app}/{ApnsNetwork.Name}";
        var enough = kind == ConditionKind.KeyContested ? TokenUpdatesMin : TokensMin;
        var lanes = notes
            .Where(n => n.Key.Kind == kind && n.Key.App == app && n.Value.Count >= enough)
            .Select(n => n.Key.Lane)
            .Order(StringComparer.Ordinal)
            .ToList();
        if (lanes.Count == 0)
        {
            conditions.Clear(kind, subject);
            return;
        }

        var word = kind == ConditionKind.KeyContested ? ApnsReason.TooManyProviderTokenUpdates : ApnsReason.BadDeviceToken;
        var text = string.Create(
            CultureInfo.InvariantCulture,
            $"{word} {enough} times or more within an hour ({string.Join(", ", lanes)})"
        );
        conditions.Raise(kind, subject, text);
    }
}
