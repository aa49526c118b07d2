using System.Buffers.Text;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using PushRelay.Settings;

namespace PushRelay.Tests.Access;

/// <summary>Tokens of an identity provider: made by hand here, so that each can be wrong in exactly one way.</summary>
public sealed class JwtTests : IDisposable
{
    private const string Secret = "a shared secret of at least thirty-two bytes";

    private readonly RSA rsa = RSA.Create(2048);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => rsa.Dispose();

    [Theory]
    [InlineData("RS256")]
    [InlineData("PS256")]
    public async Task A_token_of_the_provider_acts_on_its_account(string algorithm)
    {
        await using var relay = await OpenAsync($"--Api:Jwt:SigningKey={rsa.ExportSubjectPublicKeyInfoPem()}");

        Assert.Equal(HttpStatusCode.OK, await AskAsync(relay, Sign(algorithm, Claims(relay))));
        Assert.Equal(TestRelay.Bob, (string?)await RegisterAsync(relay, Sign(algorithm, Claims(relay))));
    }

    [Fact]
    public async Task A_shared_secret_and_an_elliptic_curve_key_work_too()
    {
        await using (var relay = await OpenAsync($"--Api:Jwt:SigningKey={Secret}"))
        {
            Assert.Equal(HttpStatusCode.OK, await AskAsync(relay, Mac(Claims(relay), Encoding.UTF8.GetBytes(Secret))));
        }

        using var ecdsa = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        await using (var relay = await OpenAsync($"--Api:Jwt:SigningKey={ecdsa.ExportSubjectPublicKeyInfoPem()}"))
        {
            var text = $$"""{"alg":"ES256","typ":"JWT"}""";
            var signing = $"{Part(text)}.{Part(Claims(relay).ToJsonString())}";
            Assert.Equal(
                HttpStatusCode.OK,
                await AskAsync(
                    relay,
                    $"{signing}.{Base64Url.EncodeToString(ecdsa.SignData(Encoding.UTF8.GetBytes(signing), HashAlgorithmName.SHA256))}"
                )
            );
        }
    }

    [Theory]
    [InlineData(40, "none")]
    [InlineData(40, "hs256 with the public key")]
    [InlineData(40, "rs256 header over an hmac")]
    [InlineData(41, "jwk in the header")]
    [InlineData(41, "jku in the header")]
    [InlineData(41, "x5u in the header")]
    [InlineData(41, "kid with a statement")]
    [InlineData(41, "kid with a path")]
    [InlineData(42, "wrong aud")]
    [InlineData(42, "no aud")]
    [InlineData(42, "wrong iss")]
    [InlineData(42, "expired")]
    [InlineData(42, "nbf ahead")]
    [InlineData(42, "no exp")]
    [InlineData(42, "ten years")]
    [InlineData(42, "id token")]
    [InlineData(43, "another domain")]
    [InlineData(43, "no account")]
    [InlineData(43, "two accounts")]
    [InlineData(43, "account with a resource")]
    [InlineData(40, "another key")]
    [InlineData(40, "signature cut")]
    public async Task A_token_that_is_wrong_in_one_way_is_refused(int line, string way)
    {
        Assert.InRange(line, 40, 43);
        using var stranger = RSA.Create(2048);
        var pem = rsa.ExportSubjectPublicKeyInfoPem();
        await using var relay = await OpenAsync($"--Api:Jwt:SigningKey={pem}", "--Api:Jwt:Issuer=https://id.example.com");
        var claims = Claims(relay);
        Assert.Equal(HttpStatusCode.OK, await AskAsync(relay, Sign("RS256", claims)));
        var seconds = relay.Clock.GetUtcNow().ToUnixTimeSeconds();
        var header = "{\"alg\":\"RS256\",\"typ\":\"JWT\"}";
        var key = rsa;
        switch (way)
        {
            case "wrong aud":
                claims["aud"] = "other";
                break;
            case "no aud":
                claims.Remove("aud");
                break;
            case "wrong iss":
                claims["iss"] = "https://evil.example";
                break;
            case "expired":
                claims["exp"] = seconds - 120;
                break;
            case "nbf ahead":
                claims["nbf"] = seconds + 120;
                break;
            case "no exp":
                claims.Remove("exp");
                break;
            case "ten years":
                claims["exp"] = seconds + (10L * 365 * 86400);
                break;
            case "id token":
                claims["nonce"] = "n";
                break;
            case "another domain":
                claims["sub"] = "bob@evil.example";
                break;
            case "no account":
                claims.Remove("sub");
                break;
            case "two accounts":
                claims["sub"] = new JsonArray(TestRelay.Bob, TestRelay.Alice);
                break;
            case "account with a resource":
                claims["sub"] = "bob@example.com/phone";
                break;
            case "kid with a path":
                (header, key) = ("{\"alg\":\"RS256\",\"kid\":\"../../../../dev/null\"}", stranger);
                break;
            case "kid with a statement":
                (header, key) = ("{\"alg\":\"RS256\",\"kid\":\"' OR 1=1--\"}", stranger);
                break;
            case "x5u in the header":
                (header, key) = ("{\"alg\":\"RS256\",\"x5u\":\"http://127.0.0.1:1/keys\"}", stranger);
                break;
            case "jku in the header":
                (header, key) = ("{\"alg\":\"RS256\",\"jku\":\"http://127.0.0.1:1/keys\"}", stranger);
                break;
            case "jwk in the header":
                var parameters = stranger.ExportParameters(false);
                var (n, e) = (Base64Url.EncodeToString(parameters.Modulus), Base64Url.EncodeToString(parameters.Exponent));
                (header, key) = ($$$"""{"alg":"RS256","jwk":{"kty":"RSA","n":"{{{n}}}","e":"{{{e}}}"}}""", stranger);
                break;
            case "another key":
                key = stranger;
                break;
        }

        var token = way switch
        {
            "none" => $"{Part("{\"alg\":\"none\",\"typ\":\"JWT\"}")}.{Part(claims.ToJsonString())}.",
            "hs256 with the public key" => Mac(claims, Encoding.UTF8.GetBytes(pem)),
            "rs256 header over an hmac" => Mac(claims, Encoding.UTF8.GetBytes(pem), "RS256"),
            "signature cut" => Sign("RS256", claims)[..^8],
            _ => Sign("RS256", claims, key, header),
        };

        Assert.Equal(HttpStatusCode.Unauthorized, await AskAsync(relay, token));
    }

    [Fact]
    public async Task The_keys_of_an_authority_are_found_by_discovery_and_a_shared_secret_is_none()
    {
        await using var provider = await ProviderAsync(rsa);
        await using var relay = await OpenAsync($"--Api:Jwt:Authority={provider.Urls.First()}");
        var claims = Claims(relay);
        claims["iss"] = provider.Urls.First();

        Assert.Equal(HttpStatusCode.OK, await AskAsync(relay, Sign("RS256", claims, header: "{\"alg\":\"RS256\",\"kid\":\"k1\"}")));
        Assert.Equal(
            HttpStatusCode.Unauthorized,
            await AskAsync(relay, Mac(claims, Encoding.UTF8.GetBytes(rsa.ExportSubjectPublicKeyInfoPem())))
        );
        claims["iss"] = "https://other.example";
        Assert.Equal(
            HttpStatusCode.Unauthorized,
            await AskAsync(relay, Sign("RS256", claims, header: "{\"alg\":\"RS256\",\"kid\":\"k1\"}"))
        );
    }

    [Fact]
    public async Task A_provider_that_goes_away_is_believed_for_a_day_and_then_no_longer()
    {
        var provider = await ProviderAsync(rsa);
        var clock = new Microsoft.Extensions.Time.Testing.FakeTimeProvider();
        using var http = new HttpClient();
        using var keys = new PushRelay.Access.ProviderKeys(
            provider.Urls.First() + "/.well-known/openid-configuration",
            http,
            requireHttps: false,
            clock
        );

        Assert.Single((await keys.GetConfigurationAsync(Token)).SigningKeys);
        await provider.DisposeAsync();
        clock.Advance(TimeSpan.FromHours(23));
        Assert.Single((await keys.GetConfigurationAsync(Token)).SigningKeys);
        clock.Advance(TimeSpan.FromHours(2));
        await Assert.ThrowsAsync<InvalidOperationException>(() => keys.GetConfigurationAsync(Token));
    }

    [Theory]
    [InlineData(45, "gone")]
    [InlineData(45, "failing")]
    [InlineData(45, "endless")]
    [InlineData(45, "endless keys")]
    [InlineData(45, "slow")]
    public async Task A_provider_that_is_away_is_a_503_and_nobody_comes_in(int line, string way)
    {
        Assert.Equal(45, line);
        await using var provider = await ProviderAsync(rsa, way);
        var address = way == "gone" ? "http://127.0.0.1:1" : provider.Urls.First();
        await using var relay = await OpenAsync($"--Api:Jwt:Authority={address}");

        Assert.Equal(HttpStatusCode.ServiceUnavailable, await AskAsync(relay, Sign("RS256", Claims(relay))));
        using var operators = relay.NewClient();
        Assert.Equal(HttpStatusCode.OK, (await operators.GetAsync("/v1/devices", Token)).StatusCode);
    }

    [Theory]
    [InlineData("--Api:Jwt:SigningKey=short", "32")]
    [InlineData("--Api:Jwt:Authority=http://id.example.com", "https")]
    [InlineData("--Api:Jwt:SigningKey=-----BEGIN PRIVATE KEY-----x", "private key")]
    [InlineData("--Api:Jwt:SigningKey=-----BEGIN PUBLIC KEY-----x", "PEM")]
    [InlineData("--Api:AccountTokens:Lifetime=00:00:01", "Api:AccountTokens:Lifetime")]
    [InlineData("--Api:PublicUrl=push", "Api:PublicUrl")]
    [InlineData("--Api:TrustedProxies:0=everybody", "Api:TrustedProxies:0")]
    [InlineData("--Api:CorsOrigins:0=*", "Api:CorsOrigins:0")]
    [InlineData("--Api:OperatorKeys:0:Key=pra_0123456789abcdef", "Api:OperatorKeys:0:Key")]
    public async Task A_wrong_setting_stops_the_start_with_its_name_or_cure(string setting, string told)
    {
        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelay.OpenAsync(null, setting));

        Assert.Contains(told, exception.Message, StringComparison.Ordinal);
    }

    private static async Task<TestRelay> OpenAsync(params string[] settings)
    {
        var relay = await TestRelay.OpenAsync(null, settings);
        await relay.ServeAsync();
        return relay;
    }

    private static async Task<HttpStatusCode> AskAsync(TestRelay relay, string token)
    {
        using var client = relay.NewClient(token);
        using var answer = await client.GetAsync("/v1/devices", Token);
        return answer.StatusCode;
    }

    private static async Task<JsonNode?> RegisterAsync(TestRelay relay, string token)
    {
        using var client = relay.NewClient(token);
        using var body = new StringContent(
            $$"""{"app":"com.example.chat","platform":"apns","token":"{{TestRelay.NewToken()}}"}""",
            Encoding.UTF8,
            "application/json"
        );
        using var answer = await client.PostAsync("/v1/devices", body, Token);
        return JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!["account"];
    }

    private static JsonObject Claims(TestRelay relay) =>
        new()
        {
            ["iss"] = "https://id.example.com",
            ["aud"] = "pushrelay",
            ["sub"] = "Bob@Example.com",
            ["exp"] = relay.Clock.GetUtcNow().ToUnixTimeSeconds() + 600,
        };

    private string Sign(string algorithm, JsonObject claims, RSA? key = null, string? header = null)
    {
        var signing = $"{Part(header ?? $"{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}")}.{Part(claims.ToJsonString())}";
        var padding = algorithm == "PS256" ? RSASignaturePadding.Pss : RSASignaturePadding.Pkcs1;
        var signature = (key ?? rsa).SignData(Encoding.UTF8.GetBytes(signing), HashAlgorithmName.SHA256, padding);
        return $"{signing}.{Base64Url.EncodeToString(signature)}";
    }

    private static string Mac(JsonObject claims, byte[] secret, string algorithm = "HS256")
    {
        var signing = $"{Part($"{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}")}.{Part(claims.ToJsonString())}";
        return $"{signing}.{Base64Url.EncodeToString(HMACSHA256.HashData(secret, Encoding.UTF8.GetBytes(signing)))}";
    }

    private static string Part(string json) => Base64Url.EncodeToString(Encoding.UTF8.GetBytes(json));

    private static async Task<WebApplication> ProviderAsync(RSA rsa, string way = "well")
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        var app = builder.Build();
        app.Urls.Add("http://127.0.0.1:0");
        app.MapGet(
            "/.well-known/openid-configuration",
            async (HttpContext http) =>
            {
                if (way == "failing")
                {
                    http.Response.StatusCode = 500;
                }
                else if (way == "endless")
                {
                    for (var i = 0; i < 400; i++)
                    {
                        await http.Response.WriteAsync(new string(' ', 1024), Token);
                    }
                }
                else
                {
                    // longer than it is waited for
                    await Task.Delay(way == "slow" ? TimeSpan.FromSeconds(30) : TimeSpan.Zero, TimeProvider.System, http.RequestAborted);
                    await http.Response.WriteAsJsonAsync(new { issuer = app.Urls.First(), jwks_uri = app.Urls.First() + "/keys" }, Token);
                }
            }
        );
        var parameters = rsa.ExportParameters(false);
        app.MapGet(
            "/keys",
            () =>
                Results.Json(
                    new
                    {
                        padding = way == "endless keys" ? new string(' ', 400 * 1024) : "",
                        keys = new[]
                        {
                            new
                            {
                                kty = "RSA",
                                kid = "k1",
                                use = "sig",
                                n = Base64Url.EncodeToString(parameters.Modulus),
                                e = Base64Url.EncodeToString(parameters.Exponent),
                            },
                        },
                    }
                )
        );
        await app.StartAsync(Token);
        return app;
    }
}
