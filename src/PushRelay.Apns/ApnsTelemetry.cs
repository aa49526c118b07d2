using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace PushRelay.Apns;

/// <summary>The names of what is measured and traced. No tag carries a device token, a collapse id or anything of a payload.</summary>
public static class ApnsTelemetry
{
    /// <summary>Name of the <see cref="Meter"/> and of the <see cref="ActivitySource"/>.</summary>
    public const string Name = "PushRelay.Apns";

    private static readonly Meter Meter = new(Name);
    private static readonly ActivitySource Source = new(Name);

    private static readonly Counter<long> Requests = Meter.CreateCounter<long>(
        "pushrelay.apns.requests",
        "{request}",
        "Pushes by outcome, status and reason."
    );

    private static readonly Histogram<double> Duration = Meter.CreateHistogram<double>(
        "pushrelay.apns.request.duration",
        "s",
        "From the call to the answer, by outcome; waiting for a free stream included."
    );

    internal static readonly UpDownCounter<long> Connections = Meter.CreateUpDownCounter<long>(
        "pushrelay.apns.connections",
        "{connection}",
        "Open TCP connections to APNs."
    );

    internal static readonly UpDownCounter<long> Streams = Meter.CreateUpDownCounter<long>(
        "pushrelay.apns.streams",
        "{stream}",
        "Requests in flight on these connections."
    );

    internal static readonly Counter<long> Renewals = Meter.CreateCounter<long>(
        "pushrelay.apns.provider_token.signed",
        "{token}",
        "Provider tokens signed by this process."
    );

    internal static Activity? Start(ApnsNotification notification)
    {
        if (!Source.HasListeners())
        {
            return null;
        }

        var activity = Source.StartActivity("apns push", ActivityKind.Client);
        activity?.SetTag("apns.topic", notification.Topic).SetTag("apns.push_type", NotificationRules.HeaderValue(notification.PushType));
        return activity;
    }

    internal static void Record(ApnsResponse response, Activity? activity)
    {
        if (Requests.Enabled || Duration.Enabled)
        {
            var outcome = new KeyValuePair<string, object?>("outcome", OutcomeText(response.Outcome));
            Requests.Add(1, outcome, new("status", response.Status ?? 0), new("reason", ReasonText(response)));
            Duration.Record(response.Duration.TotalSeconds, outcome);
        }

        if (activity is not null)
        {
            activity.SetTag("apns.outcome", OutcomeText(response.Outcome)).SetTag("apns.id", response.ApnsId?.ToString("D"));
            activity.SetTag("http.response.status_code", response.Status).SetTag("error.type", response.Reason);
            activity.SetStatus(response.Outcome == ApnsOutcome.Accepted ? ActivityStatusCode.Ok : ActivityStatusCode.Error);
        }
    }

    /// <summary>A closed set: a reason we do not know is "other", so that no peer can make up time series.</summary>
    private static string ReasonText(ApnsResponse response) =>
        response switch
        {
            { Reason: null } => "",
            { Status: null, Reason: { } ours } => ours,
            { KnownReason: null } => "other",
            { Reason: { } known } => known,
        };

    private static string OutcomeText(ApnsOutcome outcome) =>
        outcome switch
        {
            ApnsOutcome.Accepted => "accepted",
            ApnsOutcome.DeviceInvalid => "device_invalid",
            ApnsOutcome.Refused => "refused",
            ApnsOutcome.Deferred => "deferred",
            ApnsOutcome.Misconfigured => "misconfigured",
            ApnsOutcome.Unknown => "unknown",
        };
}
