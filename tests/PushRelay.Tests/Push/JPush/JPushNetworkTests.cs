using PushRelay.Push;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push.Connections;
using static PushRelay.Tests.Push.Notifications;

namespace PushRelay.Tests.Push.JPush;

/// <summary>The whole way to JPush, over real connections.</summary>
public sealed class JPushNetworkTests : IAsyncLifetime
{
    private const string Device = "1a0018970aa8f0d2a1b";

    private readonly JPushSimulator jpush = new() { RateMax = 20 };
    private RigBed bed = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await jpush.StartAsync(Token);
        bed = await RigBed.OpenAsync(jpush, "--Apps:0:JPush:Preview=Full");
    }

    public async ValueTask DisposeAsync()
    {
        await bed.DisposeAsync();
        await jpush.DisposeAsync();
    }

    [Fact]
    public async Task An_alert_gets_through_and_its_number_is_kept()
    {
        var result = await SendAsync();

        var received = Assert.Single(jpush.Received);
        Assert.Equal($"accepted {received.MessageId}", result);
        Assert.Equal($"{jpush.AppKey}-01957ca0-0000-7000-8000-000000000001", received.Cid);
        Assert.Equal((Device, "hello"), (received.RegistrationId, (string?)received.Notification["android"]!["alert"]));
        Assert.Equal(0, jpush.Broadcasts);
    }

    [Fact]
    public async Task By_default_JPush_reads_nothing()
    {
        await using var careful = await RigBed.OpenAsync(jpush);

        await careful.SendAsync("jpush", Message(Device));

        var request = Assert.Single(jpush.Received).Request.ToJsonString();
        Assert.DoesNotContain("hello", request, StringComparison.Ordinal);
        Assert.DoesNotContain("alice@", request, StringComparison.Ordinal);
        Assert.Contains("New message", request, StringComparison.Ordinal);
    }

    [Fact]
    public async Task By_default_too_a_phone_with_keys_of_its_own_shows_everything()
    {
        using var installation = new PushSubscriber();
        await using var careful = await RigBed.OpenAsync(jpush);

        await careful.SendAsync("jpush", Message(Device, installation));

        var secret = (string)Assert.Single(jpush.Received).Extras("android")["sealed"]!;
        var opened = installation.Open(System.Buffers.Text.Base64Url.DecodeFromChars(secret));
        Assert.Contains("hello", System.Text.Encoding.UTF8.GetString(opened), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_attempt_whose_answer_is_lost_is_recognised_when_it_is_repeated()
    {
        jpush.AnswerNext(new AnswerRule { Fault = AnswerFault.Abort, Processed = true });

        Assert.Equal("unknown jpush_connection_lost", await SendAsync());
        Assert.Equal($"accepted {jpush.Received[0].MessageId}", await SendAsync());

        Assert.Single(jpush.Received);
        Assert.Equal(1, jpush.Repeated);
    }

    [Theory]
    [InlineData("production", true)]
    [InlineData("sandbox", false)]
    [InlineData(null, true)]
    public async Task Apples_environment_is_always_said(string? environment, bool isProduction)
    {
        await bed.SendAsync("jpush", Message(Device) with { Address = Message(Device).Address with { Environment = environment } });

        Assert.Equal(isProduction, (bool?)jpush.Received[0].Options["apns_production"]);
    }

    [Fact]
    public async Task A_registration_id_that_is_gone_is_dead()
    {
        jpush.Gone[Device] = true;

        Assert.Equal("dead jpush_1011", await SendAsync());
    }

    [Fact]
    public async Task Requests_end_before_the_limit_refuses_them()
    {
        for (var i = 0; i < 20; i++)
        {
            Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
        }

        Assert.Matches("^later Quota [0-9.]+ jpush_rate$", await SendAsync());
        Assert.Equal(20, jpush.Requests);
    }

    [Fact]
    public async Task Two_apps_keep_apart()
    {
        await using var other = new JPushSimulator { AppKey = "0123456789abcdef01234567", MasterSecret = "another" };
        await other.StartAsync(Token);
        await using var two = await RigBed.OpenAsync(
            jpush,
            ["--Apps:1:Id=com.example.other", .. RigBed.Settings(bed.Relay.Folder, other, app: 1)]
        );

        var results = await Task.WhenAll(
            Enumerable
                .Range(0, 10)
                .SelectMany(_ =>
                    (Task<PushResult>[])
                        [
                            two.SendAsync("jpush", Message(Device)),
                            two.SendAsync(
                                "jpush",
                                Message(Device) with
                                {
                                    Address = Message(Device).Address with { App = "com.example.other" },
                                }
                            ),
                        ]
                )
        );

        Assert.All(results, result => Assert.IsType<PushResult.Accepted>(result));
    }

    [Fact]
    public async Task A_wrong_secret_is_the_operators_fault()
    {
        await using var wrong = await RigBed.OpenAsync(jpush, "--Apps:0:JPush:MasterSecret=wrong");

        Assert.Equal("later Credentials -1 jpush_1004", Exchanges.Show(await wrong.SendAsync("jpush", Message(Device))));
    }

    [Theory]
    [InlineData("")]
    [InlineData("with-a-dash")]
    [InlineData("12345678901234567890123456789012345678901234567890123456789012345")]
    public void A_registration_id_that_can_be_none_is_refused(string id)
    {
        var refused = Assert.IsType<TokenCheck.Refused>(bed.Network("jpush").Check(Message(id).Address));

        Assert.Equal(["token"], refused.Errors.Keys);
    }

    private async Task<string> SendAsync() => Exchanges.Show(await bed.SendAsync("jpush", Message(Device)));
}
