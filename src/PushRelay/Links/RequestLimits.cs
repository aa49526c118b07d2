using PushRelay.Access;
using PushRelay.Limits;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>
/// Limits how often each sender may send requests of any kind over a link. Requests within the rate are answered. The next requests, up to
/// the same number, are refused with <c>wait</c>. All others are dropped, so that a flood of requests causes no flood of answers. A sender
/// is an account of the link's servers; of other domains, whose addresses can be invented, the whole domain. The link's servers
/// themselves, which speak for all their accounts, have a rate of their own. Beyond it their requests are dropped without an error,
/// because an error could end registrations (XEP-0357).
/// </summary>
/// <param name="servers">The virtual hosts behind the link.</param>
/// <param name="rates">An account's requests over XMPP have the rate of those over REST, and are counted by themselves.</param>
/// <param name="clock">The time it goes by.</param>
internal sealed class RequestLimits(IReadOnlyList<string> servers, RateLimitOptions rates, TimeProvider clock)
{
    /// <summary>Of all senders together: enough for all clients of a server after its restart.</summary>
    internal const int OfAllPerSecond = 1_000;
    internal const int OfAllAtOnce = 10_000;

    /// <summary>Of the link's servers together.</summary>
    internal const int OfServersPerSecond = 10_000;
    internal const int OfServersAtOnce = 50_000;

    private readonly RateLimit ofServers = new(OfServersPerSecond, TimeSpan.FromSeconds(1), OfServersAtOnce, clock);

    private readonly Bucket answers = new(rates, clock);
    private readonly Bucket refusals = new(rates, clock);

    public XmppAdmission Admit(Jid from)
    {
        var isServed = servers.Contains(from.Domain);
        if (isServed && from.Local is null)
        {
            return ofServers.TryTake("all", out _) ? XmppAdmission.Answer : XmppAdmission.Ignore;
        }

        var sender = isServed ? from.Bare.ToString() : from.Domain;
        return answers.TryTake(sender) ? XmppAdmission.Answer
            : refusals.TryTake(sender) ? XmppAdmission.Refuse
            : XmppAdmission.Ignore;
    }

    private sealed class Bucket(RateLimitOptions rates, TimeProvider clock)
    {
        private readonly RateLimit ofSender = rates.Requests(clock);
        private readonly RateLimit ofAll = new(OfAllPerSecond, TimeSpan.FromSeconds(1), OfAllAtOnce, clock);

        // the sender's own limit first: its refused requests use nothing of the shared limit
        public bool TryTake(string sender) => ofSender.TryTake(sender, out _) && ofAll.TryTake("all", out _);
    }
}
