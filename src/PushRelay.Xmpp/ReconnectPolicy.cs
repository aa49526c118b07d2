namespace PushRelay.Xmpp;

/// <summary>How long to wait before the next link, from how the last one ended. Counts the failures in a row.</summary>
internal sealed class ReconnectPolicy(XmppComponentOptions options)
{
    // Full jitter can draw next to nothing, several times in a row.
    private const double DelayMillisecondsMin = 10;

    private int failures;

    /// <summary>True for a refusal that trying again does not cure.</summary>
    public static bool IsRefusal(Exception? reason) =>
        reason is XmppStreamException { FromServer: true, Condition: "not-authorized" or "host-unknown" };

    /// <param name="reason">Why the link ended; null if the server closed it in order.</param>
    /// <param name="held">How long it was there.</param>
    /// <param name="jitter">From 0 to 1, evenly: full jitter, so that many components do not come back at once.</param>
    public TimeSpan Next(Exception? reason, TimeSpan held, double jitter)
    {
        if (IsRefusal(reason))
        {
            return options.RefusedDelay;
        }

        if (reason is XmppStreamException { FromServer: true, Condition: "conflict" })
        {
            return options.ConflictDelay;
        }

        failures = held >= options.ReconnectDelayMax ? 1 : Math.Min(failures + 1, 31);
        var ceiling = Math.Min(
            options.ReconnectDelayMin.TotalMilliseconds * Math.Pow(2, failures - 1),
            options.ReconnectDelayMax.TotalMilliseconds
        );
        return TimeSpan.FromMilliseconds(Math.Max(jitter * ceiling, DelayMillisecondsMin));
    }
}
