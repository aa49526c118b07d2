using System.Net;
using System.Net.Sockets;
using PushRelay.Cli;

namespace PushRelay.Tests.Cli;

/// <summary>What a container's health check goes by: the exit code of <c>pushrelay health</c>.</summary>
public sealed class HealthCommandTests
{
    [Fact]
    public async Task A_relay_whose_database_answers_is_healthy_though_its_link_is_down()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();

        Assert.Equal(0, await RelayCommands.RunAsync(["health", $"--Urls=http://0.0.0.0:{relay.Address.Port}"], TextWriter.Null));
    }

    [Fact]
    public async Task An_address_that_answers_something_else_is_not_healthy()
    {
        await using var relay = await TestRelay.OpenAsync();
        await relay.ServeAsync();

        Assert.Equal(1, await RelayCommands.RunAsync(["health", "--url", $"{relay.Address}v1/devices"], TextWriter.Null));
    }

    [Fact]
    public async Task Where_nobody_listens_it_is_not_healthy() =>
        Assert.Equal(1, await RelayCommands.RunAsync(["health", $"--Urls=http://127.0.0.1:{UnusedPort()}"], TextWriter.Null));

    [Theory]
    [InlineData("--url", "nonsense")]
    [InlineData("--Urls=nonsense", "--Urls=nonsense")]
    public async Task An_address_that_is_none_is_a_mistake_of_the_caller(params string[] arguments) =>
        Assert.Equal(2, await RelayCommands.RunAsync(["health", .. arguments], TextWriter.Null));

    private static int UnusedPort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
