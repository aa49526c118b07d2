using System.Diagnostics.Metrics;
using System.Reflection;

namespace PushRelay.Telemetry;

/// <summary>
/// The relay's own instruments. Labels come from the settings or from closed sets: no account, token or address is ever one. Thread-safe.
/// What the names become for Prometheus, and what each counts, is in docs/operating.md.
/// </summary>
internal sealed class RelayMetrics
{
    /// <summary>The meter of all instruments that modules of the relay make.</summary>
    public const string MeterName = "PushRelay";

    private static readonly InstrumentAdvice<double> Latency = new()
    {
        HistogramBucketBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
    };

    private readonly Counter<long> events;
    private readonly Counter<long> deliveries;
    private readonly Counter<long> attempts;
    private readonly Counter<long> receipts;
    private readonly Counter<long> publishes;
    private readonly Counter<long> registrations;
    private readonly Histogram<double> attemptDuration;
    private readonly Histogram<double> eventToAccepted;
    private readonly Histogram<double> acceptedToReceived;

    public RelayMetrics(IMeterFactory meters, Conditions conditions)
    {
        var meter = meters.Create(MeterName);
        events = meter.CreateCounter<long>("pushrelay.events", null, "Events that may alert, once they are stored.");
        deliveries = meter.CreateCounter<long>("pushrelay.deliveries", null, "Deliveries that ended, by state and reason.");
        attempts = meter.CreateCounter<long>("pushrelay.attempts", null, "Requests to push networks, by the network's answer.");
        receipts = meter.CreateCounter<long>("pushrelay.receipts", null, "Receipts of phones that changed something.");
        publishes = meter.CreateCounter<long>("pushrelay.publishes", null, "Publishes of servers (XEP-0357), by what they were answered.");
        registrations = meter.CreateCounter<long>("pushrelay.registrations", null, "Registrations of devices.");
        attemptDuration = meter.CreateHistogram("pushrelay.attempt.duration", "s", "From the request to the answer.", null, Latency);
        eventToAccepted = meter.CreateHistogram(
            "pushrelay.event_to_accepted",
            "s",
            "From the event to the push network's yes.",
            null,
            Latency
        );
        acceptedToReceived = meter.CreateHistogram(
            "pushrelay.accepted_to_received",
            "s",
            "From the push network's yes to the phone's receipt.",
            null,
            Latency
        );
        meter.CreateObservableGauge(
            "pushrelay.condition",
            () => conditions.Snapshot().Select(c => new Measurement<int>(1, new("kind", c.Kind.Name), new("subject", c.Subject))),
            null,
            "1 while the condition lasts."
        );
        var version = typeof(RelayMetrics)
            .Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!
            .InformationalVersion.Split('+');
        meter.CreateObservableGauge(
            "pushrelay.build_info",
            () => new Measurement<int>(1, new("version", version[0]), new("commit", version.ElementAtOrDefault(1) ?? "")),
            null,
            "Always 1."
        );
    }

    public void CountEvents(string source, string @class, int count) =>
        events.Add(count, new KeyValuePair<string, object?>("source", source), new("class", @class));

    /// <summary>Rows that came to their end.</summary>
    public void CountEnded(string? app, string? platform, string state, string? reason, int count = 1) =>
        deliveries.Add(
            count,
            new KeyValuePair<string, object?>("app", app ?? ""),
            new("platform", platform ?? ""),
            new("state", state),
            new("reason", reason ?? "")
        );

    /// <param name="app">Of the device.</param>
    /// <param name="platform">Of the device.</param>
    /// <param name="status">The answer's; null: there was none.</param>
    /// <param name="code">The network's own word, of a closed set for each network; null: none.</param>
    /// <param name="duration">Until the answer.</param>
    public void CountAttempt(string app, string platform, int? status, string? code, TimeSpan duration)
    {
        attempts.Add(
            1,
            new KeyValuePair<string, object?>("app", app),
            new("platform", platform),
            new("status", status ?? 0),
            new("reason", code ?? "")
        );
        attemptDuration.Record(duration.TotalSeconds, new KeyValuePair<string, object?>("app", app), new("platform", platform));
    }

    public void RecordAccepted(string app, string platform, TimeSpan sinceEvent) => Record(eventToAccepted, app, platform, sinceEvent);

    /// <param name="app">Of the device.</param>
    /// <param name="platform">Of the device.</param>
    /// <param name="event"><c>received</c> or <c>opened</c>.</param>
    /// <param name="sinceAccepted">Null: the network's answer is not known, or the alert was received before.</param>
    public void CountReceipt(string app, string platform, string @event, TimeSpan? sinceAccepted)
    {
        receipts.Add(1, new KeyValuePair<string, object?>("app", app), new("platform", platform), new("event", @event));
        if (sinceAccepted is { } time)
        {
            Record(acceptedToReceived, app, platform, time);
        }
    }

    /// <param name="server">A configured one; of any other the label is empty.</param>
    /// <param name="result"><c>taken</c>, <c>duplicate</c>, <c>refused</c>, <c>later</c> or <c>malformed</c>.</param>
    public void CountPublish(string server, string result) =>
        publishes.Add(1, new KeyValuePair<string, object?>("server", server), new("result", result));

    /// <param name="door"><c>xmpp</c>, <c>operator</c> or <c>account</c>.</param>
    /// <param name="result">What it came to.</param>
    public void CountRegistration(string door, string result) =>
        registrations.Add(1, new KeyValuePair<string, object?>("door", door), new("result", result));

    // two clocks: what looks negative took no time
    private static void Record(Histogram<double> histogram, string app, string platform, TimeSpan time) =>
        histogram.Record(Math.Max(0, time.TotalSeconds), new KeyValuePair<string, object?>("app", app), new("platform", platform));
}
