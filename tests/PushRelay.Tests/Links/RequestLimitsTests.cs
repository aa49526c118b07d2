using System.Globalization;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Access;
using PushRelay.Links;
using PushRelay.Xmpp;

namespace PushRelay.Tests.Links;

/// <summary>What a flood of XMPP requests costs; over a socket it is in <see cref="Commands.CommandTests"/>.</summary>
public sealed class RequestLimitsTests
{
    private readonly FakeTimeProvider clock = new();

    [Fact]
    public void All_senders_together_have_a_bound_and_one_that_floods_takes_nothing_of_it()
    {
        var limits = NewLimits();
        for (var i = 0; i < 20_000; i++)
        {
            limits.Admit(Jid.Parse("flood@example.com/x"));
        }

        var verdicts = Enumerable
            .Range(0, 3 * RequestLimits.OfAllAtOnce)
            .Select(i => limits.Admit(Account(i)))
            .CountBy(v => v)
            .ToDictionary();

        // the flooder's own 50 are gone
        Assert.Equal(RequestLimits.OfAllAtOnce - 50, verdicts[XmppAdmission.Answer]);
        Assert.Equal(RequestLimits.OfAllAtOnce - 50, verdicts[XmppAdmission.Refuse]);
        Assert.Equal(RequestLimits.OfAllAtOnce + 100, verdicts[XmppAdmission.Ignore]);
        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(RequestLimits.OfAllPerSecond, Enumerable.Range(0, 5_000).Count(i => limits.Admit(Account(i)) == XmppAdmission.Answer));
    }

    [Fact]
    public void A_server_asks_for_all_its_accounts_and_has_no_account_s_limit()
    {
        var limits = NewLimits();

        Assert.All(Enumerable.Range(0, 5_000), _ => Assert.Equal(XmppAdmission.Answer, limits.Admit(Jid.Parse("example.com"))));
        Assert.Contains(Enumerable.Range(0, 200), _ => limits.Admit(Jid.Parse("elsewhere.example")) == XmppAdmission.Ignore);
    }

    private RequestLimits NewLimits() => new(["example.com"], new RateLimitOptions(), clock);

    private static Jid Account(int number) => Jid.Parse($"u{number.ToString(CultureInfo.InvariantCulture)}@example.com/x");
}
