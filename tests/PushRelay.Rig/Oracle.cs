using System.Globalization;

namespace PushRelay.Rig;

/// <summary>What must hold in a rehearsal beyond what always does.</summary>
internal sealed record OracleTerms
{
    /// <summary>The states that an event may have ended in.</summary>
    public IReadOnlyList<DeliveryStateNumber> Ends { get; init; } = [DeliveryStateNumber.Accepted, DeliveryStateNumber.Coalesced];

    /// <summary>Alerts that APNs may have accepted twice: what was in flight when nodes died.</summary>
    public long RepeatedMax { get; init; }

    /// <summary>Devices whose token APNs said is dead, and since when (Unix milliseconds).</summary>
    public IReadOnlyDictionary<int, long> DeadDevices { get; init; } = new Dictionary<int, long>();

    /// <summary>What no log may hold, beside tokens, bodies and secrets of the rehearsal.</summary>
    public IReadOnlyList<string> LogFiles { get; init; } = [];

    public static OracleTerms Ending(params DeliveryStateNumber[] ends) => new() { Ends = ends };
}

/// <summary>What the oracle found.</summary>
internal sealed record OracleVerdict
{
    public required int Events { get; init; }

    /// <summary>Events without a row, with a row that is not final, or said to be accepted though no alert arrived.</summary>
    public required int Lost { get; init; }

    /// <summary>Events with a second row for their device, or a second alert under another apns-id.</summary>
    public required int Doubled { get; init; }

    /// <summary>Further acceptances of alerts, all with the apns-id of the first.</summary>
    public required int Repeated { get; init; }

    /// <summary>By state and reason.</summary>
    public required IReadOnlyDictionary<string, int> Ends { get; init; }

    /// <summary>Each invariant that does not hold, with the first of what breaks it.</summary>
    public required IReadOnlyList<string> Broken { get; init; }

    public override string ToString() =>
        string.Create(
            CultureInfo.InvariantCulture,
            $"events {Events}, lost {Lost}, doubled {Doubled}, repeated with the same apns-id {Repeated}; "
        )
        + string.Join(", ", Ends.Select(e => $"{e.Key} {e.Value}"))
        + string.Concat(Broken.Select(b => $"\n  BROKEN {b}"));
}

/// <summary>Compares what the peer sent, what the ledger says and what APNs got: the invariants that every fault must leave
/// standing.</summary>
internal static class Oracle
{
    /// <param name="events">Every event that the relay acknowledged, by number.</param>
    /// <param name="plan">Whom each is for.</param>
    /// <param name="rows">The ledger.</param>
    /// <param name="alerts">What the simulator got, in order.</param>
    /// <param name="terms">What else must hold.</param>
    public static OracleVerdict Judge(
        int events,
        Func<int, RehearsedEvent> plan,
        List<LedgerRow> rows,
        AlertRecord[] alerts,
        OracleTerms terms
    )
    {
        var broken = new Dictionary<string, List<string>>();
        void Break(string invariant, string what)
        {
            if (!broken.TryGetValue(invariant, out var list))
            {
                broken[invariant] = list = [];
            }

            list.Add(what);
        }

        var accepted = alerts.Where(a => a.Status == 200).GroupBy(a => a.ApnsId).ToDictionary(g => g.Key, g => g.Count());
        var byId = rows.ToDictionary(r => r.Id);
        var byEvent = new LedgerRow?[events];
        var (lost, doubled) = (0, 0);
        foreach (var row in rows.Where(r => r.Event >= 0 && r.Event < events))
        {
            if (byEvent[row.Event] is not null || row.Device != plan(row.Event).Device)
            {
                doubled++;
                Break("I1 one row for each event and device", $"event {row.Event}");
            }

            byEvent[row.Event] = row;
        }

        for (var number = 0; number < events; number++)
        {
            if (byEvent[number] is not { } row || row.State is DeliveryStateNumber.Pending or DeliveryStateNumber.Sending)
            {
                lost++;
                Break(
                    "I1 every acknowledged event ends in a final row",
                    $"event {number} is {byEvent[number]?.State.ToString() ?? "absent"}"
                );
            }
            else if (!terms.Ends.Contains(row.State))
            {
                Break("I1 it ends as expected", $"event {number} is {row.State}/{row.Reason}");
            }
            else if (!Arrived(row, byId, accepted))
            {
                lost++;
                Break("I1 what is called accepted has arrived", $"event {number}, apns-id {row.CoalescedInto ?? row.Id}");
            }
        }

        doubled += JudgeAlerts(alerts, byId, plan, terms, Break);
        var repeated = accepted.Values.Sum(count => count - 1);
        if (repeated > terms.RepeatedMax)
        {
            Break("I2 repetitions are bounded by what was in flight", $"{repeated} of at most {terms.RepeatedMax}");
        }

        JudgeLogs(terms.LogFiles, Break);
        return new OracleVerdict
        {
            Events = events,
            Lost = lost,
            Doubled = doubled,
            Repeated = repeated,
            Ends = rows.GroupBy(r => $"{r.State.ToString().ToLowerInvariant()}/{r.Reason}")
                .OrderBy(g => g.Key, StringComparer.Ordinal)
                .ToDictionary(g => g.Key, g => g.Count()),
            Broken = [.. broken.Select(b => $"{b.Key}: {b.Value.Count} times, first {b.Value[0]}")],
        };
    }

    private static bool Arrived(LedgerRow row, Dictionary<Guid, LedgerRow> byId, Dictionary<Guid, int> accepted) =>
        row.State
            is not (
                DeliveryStateNumber.Accepted
                or DeliveryStateNumber.Received
                or DeliveryStateNumber.Opened
                or DeliveryStateNumber.Coalesced
            )
        || (accepted.ContainsKey(row.CoalescedInto ?? row.Id) && byId.ContainsKey(row.CoalescedInto ?? row.Id));

    /// <returns>Events that were shown under two apns-ids.</returns>
    private static int JudgeAlerts(
        AlertRecord[] alerts,
        Dictionary<Guid, LedgerRow> byId,
        Func<int, RehearsedEvent> plan,
        OracleTerms terms,
        Action<string, string> breaks
    )
    {
        var shown = new Dictionary<int, Guid>();
        var newest = new Dictionary<RehearsedEvent, (int Event, long At)>();
        var doubled = 0;
        foreach (var alert in alerts)
        {
            if (alert.AtMilliseconds > (alert.Expiration * 1000) + 1000)
            {
                breaks("I3 nothing is sent after its time to live", $"apns-id {alert.ApnsId}");
            }

            if (terms.DeadDevices.TryGetValue(alert.Device, out var since) && alert.AtMilliseconds > since)
            {
                breaks("I4 nothing goes to a dead token", $"device {alert.Device}");
            }

            if (!byId.TryGetValue(alert.ApnsId, out var row))
            {
                breaks("I2 every alert has its row", $"apns-id {alert.ApnsId}");
            }
            else if (alert.Status == 200 && alert.Event >= 0)
            {
                if (shown.TryGetValue(alert.Event, out var before) && before != alert.ApnsId)
                {
                    doubled++;
                    breaks("I2 an event is repeated under its apns-id only", $"event {alert.Event}");
                }

                shown[alert.Event] = alert.ApnsId;
                var slot = plan(alert.Event);
                if (newest.TryGetValue(slot, out var last) && last.Event > alert.Event)
                {
                    breaks("I5 within a slot nothing overtakes", $"event {alert.Event} after {last.Event}");
                }

                newest[slot] = (Math.Max(alert.Event, last.Event), alert.AtMilliseconds);
            }
        }

        return doubled;
    }

    private static void JudgeLogs(IReadOnlyList<string> files, Action<string, string> breaks)
    {
        string[] secrets =
        [
            Rehearsal.Token(0)[..60],
            "a seat near the window",
            Rehearsal.Secret,
            Rehearsal.OperatorKey,
            "@" + Rehearsal.Server,
        ];
        foreach (var line in files.SelectMany(File.ReadLines))
        {
            foreach (var secret in secrets.Where(s => line.Contains(s, StringComparison.Ordinal)))
            {
                breaks("I8 no token, text, name or secret in a log", $"'{secret}' in: {line[..Math.Min(line.Length, 200)]}");
            }
        }
    }
}
