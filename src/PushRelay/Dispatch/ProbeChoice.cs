using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>
/// Chooses the next probe of a circuit that opened for refused tokens: a device that was reached before, because its token was valid then.
/// If there is none, accounts take turns, so that one account's bad tokens do not get every probe. For one thread at a time.
/// </summary>
internal sealed class ProbeChoice
{
    private const int CandidatesMax = 100;
    private const int AccountsMax = 50;

    private readonly Dictionary<Lane, HashSet<string>> tried = [];

    /// <summary>Makes the chosen rows the first that are claimed.</summary>
    public async Task BringForwardAsync(RelayDb db, Lane lane, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var candidates = await OutboxQueue.ProbeCandidatesAsync(db, lane, now, CandidatesMax, cancellationToken);
        if (await ChooseAsync(db, lane, candidates, cancellationToken) is { } chosen)
        {
            await OutboxQueue.PutFirstAsync(db, chosen, now, cancellationToken);
        }
    }

    /// <summary>The lane has no circuit any more: whom it tried is of no use.</summary>
    public void Forget(Lane lane) => tried.Remove(lane);

    private async Task<ProbeCandidate?> ChooseAsync(
        RelayDb db,
        Lane lane,
        IReadOnlyList<ProbeCandidate> candidates,
        CancellationToken cancellationToken
    )
    {
        var before = tried.TryGetValue(lane, out var known) ? known : tried[lane] = new(StringComparer.Ordinal);
        var turn = candidates.DistinctBy(c => c.Account).Where(c => !before.Contains(c.Account)).ToList();
        if (turn.Count == 0)
        {
            before.Clear();
            turn = [.. candidates.DistinctBy(c => c.Account)];
        }

        foreach (var candidate in turn.Take(AccountsMax))
        {
            if (await OutboxQueue.WasReachedAsync(db, candidate.Account, candidate.DeviceKey, cancellationToken))
            {
                before.Add(candidate.Account);
                return candidate;
            }
        }

        if (turn is [var first, ..])
        {
            before.Add(first.Account);
            return first;
        }

        return null;
    }
}
