using PushRelay.Apps;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Tests.Ingest.Policy;

public sealed class PushPolicyTests
{
    private static readonly AlertsOptions Defaults = new()
    {
        BackgroundGrace = TimeSpan.FromSeconds(3),
        OtherDeviceDelay = TimeSpan.FromSeconds(30),
    };

    public static TheoryData<int> Rows =>
        [
            .. Repository
                .NumberedRows("docs/decision.md")
                .Select(cells => int.Parse(cells[0], System.Globalization.CultureInfo.InvariantCulture)),
        ];

    [Theory]
    [MemberData(nameof(Rows))]
    public void Each_row_of_the_table_is_what_the_policy_does(int number)
    {
        var table = Repository.NumberedRows("docs/decision.md").ToList();
        var row = table.Single(cells => cells[0] == number.ToString(System.Globalization.CultureInfo.InvariantCulture));
        var matched = 0;

        foreach (var (situation, options) in Situations())
        {
            // the first row that fits counts
            if (table.First(cells => Fits(cells, situation, options)) != row)
            {
                continue;
            }

            matched++;
            var decision = PushPolicy.Decide(situation, options);

            Assert.Equal(row[11], decision.Reason);
            var expected = row[12] switch
            {
                "" => (TimeSpan?)null,
                "0" => TimeSpan.Zero,
                "BackgroundGrace" => options.BackgroundGrace,
                _ => options.OtherDeviceDelay,
            };
            Assert.Equal(expected, (decision as PushDecision.Alert)?.Delay);
            Assert.Equal(row[10], decision is PushDecision.Alert ? "alert" : "suppress");
        }

        Assert.NotEqual(0, matched);
    }

    [Fact]
    public void The_table_leaves_no_situation_out() =>
        Assert.All(
            Situations(),
            s => Assert.Contains(Repository.NumberedRows("docs/decision.md"), cells => Fits(cells, s.Situation, s.Options))
        );

    private static IEnumerable<(PushSituation Situation, AlertsOptions Options)> Situations() =>
        from @class in (EventClass[])[EventClass.Text, EventClass.Encrypted, EventClass.Call, EventClass.Invite]
        from account in Enum.GetValues<AccountState>()
        from device in (string[])["valid", "invalid", "disabled"]
        from withheld in (string[])
            ["-", "wakeups off", "stale", "muted", "unmentioned", "quiet", "silent", "stale muted unmentioned quiet", "unmentioned quiet"]
        from published in (bool[])[true, false]
        from tied in (bool[])[true, false]
        from own in (bool[])[true, false]
        from unacked in (bool[])[true, false]
        from other in Enum.GetValues<OtherDeviceForeground>()
        where !own || (tied && account == AccountState.Foreground)
        select (
            new PushSituation
            {
                Class = @class,
                Account = account,
                DeviceValid = device != "invalid",
                AccountDisabled = device == "disabled",
                Published = published,
                WakeupsOff = withheld == "wakeups off",
                IsStale = withheld.Contains("stale", StringComparison.Ordinal),
                Muted = withheld.Contains("muted", StringComparison.Ordinal),
                LacksMention = withheld.Contains("unmentioned", StringComparison.Ordinal),
                QuietHours = withheld.Contains("quiet", StringComparison.Ordinal) || withheld == "silent",
                NoAlertsWhenQuiet = withheld != "silent",
                DeviceTied = tied,
                OwnSession =
                    !tied ? account
                    : own ? AccountState.Foreground
                    : account == AccountState.Foreground ? AccountState.Background
                    : account,
                OtherInFront = tied && account == AccountState.Foreground && !own,
                Mention = false,
                Unacked = unacked,
            },
            new AlertsOptions
            {
                BackgroundGrace = Defaults.BackgroundGrace,
                OtherDeviceDelay = Defaults.OtherDeviceDelay,
                OtherDeviceForeground = other,
            }
        );

    private static bool Fits(string[] cells, PushSituation situation, AlertsOptions options) =>
        Is(cells[1], situation.Class.ToString().ToLowerInvariant())
        && Is(cells[2], situation.Published ? "yes" : "no")
        && Is(cells[3], situation.Account.ToString().ToLowerInvariant())
        && Is(
            cells[4],
            !situation.DeviceValid ? "invalid"
                : situation.AccountDisabled ? "disabled"
                : "valid"
        )
        && cells[5] switch
        {
            "-" => true,
            "wakeups off" => situation.WakeupsOff,
            "stale" => situation.IsStale,
            "muted" => situation.Muted,
            "unmentioned" => situation.LacksMention,
            "quiet" => situation is { QuietHours: true, NoAlertsWhenQuiet: true },
            _ => false,
        }
        && Is(cells[6], situation.DeviceTied ? "yes" : "no")
        && Is(cells[7], situation.OwnSession == AccountState.Foreground ? "yes" : "no")
        && Is(cells[8], situation.Unacked ? "yes" : "no")
        && Is(cells[9], options.OtherDeviceForeground.ToString());

    private static bool Is(string cell, string value) => cell == "-" || cell == value;
}
