using System.Security.Cryptography;
using PushRelay.Push;
using PushRelay.Push.Fcm;
using PushRelay.Rig.Networks;
using PushRelay.Tests.Push.Connections;
using static PushRelay.Tests.Push.Notifications;

namespace PushRelay.Tests.Push.Fcm;

/// <summary>The whole way to FCM and its token endpoint, over real connections.</summary>
public sealed class FcmNetworkTests : IAsyncLifetime
{
    private const string Device = "fcm-token-of-bobs-phone-0123456789:APA91b";

    private readonly FcmSimulator fcm = new();
    private RigBed bed = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await fcm.StartAsync(Token);
        bed = await RigBed.OpenAsync(fcm);
    }

    public async ValueTask DisposeAsync()
    {
        await bed.DisposeAsync();
        await fcm.DisposeAsync();
    }

    [Fact]
    public async Task An_alert_gets_through_and_its_name_is_kept()
    {
        var result = await SendAsync();

        var received = Assert.Single(fcm.Received);
        Assert.Equal($"accepted {received.Name}", result);
        Assert.Equal((Device, "hello", "3600s"), (received.Token, received.Data["body"], (string?)received.Android["ttl"]));
        Assert.Equal(fcm.Requests, fcm.Http2Requests);
    }

    [Fact]
    public async Task Five_hundred_at_once_ask_for_one_access_token()
    {
        var results = await Task.WhenAll(Enumerable.Range(0, 500).Select(_ => SendAsync()));

        Assert.All(results, result => Assert.StartsWith("accepted", result, StringComparison.Ordinal));
        Assert.Equal((1, 500), (fcm.TokensGiven, fcm.Received.Count));
    }

    [Fact]
    public async Task The_access_token_is_renewed_before_its_end_and_the_old_one_serves_meanwhile()
    {
        await SendAsync();
        fcm.AnswerNextToken(new AnswerRule { Status = 200, Fault = AnswerFault.Stall });
        bed.Relay.Clock.Advance(TimeSpan.FromMinutes(56));

        // the renewal never ends, and nobody waits for it
        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
        Assert.Equal(1, fcm.TokensGiven);
    }

    [Fact]
    public async Task After_its_end_another_one_is_asked_for()
    {
        await SendAsync();
        bed.Relay.Clock.Advance(TimeSpan.FromMinutes(61));

        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
        Assert.Equal(2, fcm.TokensGiven);
    }

    [Fact]
    public async Task A_restart_and_another_node_use_the_token_that_is_there()
    {
        await SendAsync();
        var account = ServiceAccount.FromJson(fcm.CredentialsJson);
        var asked = 0;

        var answer = await bed
            .Relay.Get<SharedAccessTokens>()
            .GetAsync(
                account.Email,
                account.KeyId,
                _ => true,
                () =>
                {
                    asked++;
                    return Task.FromResult(default(TokenAnswer));
                }
            );

        Assert.StartsWith("ya29.", answer.Token!.Value, StringComparison.Ordinal);
        Assert.Equal(0, asked);
    }

    [Fact]
    public async Task A_revoked_access_token_is_replaced_once_and_the_alert_goes_out_at_once()
    {
        await SendAsync();
        fcm.RevokeTokens();
        bed.Relay.Clock.Advance(TimeSpan.FromMinutes(2));

        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
        Assert.Equal(2, fcm.TokensGiven);
    }

    [Fact]
    public async Task An_access_token_that_is_refused_from_the_start_is_the_operators_fault_and_not_asked_for_again_and_again()
    {
        await SendAsync();
        fcm.RevokeTokens();

        Assert.Equal("later Credentials -1 fcm_UNAUTHENTICATED", await SendAsync());
        Assert.Equal(1, fcm.TokensGiven);
    }

    [Theory]
    [InlineData(FcmTokenState.Unregistered, "dead fcm_UNREGISTERED")]
    [InlineData(FcmTokenState.Malformed, "dead fcm_INVALID_ARGUMENT")]
    [InlineData(FcmTokenState.Foreign, "dead fcm_SENDER_ID_MISMATCH")]
    public async Task A_token_that_is_dead_is_told_from_ours_that_is_wrong(FcmTokenState state, string result)
    {
        fcm.Tokens[Device] = state;

        Assert.Equal(result, await SendAsync());
    }

    [Fact]
    public async Task A_key_that_Google_does_not_know_is_the_operators_fault()
    {
        using var other = RSA.Create(2048);
        var file = Path.Combine(bed.Relay.Folder, "other.json");
        await File.WriteAllTextAsync(
            file,
            FcmSimulator.Credentials(
                "rig-project",
                "push@rig-project.iam.gserviceaccount.com",
                "rig-key",
                other.ExportPkcs8PrivateKeyPem()
            ),
            Token
        );
        await using var wrong = await RigBed.OpenAsync(fcm, $"--Apps:0:Fcm:CredentialsFile={file}");

        Assert.Equal("later Credentials -1 fcm_invalid_grant", Exchanges.Show(await wrong.SendAsync("fcm", Message(Device))));
    }

    [Fact]
    public async Task A_project_that_is_not_there_ends_no_device()
    {
        var file = Path.Combine(bed.Relay.Folder, "other.json");
        await File.WriteAllTextAsync(
            file,
            fcm.CredentialsJson.Replace("\"project_id\":\"rig-project\"", "\"project_id\":\"another\"", StringComparison.Ordinal),
            Token
        );
        await using var wrong = await RigBed.OpenAsync(fcm, $"--Apps:0:Fcm:CredentialsFile={file}");

        Assert.Equal("later Credentials -1 fcm_NOT_FOUND", Exchanges.Show(await wrong.SendAsync("fcm", Message(Device))));
    }

    [Fact]
    public async Task A_clock_that_is_wrong_is_corrected_by_the_endpoints()
    {
        // half a day ahead of the endpoint's
        bed.Relay.Clock.Advance(TimeSpan.FromHours(12));

        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
        Assert.Equal(1, fcm.TokensGiven);
    }

    [Theory]
    [InlineData(500, "", "later Outage -1 fcm_token_500")]
    [InlineData(503, "<html>away</html>", "later Outage 30 fcm_token_503")]
    [InlineData(200, "<html>hotel</html>", "later Outage 30 fcm_token_bad_answer")]
    public async Task A_token_endpoint_that_is_away_defers(int status, string body, string result)
    {
        fcm.AnswerNextToken(
            new AnswerRule
            {
                Status = status,
                Body = body,
                RetryAfter = status == 500 ? null : "30",
            }
        );

        Assert.Equal(result, await SendAsync());

        bed.Relay.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_token_endpoint_that_never_answers_defers_within_the_deadline()
    {
        fcm.AnswerNextToken(new AnswerRule { Fault = AnswerFault.Stall });
        var started = bed.Relay.Clock.GetTimestamp();

        var result = Exchanges.Show(await bed.SendUntilDeadlineAsync("fcm", Message(Device)));

        Assert.Matches("later Outage -1 fcm_(token_)+timed_out", result);
        Assert.InRange(bed.Relay.Clock.GetElapsedTime(started).TotalSeconds, 9, 13);
    }

    [Theory]
    [InlineData(AnswerFault.Abort, "unknown fcm_connection_lost")]
    [InlineData(AnswerFault.CutBody, "later Outage 10 fcm_503")]
    [InlineData(AnswerFault.EndlessBody, "later Outage 10 fcm_503")]
    public async Task An_answer_that_is_cut_or_never_ends_is_told_by_its_status(AnswerFault fault, string result)
    {
        await SendAsync();
        fcm.AnswerNext(new AnswerRule { Status = 503, Fault = fault });

        Assert.Equal(result, await SendAsync());
        // and the next one is not held up
        Assert.StartsWith("accepted", await SendAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_answer_that_never_comes_is_unknown()
    {
        await SendAsync();
        fcm.AnswerNext(new AnswerRule { Fault = AnswerFault.Stall });

        Assert.Equal("unknown fcm_timed_out", Exchanges.Show(await bed.SendUntilDeadlineAsync("fcm", Message(Device))));
    }

    [Fact]
    public async Task Through_a_proxy_both_hosts_are_reached()
    {
        await using var proxy = new ProxyServer { Credentials = "relay:secret" };
        proxy.Routes[$"localhost:{fcm.Port}"] = new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, fcm.Port);
        await using var behind = await RigBed.OpenAsync(fcm, $"--Network:Proxy=http://relay:secret@127.0.0.1:{proxy.Port}");

        Assert.StartsWith("accepted", Exchanges.Show(await behind.SendAsync("fcm", Message(Device))), StringComparison.Ordinal);
        Assert.All(proxy.Asked, asked => Assert.Equal($"localhost:{fcm.Port}", asked));
        Assert.NotEmpty(proxy.Asked);
    }

    [Fact]
    public async Task A_proxy_that_refuses_defers_and_says_so()
    {
        await using var proxy = new ProxyServer { Credentials = "relay:secret" };
        await using var behind = await RigBed.OpenAsync(fcm, $"--Network:Proxy=http://relay:wrong@127.0.0.1:{proxy.Port}");

        Assert.Equal("later Outage -1 fcm_token_proxy_refused", Exchanges.Show(await behind.SendAsync("fcm", Message(Device))));
        Assert.Contains("Network:Proxy", behind.Network("fcm").Cure("fcm_token_proxy_refused"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("short", "token")]
    [InlineData("with a space in it, which is no letter of tokens", "token")]
    [InlineData("umlauts-are-no-letters-of-tokens-äöü-0123456789", "token")]
    public void A_token_that_can_be_none_is_refused(string token, string field)
    {
        var refused = Assert.IsType<TokenCheck.Refused>(bed.Network("fcm").Check(Message(token).Address));

        Assert.Equal([field], refused.Errors.Keys);
    }

    [Fact]
    public void What_other_networks_have_is_refused_by_name()
    {
        var address = Message(Device).Address;
        var refused = Assert.IsType<TokenCheck.Refused>(
            bed.Network("fcm")
                .Check(
                    address with
                    {
                        Environment = "production",
                        Tokens = new Dictionary<string, string>(address.Tokens)
                        {
                            [Channels.Call] = "x",
                            [Channels.PublicKey] = "nonsense",
                        },
                    }
                )
        );

        Assert.Equal(
            ["encryption.auth", "encryption.p256dh", "environment", "voipToken"],
            refused.Errors.Keys.Order(StringComparer.Ordinal)
        );
    }

    private async Task<string> SendAsync() => Exchanges.Show(await bed.SendAsync("fcm", Message(Device)));
}
