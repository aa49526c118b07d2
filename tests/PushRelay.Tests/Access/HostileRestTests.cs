using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace PushRelay.Tests.Access;

/// <summary>
/// Hostile requests and the expected answers, by the number of their line in docs/security.md. One relay for all; every test checks that
/// it still answers.
/// </summary>
public sealed class HostileRestTests(HostileRestTests.Bed bed) : IClassFixture<HostileRestTests.Bed>
{
    private const string Good =
        "\"account\":\"bob@example.com\",\"app\":\"com.example.chat\",\"platform\":\"apns\","
        + "\"token\":\"abababababababababababababababababababababababababababababababab\"";

    private readonly TestRelay relay = bed.Relay;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(3, "GET", "/v1/devices?api_key=an%20operator's%20key%20for%20tests", 401)]
    [InlineData(3, "GET", "/v1/devices?access_token=an%20operator's%20key%20for%20tests", 401)]
    public async Task A_key_in_the_URL_is_no_key(int line, string method, string path, int status) =>
        Assert.Equal(status, await StatusAsync(line, $"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));

    [Theory]
    [InlineData(5, "")]
    [InlineData(5, "{")]
    [InlineData(5, "{} x")]
    [InlineData(6, "DEPTH")]
    [InlineData(6, "ARRAY")]
    [InlineData(7, "{GOOD,\"token\":\"abababababababababababababababababababababababababababababababab\"}")]
    [InlineData(8, "{GOOD,\"tokn\":1}")]
    [InlineData(9, "{GOOD,\"id\":\"x\"}")]
    [InlineData(9, "{GOOD,\"status\":\"active\"}")]
    [InlineData(9, "{GOOD,\"createdAt\":\"2026-01-01T00:00:00Z\"}")]
    [InlineData(9, "{GOOD,\"push\":{}}")]
    [InlineData(10, "{GOOD,\"resource\":7}")]
    [InlineData(10, "{GOOD,\"resource\":{}}")]
    [InlineData(10, "{\"account\":\"bob@example.com\",\"app\":\"com.example.chat\",\"platform\":\"apns\",\"token\":null}")]
    [InlineData(10, "{\"account\":\"bob@example.com\",\"app\":{},\"platform\":\"apns\",\"token\":{\"a\":1}}")]
    [InlineData(10, "{GOOD,\"exclusive\":\"yes\"}")]
    [InlineData(11, "{GOOD,\"resource\":\"a\\u0000b\"}")]
    [InlineData(11, "{GOOD,\"resource\":\"a\\ud800b\"}")]
    [InlineData(11, "{GOOD,\"resource\":\"a\\u202eb\"}")]
    [InlineData(11, "{GOOD,\"resource\":\"a\\nb\"}")]
    [InlineData(13, "{GOOD,\"endpoint\":\"https://a.example\",\"keys\":{}}")]
    public async Task A_body_that_is_wrong_is_a_400(int line, string body)
    {
        var text = body.Replace("GOOD", Good, StringComparison.Ordinal)
            .Replace("DEPTH", string.Concat(Enumerable.Repeat("{\"a\":", 65)) + "1" + new string('}', 65), StringComparison.Ordinal)
            .Replace("LOCALE", "en-" + new string('a', 297), StringComparison.Ordinal)
            .Replace("ARRAY", "{\"account\":[" + string.Join(',', Enumerable.Repeat("1", 7000)) + "]}", StringComparison.Ordinal);

        Assert.Equal(400, await StatusAsync(line, Post("/v1/devices", text)));
    }

    /// <summary>Each member that is a text, with each character that no text here may have.</summary>
    public static TheoryData<string, string> Characters =>
        [
            .. ((string[])["account", "app", "platform", "token", "voipToken", "environment", "resource", "locale", "timeZone"]).SelectMany(
                _ => (string[])["\\u0000", "\\ud800", "\\u202e", "\\n", "\\u0085"],
                (member, character) => (member, character)
            ),
        ];

    [Theory]
    [MemberData(nameof(Characters))]
    public async Task A_control_or_direction_character_is_a_400_in_any_member(string member, string character)
    {
        var body = JsonNode.Parse($"{{{Good}}}")!.AsObject();
        body["voipToken"] = (string)body["token"]!;
        (body["environment"], body["locale"], body["timeZone"], body["resource"]) = ("production", "en-GB", "Europe/London", "phone");
        using (var client = relay.NewClient())
        {
            using var good = await client.PutAsync(
                "/v1/devices/characters",
                new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json"),
                Token
            );
            Assert.True(good.IsSuccessStatusCode, await good.Content.ReadAsStringAsync(Token));
        }

        var text = (string)body[member]!;
        body[member] = text.Insert(text.Length / 2, "CHARACTER");

        Assert.Equal(
            400,
            await StatusAsync(11, Post("/v1/devices", body.ToJsonString().Replace("CHARACTER", character, StringComparison.Ordinal)))
        );
    }

    [Fact]
    public async Task A_body_in_UTF_16_is_a_400()
    {
        using var client = relay.NewClient();
        using var body = new ByteArrayContent([.. Encoding.Unicode.GetPreamble(), .. Encoding.Unicode.GetBytes($"{{{Good}}}")]);
        body.Headers.ContentType = new MediaTypeHeaderValue("application/json");

        using var answer = await client.PostAsync("/v1/devices", body, Token);

        Assert.Equal((5, 400), (5, (int)answer.StatusCode));
    }

    [Theory]
    [InlineData(16, "")]
    [InlineData(16, "@x")]
    [InlineData(16, "a@")]
    [InlineData(16, "a@@b")]
    [InlineData(16, "bob@example.com/phone")]
    [InlineData(16, "a@b/../c")]
    [InlineData(16, "bob%40example.com")]
    [InlineData(16, "LONG@example.com")]
    [InlineData(16, "b ob@example.com")]
    public async Task An_account_that_is_none_is_a_400(int line, string account) =>
        Assert.Equal(
            400,
            await StatusAsync(
                line,
                Post(
                    "/v1/devices",
                    $"{{{Good}}}".Replace(
                        "bob@example.com",
                        account.Replace("LONG", new string('a', 1024), StringComparison.Ordinal),
                        StringComparison.Ordinal
                    )
                )
            )
        );

    [Theory]
    [InlineData(17, "BOB@EXAMPLE.COM")]
    [InlineData(17, "\uff42ob@example.com")]
    [InlineData(17, "bob@example.com.")]
    public async Task However_an_account_is_written_it_is_one(int line, string account)
    {
        Assert.Equal(17, line);
        using var client = relay.NewClient();
        using var body = new StringContent(
            $"{{{Good}}}".Replace("bob@example.com", account, StringComparison.Ordinal),
            Encoding.UTF8,
            "application/json"
        );

        using var answer = await client.PutAsync("/v1/devices/written", body, Token);

        Assert.Equal("bob@example.com", (string?)JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!["account"]);
    }

    [Theory]
    [InlineData(19, "DELETE /v1/devices", 405)]
    [InlineData(19, "TRACE /v1/devices", 405)]
    [InlineData(19, "PUT /v1/deliveries", 405)]
    [InlineData(20, "GET //v1//devices", 404)]
    [InlineData(20, "GET /v1/devices;jsessionid=1", 404)]
    [InlineData(20, "GET /health/%2e%2e/v1/devices", 400)]
    [InlineData(20, "GET /health/../v1/devices", 400)]
    [InlineData(20, "GET /v1/./devices", 400)]
    [InlineData(21, "GET /v9/devices", 404)]
    [InlineData(28, "GET /v1/devices?cursor=AAAA", 400)]
    [InlineData(29, "GET /v1/devices?limit=-1", 400)]
    [InlineData(29, "GET /v1/devices?limit=NaN", 400)]
    [InlineData(29, "GET /v1/devices?limit=1e9", 400)]
    [InlineData(29, "GET /v1/devices?limit=99999999999999999999", 400)]
    public async Task A_request_line_is_answered(int line, string requestLine, int status) =>
        Assert.Equal(status, await StatusAsync(line, $"{requestLine} HTTP/1.1\r\nHost: a\r\n{Operator}Connection: close\r\n\r\n"));

    [Theory]
    [InlineData(2, "Authorization: Bearer \r\n", 401)]
    [InlineData(2, "Authorization: \r\n", 401)]
    [InlineData(2, "Authorization: Bearer\r\n", 401)]
    [InlineData(2, "Authorization: Basic b3BzOm9wcw==\r\n", 401)]
    [InlineData(2, "Authorization: Bearer an operator's key for tests\r\nAuthorization: Bearer x\r\n", 401)]
    [InlineData(19, "OPERATORX-HTTP-Method-Override: DELETE\r\n", 200)]
    [InlineData(24, "OPERATORX-Long: 65536*\r\n", 431)]
    [InlineData(24, "MANY", 431)]
    [InlineData(27, "OPERATORRange: bytes=0-1\r\n", 200)]
    [InlineData(27, "OPERATORIf-Match: *\r\n", 200)]
    [InlineData(27, "OPERATORIf-None-Match: \"\r\n", 200)]
    [InlineData(33, "OPERATORX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n", 200)]
    public async Task Headers_are_answered(int line, string headers, int status)
    {
        var text = headers
            .Replace("OPERATOR", Operator, StringComparison.Ordinal)
            .Replace("65536*", new string('a', 65536), StringComparison.Ordinal)
            .Replace(
                "MANY",
                string.Concat(Enumerable.Range(0, 200).Select(i => $"X-{i.ToString(CultureInfo.InvariantCulture)}: a\r\n")),
                StringComparison.Ordinal
            );

        Assert.Equal(status, await StatusAsync(line, $"GET /v1/devices HTTP/1.1\r\nHost: a\r\n{text}Connection: close\r\n\r\n"));
    }

    [Theory]
    [InlineData(30, "/v1/deliveries?device='%20OR%201=1--")]
    [InlineData(30, "/v1/deliveries?device=%25")]
    [InlineData(30, "/v1/deliveries?device=____")]
    [InlineData(30, "/v1/deliveries?account=%25")]
    [InlineData(30, "/v1/deliveries?account=%5C")]
    [InlineData(30, "/v1/deliveries?account=b_b@example.com")]
    [InlineData(30, "/v1/devices?account=%25@example.com")]
    [InlineData(30, "/v1/tokens?account='%20OR%20''='")]
    public async Task A_filter_means_what_it_says_and_nothing_else(int line, string path)
    {
        await relay.RegisterAsync(id: "injected");
        await relay.CommitMessageAsync("hello");
        await relay.IssueTokenAsync($"{Guid.NewGuid():N}@example.com");
        using var client = relay.NewClient();

        var answer = JsonNode.Parse(await client.GetStringAsync(path, Token))!;

        Assert.Equal((30, 0), (line, answer["items"]!.AsArray().Count));
    }

    [Theory]
    [InlineData(19, "DELETE", "/v1/devices", "GET, POST")]
    [InlineData(19, "POST", "/v1/deliveries", "GET")]
    [InlineData(19, "TRACE", "/v1/audit", "GET")]
    public async Task A_method_that_is_none_here_is_told_which_are(int line, string method, string path, string allowed)
    {
        using var client = relay.NewClient();
        using var request = new HttpRequestMessage(new HttpMethod(method), path);

        using var answer = await client.SendAsync(request, Token);

        Assert.Equal((19, 405), (line, (int)answer.StatusCode));
        Assert.Equal(allowed, string.Join(", ", answer.Content.Headers.Allow.Order(StringComparer.Ordinal)));
    }

    [Theory]
    [InlineData(20, "example.com.")]
    [InlineData(33, "evil.example")]
    [InlineData(33, "evil.example:80")]
    public async Task A_foreign_host_is_not_believed(int line, string host)
    {
        foreach (var path in (string[])["/v1/devices", "/openapi/v1.json", "/docs", "/v1/devices/none", "/health/ready"])
        {
            var answer = await SendAsync($"GET {path} HTTP/1.1\r\nHost: {host}\r\n{Operator}Connection: close\r\n\r\n");

            Assert.DoesNotContain(host, answer, StringComparison.Ordinal);
        }

        Assert.InRange(line, 20, 33);
        Assert.Equal(
            400,
            await StatusAsync(33, $"GET /v1/devices HTTP/1.1\r\nHost: a\r\nHost: {host}\r\n{Operator}Connection: close\r\n\r\n")
        );
    }

    [Fact]
    public async Task An_address_that_a_stranger_writes_is_nobodys()
    {
        // line 33: this peer is on the loopback, and still not one of Api:TrustedProxies
        using var client = relay.NewClient();
        client.DefaultRequestHeaders.Add("X-Forwarded-For", "192.0.2.66");
        client.DefaultRequestHeaders.Add("Forwarded", "for=192.0.2.66");
        using var made = await client.PostAsync(
            "/v1/tokens",
            new StringContent("""{"account":"forwarded@example.com"}""", Encoding.UTF8, "application/json"),
            Token
        );
        Assert.True(made.IsSuccessStatusCode);

        var audit = await client.GetStringAsync("/v1/audit?account=forwarded@example.com", Token);

        Assert.Contains("127.0.0.1", audit, StringComparison.Ordinal);
        Assert.DoesNotContain("192.0.2.66", audit, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Who_asks_whether_to_go_on_is_told_the_refusal_at_once()
    {
        // line 27: Expect: 100-continue, and no body behind it
        var answer = await SendAsync(
            "POST /v1/devices HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: "
                + "100-continue\r\nConnection: close\r\n\r\n"
        );

        Assert.StartsWith("HTTP/1.1 401", answer, StringComparison.Ordinal);
        Assert.Equal(
            200,
            await StatusAsync(27, $"GET /v1/devices HTTP/1.1\r\nHost: a\r\n{Operator}Expect: the worst\r\nConnection: close\r\n\r\n")
        );
    }

    [Fact]
    public async Task A_long_URL_is_a_414() =>
        Assert.Equal(
            414,
            await StatusAsync(
                24,
                $"GET /v1/devices?cursor={new string('a', 10240)} HTTP/1.1\r\nHost: a\r\n{Operator}Connection: close\r\n\r\n"
            )
        );

    [Theory]
    [InlineData(22, "Content-Length: 4\r\nContent-Length: 5\r\n\r\n{} x")]
    [InlineData(22, "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")]
    [InlineData(22, "X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n")]
    [InlineData(22, "Content-Length: -1\r\n\r\n")]
    [InlineData(22, "Content-Length: 0\n\n")]
    [InlineData(22, "Content-Length : 0\r\n\r\n")]
    [InlineData(22, "Transfer-Encoding: chunked\r\n\r\nZ\r\n\r\n")]
    public async Task Requests_whose_length_is_doubtful_are_refused_and_the_connection_closed(int line, string rest) =>
        Assert.Equal(
            400,
            await StatusAsync(line, $"POST /v1/devices HTTP/1.1\r\nHost: a\r\n{Operator}Content-Type: application/json\r\n{rest}")
        );

    [Theory]
    [InlineData("Z")]
    [InlineData("fffffffff")]
    public async Task A_request_that_breaks_while_it_is_read_is_refused_with_what_every_answer_has(string size)
    {
        var answer = await SendAsync(
            $"POST /v1/devices HTTP/1.1\r\nHost: a\r\n{Operator}Content-Type: application/json\r\nTransfer-Encoding: "
                + $"chunked\r\n\r\n{size}\r\n\r\n"
        );

        Assert.StartsWith("HTTP/1.1 400", answer, StringComparison.Ordinal);
        Assert.All(
            (string[])
                [
                    "Cache-Control: no-",
                    "X-Content-Type-Options: nosniff",
                    "X-Request-Id: ",
                    "frame-ancestors 'none'",
                    "application/problem+json",
                ],
            part => Assert.Contains(part, answer, StringComparison.Ordinal)
        );
    }

    [Fact]
    public async Task A_length_beside_chunks_does_not_smuggle_a_second_request()
    {
        // RFC 9112 section 6.3: the chunks count, and the connection is closed after
        var answers = await SendAsync(
            $"POST /v1/devices HTTP/1.1\r\nHost: a\r\n{Operator}Content-Type: application/json\r\nContent-Length: "
                + $"60\r\nTransfer-Encoding: chunked\r\n\r\n"
                + $"0\r\n\r\nGET /v1/audit HTTP/1.1\r\nHost: a\r\n{Operator}\r\n"
        );

        Assert.Equal(1, answers.Split("HTTP/1.1 ").Length - 1);
    }

    [Fact]
    public async Task HTTP_2_is_left_to_the_proxy_and_its_floods_end_with_their_connection()
    {
        // line 23: the plain listener speaks HTTP/1.1 only, and hangs up
        var answer = await SendAsync(
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004\0\0\0\0\0"
                + string.Concat(Enumerable.Repeat("\0\0\u0004\u0003\0\0\0\0\u0001\0\0\0\u0008", 1000))
        );

        Assert.DoesNotContain("HTTP/1.1 2", answer, StringComparison.Ordinal);
        Assert.Equal(200, await StatusAsync(23, "GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    }

    [Theory]
    [InlineData(25, "GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ")]
    [InlineData(
        25,
        "POST /v1/devices HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer an operator's key for tests\r\nContent-Type: "
            + "application/json\r\nContent-Length: 4000\r\n\r\n{"
    )]
    public async Task Who_is_too_slow_is_cut_off(int line, string start)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(relay.Address.Host, relay.Address.Port, Token);
        var stream = connection.GetStream();
        var ended = new StreamReader(stream).ReadToEndAsync(Token);
        var started = TimeProvider.System.GetTimestamp();
        try
        {
            await stream.WriteAsync(Encoding.ASCII.GetBytes(start), Token);
            while (!ended.IsCompleted && TimeProvider.System.GetElapsedTime(started) < TimeSpan.FromSeconds(60))
            {
                // one byte a second
                await stream.WriteAsync("x"u8.ToArray(), Token);
                await Task.WhenAny(ended, Task.Delay(TimeSpan.FromSeconds(1), TimeProvider.System, Token));
            }

            var answer = await ended;
            Assert.True(answer.Length == 0 || answer.StartsWith("HTTP/1.1 408", StringComparison.Ordinal), $"line {line}: {answer}");
        }
        catch (IOException)
        {
            // closed while it was written to
        }

        Assert.InRange(TimeProvider.System.GetElapsedTime(started), TimeSpan.Zero, TimeSpan.FromSeconds(15));
    }

    [Theory]
    [InlineData(50, "GET /admin", Operator, 404)]
    [InlineData(50, "GET /debug/pprof", Operator, 404)]
    [InlineData(50, "GET /admin", "", 401)]
    [InlineData(34, "GET /v1/devices", "", 401)]
    [InlineData(34, "GET /v1/devices", "X-Forwarded-Proto: https\r\n", 401)]
    public async Task There_is_no_hidden_route_and_none_sends_elsewhere(int line, string requestLine, string headers, int status) =>
        Assert.Equal(status, await StatusAsync(line, $"{requestLine} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n"));

    [Fact]
    public async Task A_compressed_body_is_not_taken()
    {
        using var client = relay.NewClient();
        using var body = new ByteArrayContent([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        body.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        body.Headers.ContentEncoding.Add("gzip");

        using var answer = await client.PostAsync("/v1/devices", body, Token);

        Assert.Equal((26, 415), (26, (int)answer.StatusCode));
    }

    [Fact]
    public async Task A_page_of_another_origin_may_not_call()
    {
        var answer = await SendAsync(
            "OPTIONS /v1/devices HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: "
                + "POST\r\nConnection: close\r\n\r\n"
        );

        Assert.Equal((32, true), (32, answer.StartsWith("HTTP/1.1 204", StringComparison.Ordinal)));
        Assert.DoesNotContain("Access-Control-Allow", answer, StringComparison.OrdinalIgnoreCase);
    }

    private const string Operator = $"Authorization: Bearer {TestRelay.OperatorKey}\r\n";

    private static string Post(string path, string body) =>
        $"POST {path} HTTP/1.1\r\nHost: a\r\n{Operator}Content-Type: application/json\r\nContent-Length: "
        + $"{Encoding.UTF8.GetByteCount(body).ToString(CultureInfo.InvariantCulture)}\r\nConnection: close\r\n\r\n{body}";

    /// <summary>The status of the first answer; and the relay still answers another.</summary>
    private async Task<int> StatusAsync(int line, string request)
    {
        var answer = await SendAsync(request);
        Assert.True(answer.StartsWith("HTTP/1.1 ", StringComparison.Ordinal), $"line {line}: no answer");
        Assert.DoesNotContain("   at ", answer, StringComparison.Ordinal);
        Assert.DoesNotContain(TestRelay.OperatorKey, answer, StringComparison.Ordinal);
        Assert.StartsWith(
            "HTTP/1.1 200",
            await SendAsync("GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            StringComparison.Ordinal
        );
        return int.Parse(answer.AsSpan(9, 3), NumberStyles.None, CultureInfo.InvariantCulture);
    }

    private async Task<string> SendAsync(string request)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(relay.Address.Host, relay.Address.Port, Token);
        var stream = connection.GetStream();
        try
        {
            await stream.WriteAsync(Encoding.UTF8.GetBytes(request), Token);
        }
        catch (IOException)
        {
            // refused before it was all there; the answer was written all the same
        }

        var answer = new StringBuilder();
        var buffer = new byte[16 * 1024];
        try
        {
            int count;
            while ((count = await stream.ReadAsync(buffer, Token).AsTask().WaitAsync(TimeSpan.FromSeconds(30), Token)) > 0)
            {
                answer.Append(Encoding.UTF8.GetString(buffer, 0, count));
            }
        }
        catch (IOException)
        {
            // closed hard, after the answer
        }

        return answer.ToString();
    }

    /// <summary>One relay for all of them, without a limit on how often a stranger may ask.</summary>
    public sealed class Bed : IAsyncLifetime
    {
        internal TestRelay Relay { get; private set; } = null!;

        public async ValueTask InitializeAsync()
        {
            Relay = await TestRelay.OpenAsync(null, "--Api:RateLimits:AnonymousPerSecond=0", "--Api:RateLimits:FailuresPerMinute=0");
            await Relay.ServeAsync();
        }

        public ValueTask DisposeAsync() => Relay.DisposeAsync();
    }
}
