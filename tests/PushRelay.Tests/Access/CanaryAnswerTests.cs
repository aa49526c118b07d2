using System.Net;
using System.Text;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Logging;

namespace PushRelay.Tests.Access;

/// <summary>
/// Every route is asked wrongly, with a canary wherever a request has a place for it: no refusal repeats it, and no log line above Debug
/// has it.
/// </summary>
public sealed class CanaryAnswerTests : IAsyncLifetime
{
    private static readonly string[] Canaries =
    [
        "pra_canary5kLmN0pQrStUvWxYz0123456789abcdefghij",
        TestRelay.NewToken(),
        "canary-account@example.com",
    ];

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-canary-answers-").FullName;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Log => Path.Combine(folder, "relay.log");

    public async ValueTask InitializeAsync()
    {
        relay = await TestRelay.OpenAsync(
            null,
            "--Serilog:MinimumLevel:Default=Information",
            "--Serilog:WriteTo:0:Name=File",
            $"--Serilog:WriteTo:0:Args:path={Log}",
            "--Serilog:WriteTo:0:Args:formatter=Serilog.Formatting.Compact.RenderedCompactJsonFormatter, Serilog.Formatting.Compact",
            "--Api:RateLimits:RequestsPerSecond=0",
            "--Api:RateLimits:RegistrationsPerMinute=0",
            "--Api:RateLimits:FailuresPerMinute=0",
            "--Api:RateLimits:AnonymousPerSecond=0"
        );
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await relay.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task No_refusal_of_any_route_repeats_a_secret_of_the_request_and_no_log_line_has_it()
    {
        var (own, _) = await relay.IssueTokenAsync(TestRelay.Bob);
        var refused = new HashSet<HttpStatusCode>();
        foreach (var route in relay.Get<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>())
        {
            foreach (var method in route.Metadata.GetMetadata<IHttpMethodMetadata>()?.HttpMethods ?? ["GET"])
            {
                foreach (var canary in Canaries)
                {
                    foreach (var credential in (string?[])[null, canary, own, TestRelay.OperatorKey])
                    {
                        foreach (var body in method is "GET" or "DELETE" ? [null] : Bodies(canary))
                        {
                            refused.Add(await AskAsync(method, PathOf(route, canary), credential, body, canary));
                        }
                    }
                }
            }
        }

        Assert.Superset(
            new HashSet<HttpStatusCode>
            {
                HttpStatusCode.BadRequest,
                HttpStatusCode.Unauthorized,
                HttpStatusCode.Forbidden,
                HttpStatusCode.NotFound,
            },
            refused
        );
        Assert.DoesNotContain(HttpStatusCode.InternalServerError, refused);
        await relay.DisposeAsync();
        var log = await File.ReadAllTextAsync(Log, Token);
        Assert.NotEmpty(log);
        foreach (var canary in Canaries)
        {
            Assert.Equal("", log.Split('\n').FirstOrDefault(line => Shows(line, canary)) ?? "");
        }
    }

    [Fact]
    public async Task A_line_of_the_log_within_a_request_does_not_have_its_path()
    {
        var logger = relay.Get<ILoggerFactory>().CreateLogger("PushRelay.Tests");
        using (
            logger.BeginScope(
                new Dictionary<string, object> { ["RequestId"] = "request-1", ["RequestPath"] = "/v1/accounts/canary@example.com" }
            )
        )
        {
#pragma warning disable CA1848 // one line, in a test
            logger.LogWarning("Something is wrong");
#pragma warning restore CA1848
        }

        await relay.DisposeAsync();
        var log = await File.ReadAllTextAsync(Log, Token);
        Assert.Contains("request-1", log, StringComparison.Ordinal);
        Assert.DoesNotContain("canary@example.com", log, StringComparison.Ordinal);
    }

    private static string?[] Bodies(string canary) =>
        [
            $$"""{"app":"{{TestRelay.App}}","platform":"apns","token":"{{canary}}","environment":"{{canary}}"}""",
            $$"""{"account":"{{canary}}","app":"{{canary}}","platform":"{{canary}}","body":5}""",
            $$"""{"receipt":"{{canary}}","event":"{{canary}}","preview":"{{canary}}"}""",
            $$"""{"token":["{{canary}}"]}""",
            $"\"{canary}\"",
            $$"""{"token":"{{canary}}" """,
            $"token={canary}",
        ];

    // each part is the canary; so is the query
    private static string PathOf(RouteEndpoint route, string canary)
    {
        var path = string.Join(
            '/',
            route.RoutePattern.PathSegments.Select(segment =>
                string.Concat(
                    segment.Parts.Select(part =>
                        part is Microsoft.AspNetCore.Routing.Patterns.RoutePatternLiteralPart literal
                            ? literal.Content
                            : Uri.EscapeDataString(canary)
                    )
                )
            )
        );
        var value = Uri.EscapeDataString(canary);
        return $"/{path}?account={value}&state={value}&limit={value}&cursor={value}&access_token={value}";
    }

    private async Task<HttpStatusCode> AskAsync(string method, string path, string? credential, string? body, string canary)
    {
        using var client = relay.NewClient(credential);
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        request.Headers.TryAddWithoutValidation("If-Match", canary);
        request.Headers.TryAddWithoutValidation("Idempotency-Key", canary);
        if (body is not null)
        {
            request.Content = new StringContent(
                body,
                Encoding.UTF8,
                body.StartsWith("token=", StringComparison.Ordinal) ? "application/x-www-form-urlencoded" : "application/json"
            );
        }

        using var answer = await client.SendAsync(request, Token);
        if ((int)answer.StatusCode >= 400)
        {
            var text = $"{answer.Headers}\n{await answer.Content.ReadAsStringAsync(Token)}";
            Assert.False(Shows(text, canary), $"{method} {path} as {credential ?? "nobody"} with {body}: {text}");
        }

        return answer.StatusCode;
    }

    private static bool Shows(string text, string canary) =>
        text.Contains(canary, StringComparison.OrdinalIgnoreCase)
        || text.Contains(Uri.EscapeDataString(canary), StringComparison.OrdinalIgnoreCase);
}
