using System.Text.Json.Nodes;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Push;

namespace PushRelay.Tests.Devices;

/// <summary>The one door for devices, as a door that is not HTTP finds it: every outcome is a value.</summary>
public sealed class RegistrationsTests : IAsyncLifetime
{
    private const string Alphabet = "0123456789abcdef";

    private static readonly string Good = new('a', 64);
    private static readonly Caller Bob = new("xmpp", TestRelay.Bob, null);

    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private Registrations Registrations => relay.Get<Registrations>();

    public async ValueTask InitializeAsync() => relay = await TestRelay.OpenAsync(null, "--Api:RateLimits:RegistrationsPerMinute=1");

    public ValueTask DisposeAsync() => relay.DisposeAsync();

    /// <summary>What is asked, who asks, and the fields that are refused (none: it is taken).</summary>
    public static TheoryData<string, string, string> Requests =>
        new()
        {
            { "all there", "account", "" },
            { "all there", "operator", "" },
            { "no account", "account", "" },
            { "no account", "operator", "account" },
            { "account of no served server", "operator", "account" },
            { "account with a resource", "account", "account" },
            { "no app", "account", "app" },
            { "no platform", "account", "platform" },
            { "unknown platform", "account", "platform" },
            { "no token", "account", "token" },
            { "short token", "account", "token" },
            { "short call token", "account", "voipToken" },
            { "unknown environment", "account", "environment" },
            { "bad id", "account", "deviceId" },
            { "bad resource", "account", "resource" },
            { "bad time zone", "account", "timeZone" },
            { "everything wrong", "operator", "account app deviceId environment resource timeZone token voipToken" },
        };

    [Theory]
    [InlineData("en_US@rg=gbzzzz", "en-US")]
    [InlineData("en_DE@calendar=japanese", "en-DE")]
    [InlineData("de_DE.UTF-8", "de-DE")]
    [InlineData("de_DE_POSIX", "de-DE-POSIX")]
    [InlineData("en-US-u-ca-gregory", "en-US")]
    [InlineData("en-US-x-lvariant-POSIX", "en-US")]
    [InlineData("zh-Hans-CN", "zh-Hans-CN")]
    [InlineData("C.UTF-8", null)]
    [InlineData("", null)]
    [InlineData("x-klingon", null)]
    [InlineData("../../etc/passwd", null)]
    [InlineData(null, null)]
    public void A_locale_is_reduced_to_a_language_tag_or_dropped(string? locale, string? tag)
    {
        var taken = Registrations.Check(Ask("all there") with { Locale = locale }, Bob, out var refusal);

        Assert.Null(refusal);
        Assert.Equal(tag, taken!.Locale);
    }

    [Theory]
    [MemberData(nameof(Requests))]
    public void A_request_is_taken_or_refused_with_each_wrong_field_named(string request, string who, string fields)
    {
        var taken = Registrations.Check(Ask(request), who == "operator" ? TestRelay.Operator : Bob, out var refusal);

        if (fields.Length == 0)
        {
            Assert.Null(refusal);
            Assert.Equal(
                (TestRelay.Bob, Good, "production"),
                (taken!.Account, taken.Address.Tokens[Channels.Alert], taken.Address.Environment)
            );
        }
        else
        {
            Assert.Null(taken);
            Assert.Equal(fields, string.Join(' ', Assert.IsType<DeviceResult.Invalid>(refusal).Errors.Keys.Order(StringComparer.Ordinal)));
        }
    }

    [Fact]
    public async Task An_account_has_its_device_and_the_audit_says_who_made_it()
    {
        var result = await Registrations.RegisterAsync(Ask("no account") with { Resource = "phone" }, Bob, Token);

        var (device, created) = Assert.IsType<DeviceResult.Done>(result);
        Assert.True(created);
        Assert.Equal((TestRelay.Bob, "phone"), (device.Account, device.Resource));
        var record = Assert.Single(await relay.Get<AuditTrail>().ListAsync(null, null, 10, Token));
        Assert.Equal(("xmpp", AuditActions.DeviceRegistered, device.Id), (record.Actor, record.Action, record.Target));
    }

    [Fact]
    public async Task Another_accounts_devices_look_like_absent_ones()
    {
        var alices = await relay.RegisterAsync(TestRelay.Alice);

        Assert.IsType<DeviceResult.NotFound>(
            await Registrations.RegisterAsync(Ask("all there") with { Account = TestRelay.Alice }, Bob, Token)
        );
        Assert.IsType<DeviceResult.NotFound>(await UnregisterAsync(TestRelay.Alice, alices.Id, ExpectedRevision.Any));
        Assert.IsType<DeviceResult.NotFound>(await UnregisterAsync(null, alices.Id, ExpectedRevision.Any));
        Assert.IsType<DeviceResult.NotFound>(await ChangeAsync(alices.Id, "{}", ExpectedRevision.Any));
    }

    [Fact]
    public async Task An_app_that_is_not_configured_is_unknown() =>
        Assert.IsType<DeviceResult.UnknownApp>(
            await Registrations.RegisterAsync(Ask("all there") with { App = "com.example.other" }, Bob, Token)
        );

    [Fact]
    public async Task An_account_that_registers_too_often_is_told_how_long_to_wait_and_an_operator_is_not()
    {
        var results = new List<DeviceResult>();
        for (var i = 0; i < 4; i++)
        {
            results.Add(await Registrations.RegisterAsync(Ask("all there"), Bob, Token));
        }

        Assert.All(results[..3], result => Assert.IsType<DeviceResult.Done>(result));
        Assert.InRange(Assert.IsType<DeviceResult.TooMany>(results[3]).Wait, TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(1));
        Assert.IsType<DeviceResult.Done>(await Registrations.RegisterAsync(Ask("all there"), TestRelay.Operator, Token));
    }

    [Fact]
    public async Task A_full_account_reaches_the_limit()
    {
        for (var i = 0; i < DeviceRegistry.DevicesPerAccountMax; i++)
        {
            await relay.RegisterAsync();
        }

        Assert.IsType<DeviceResult.LimitReached>(await Registrations.RegisterAsync(Ask("all there"), Bob, Token));
    }

    [Theory]
    [InlineData("any", true)]
    [InlineData("current", true)]
    [InlineData("anything", true)]
    [InlineData("older", false)]
    [InlineData("nothing there", false)]
    public async Task A_change_is_made_only_to_the_revision_that_it_expects(string expects, bool holds)
    {
        var device = await relay.RegisterAsync(id: "phone");
        var older = device.RevisionName;
        device = await relay.RegisterAsync(id: "phone");
        var expected = expects switch
        {
            "any" => ExpectedRevision.Any,
            "current" => new ExpectedRevision([device.RevisionName], null),
            "anything" => new ExpectedRevision([ExpectedRevision.Anything], null),
            "older" => new ExpectedRevision([older], null),
            _ => new ExpectedRevision(null, [ExpectedRevision.Anything]),
        };

        DeviceResult[] results =
        [
            await Registrations.RegisterAsync(Ask("all there") with { Id = "phone", Expected = expected }, TestRelay.Operator, Token),
            await ChangeAsync("phone", """{"preview":"none"}""", ExpectedNow(expected, await FindAsync("phone"))),
            await UnregisterAsync(null, "phone", ExpectedNow(expected, await FindAsync("phone"))),
        ];

        Assert.All(results, result => Assert.Equal(holds, result is DeviceResult.Done));
        Assert.All(results, result => Assert.Equal(!holds, result is DeviceResult.Changed));

        // each change that is made makes another revision
        ExpectedRevision ExpectedNow(ExpectedRevision before, Device now) =>
            expects == "current" ? new ExpectedRevision([now.RevisionName], null) : before;
    }

    [Fact]
    public async Task A_patch_that_is_no_preference_names_the_field_and_changes_nothing()
    {
        var device = await relay.RegisterAsync(id: "phone");

        var result = await ChangeAsync("phone", """{"preview":"none","token":"x"}""", ExpectedRevision.Any);

        Assert.Equal("token", Assert.Single(Assert.IsType<DeviceResult.Invalid>(result).Errors).Key);
        Assert.Equal(device.Revision, (await FindAsync("phone")).Revision);
    }

    [Fact]
    public async Task An_operator_says_whose_device_it_is_where_several_have_that_id()
    {
        await relay.RegisterAsync(id: "phone");
        await relay.RegisterAsync(TestRelay.Alice, id: "phone");

        var unclear = await Registrations.UnregisterAsync(null, "phone", ExpectedRevision.Any, TestRelay.Operator, Token);
        var clear = await Registrations.UnregisterAsync(TestRelay.Alice, "phone", ExpectedRevision.Any, TestRelay.Operator, Token);

        Assert.Equal("account", Assert.Single(Assert.IsType<DeviceResult.Invalid>(unclear).Errors).Key);
        Assert.Equal(TestRelay.Alice, Assert.IsType<DeviceResult.Done>(clear).Device.Account);
        Assert.Equal(TestRelay.Bob, (await FindAsync("phone")).Account);
    }

    [Theory]
    [InlineData(1, "…")]
    [InlineData(3, "…")]
    [InlineData(8, "01…67")]
    [InlineData(15, "012…cde")]
    [InlineData(16, "0123…cdef")]
    [InlineData(4096, "0123…cdef")]
    public void A_tokens_hint_never_shows_more_than_half_of_it(int length, string hint)
    {
        var token = string.Concat(Enumerable.Range(0, length).Select(i => Alphabet[i % Alphabet.Length]));
        var tokens = DeviceTokens.Seal(new Dictionary<string, string> { [Channels.Alert] = token }, Guid.Empty, relay.MasterKey);

        Assert.Equal(hint, tokens.Hint(Channels.Alert));
        Assert.Equal(token, DeviceTokens.FromJson(tokens.ToJson()).Open(Guid.Empty, relay.MasterKey)[Channels.Alert]);
        Assert.Null(tokens.Without(Channels.Call));
        Assert.Null(tokens.Without(Channels.Alert)!.Hint(Channels.Alert));
    }

    private static RegistrationRequest Ask(string request)
    {
        var good = new RegistrationRequest
        {
            Account = TestRelay.Bob,
            App = TestRelay.App,
            Platform = "apns",
            Tokens = new Dictionary<string, string> { [Channels.Alert] = Good },
        };
        return request switch
        {
            "all there" => good,
            "no account" => good with { Account = null },
            "account of no served server" => good with { Account = "bob@example.org" },
            "account with a resource" => good with { Account = "bob@example.com/phone" },
            "no app" => good with { App = null },
            "no platform" => good with { Platform = null },
            "unknown platform" => good with { Platform = "pigeon" },
            "no token" => good with { Tokens = new Dictionary<string, string>() },
            "short token" => good with { Tokens = Tokens("abc", null) },
            "short call token" => good with { Tokens = Tokens(Good, "abc") },
            "unknown environment" => good with { Environment = "moon" },
            "bad id" => good with { Id = ".." },
            "bad resource" => good with { Resource = "a\u0000" },
            "bad time zone" => good with { TimeZone = "Mars/Olympus" },
            "everything wrong" => new RegistrationRequest
            {
                Id = "",
                Platform = "apns",
                Environment = "",
                Tokens = Tokens("", ""),
                Resource = "",
                Locale = "",
                TimeZone = "",
            },
            _ => throw new ArgumentException(request, nameof(request)),
        };
    }

    private static Dictionary<string, string> Tokens(string alert, string? call)
    {
        var tokens = new Dictionary<string, string> { [Channels.Alert] = alert };
        if (call is not null)
        {
            tokens[Channels.Call] = call;
        }

        return tokens;
    }

    private async Task<Device> FindAsync(string id) => Assert.Single(await relay.Devices.FindAsync(null, id, Token));

    private Task<DeviceResult> UnregisterAsync(string? account, string id, ExpectedRevision expected) =>
        Registrations.UnregisterAsync(account, id, expected, Bob, Token);

    private Task<DeviceResult> ChangeAsync(string id, string patch, ExpectedRevision expected) =>
        Registrations.ChangePreferencesAsync(null, id, JsonNode.Parse(patch)!.AsObject(), expected, Bob, Token);
}
