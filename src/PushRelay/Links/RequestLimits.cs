using PushRelay.Access;
using PushRelay.Limits;
using PushRelay.Xmpp;

namespace PushRelay.Links;

/// <summary>
/// What one sender's requests over a link may cost, whatever they ask: answers by a bucket, then as many refusals, then nothing, so that no
/// flood makes another. A sender is an account of the link's servers; of strangers, who can invent accounts, it is their server. What the
/// link's
/// servers ask themselves has no limit but that of all: it stands for all their accounts.
/// </summary>
/// <param name="servers">The virtual hosts behind the link.</param>
/// <param name="rates">An account's requests over XMPP have the rate of those over REST, and are counted by themselves.</param>
/// <param name="clock">The time it goes by.</param>
internal sealed class RequestLimits(IReadOnlyList<string> servers, RateLimitOptions rates, TimeProvider clock)
{
    /// <summary>Of all senders together: all clients of a server that ask on their first login after its restart are no flood.</summary>
    internal const int OfAllPerSecond = 1_000;
    internal const int OfAllAtOnce = 10_000;

    private readonly Bucket answers = new(rates, clock);
    private readonly Bucket refusals = new(rates, clock);

    public XmppAdmission Admit(Jid from)
    {
        var sender =
            !servers.Contains(from.Domain) ? from.Domain
            : from.Local is null ? null
            : from.Bare.ToString();
        return answers.TryTake(sender) ? XmppAdmission.Answer
            : refusals.TryTake(sender) ? XmppAdmission.Refuse
            : XmppAdmission.Ignore;
    }

    private sealed class Bucket(RateLimitOptions rates, TimeProvider clock)
    {
        private readonly RateLimit ofSender = rates.Requests(clock);
        private readonly RateLimit ofAll = new(OfAllPerSecond, TimeSpan.FromSeconds(1), OfAllAtOnce, clock);

        // the sender's own first: what it asks in vain takes nothing from others
        public bool TryTake(string? sender) => (sender is null || ofSender.TryTake(sender, out _)) && ofAll.TryTake("all", out _);
    }
}
