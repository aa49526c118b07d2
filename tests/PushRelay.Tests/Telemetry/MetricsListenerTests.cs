using System.Net;
using System.Net.Sockets;

namespace PushRelay.Tests.Telemetry;

public sealed class MetricsListenerTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_listener_of_its_own_has_the_metrics_openly_and_nothing_else_and_the_interface_has_them_no_more()
    {
        var address = FreeAddress();
        await using var relay = await TestRelay.OpenAsync(null, $"--Telemetry:MetricsUrl={address}");
        await relay.ServeAsync();
        using var anybody = new HttpClient { BaseAddress = address };
        using var anyoneInside = relay.NewClient(key: null);
        using var ops = relay.NewClient();

        using var metrics = await anybody.GetAsync("/metrics", Token);
        Assert.Equal((HttpStatusCode.OK, "text/plain"), (metrics.StatusCode, metrics.Content.Headers.ContentType?.MediaType));
        Assert.Contains("pushrelay_outbox_pending", await metrics.Content.ReadAsStringAsync(Token), StringComparison.Ordinal);
        Assert.Equal(
            [HttpStatusCode.NotFound, HttpStatusCode.NotFound, HttpStatusCode.NotFound, HttpStatusCode.OK, HttpStatusCode.OK],
            [
                await StatusAsync(anybody, "/health/live"),
                await StatusAsync(anybody, "/v1/conditions"),
                await StatusAsync(ops, "/metrics"),
                await StatusAsync(anyoneInside, "/health/live"),
                await StatusAsync(ops, "/v1/conditions"),
            ]
        );
    }

    [Theory]
    [InlineData("127.0.0.1:9464")]
    [InlineData("http://127.0.0.1:9464/metrics")]
    [InlineData("http://127.0.0.1:0")]
    public async Task An_address_that_is_none_stops_the_start(string address)
    {
        var wrong = await Assert.ThrowsAsync<PushRelay.Settings.SettingsException>(() =>
            TestRelay.OpenAsync(null, $"--Telemetry:MetricsUrl={address}")
        );

        Assert.Contains("Telemetry:MetricsUrl", wrong.Message, StringComparison.Ordinal);
        Assert.Contains("http://127.0.0.1:9464", wrong.Message, StringComparison.Ordinal);
    }

    private static async Task<HttpStatusCode> StatusAsync(HttpClient client, string path)
    {
        using var answer = await client.GetAsync(path, Token);
        return answer.StatusCode;
    }

    private static Uri FreeAddress()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return new Uri($"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}");
    }
}
