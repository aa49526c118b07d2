using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

/// <summary>A simulator that knows one key, and a client with that key.</summary>
internal sealed class ApnsBed : IAsyncDisposable
{
    public const string TeamId = "TEAM123456";
    public const string KeyId = "KEY1234567";
    public const string Topic = "com.example.chat";

    private ApnsBed(ApnsSimulator simulator, ApnsSigningKey key, ApnsClientOptions options)
    {
        Simulator = simulator;
        Key = key;
        Options = options;
        Client = new ApnsClient(options);
    }

    public ApnsSimulator Simulator { get; }

    public ApnsSigningKey Key { get; }

    public ApnsClientOptions Options { get; }

    public ApnsClient Client { get; }

    public static async Task<ApnsBed> StartAsync(
        Func<ApnsSimulatorOptions, ApnsSimulatorOptions>? simulated = null,
        Func<ApnsClientOptions, ApnsClientOptions>? sending = null
    )
    {
        var pem = ApnsSimulator.CreateSigningKeyPem();
        var simulatorOptions = new ApnsSimulatorOptions { Keys = [new ApnsSimulatorKey(TeamId, KeyId, pem)], Topics = [Topic] };
        var simulator = await ApnsSimulator.StartAsync(
            simulated?.Invoke(simulatorOptions) ?? simulatorOptions,
            TestContext.Current.CancellationToken
        );
        var key = ApnsSigningKey.FromPem(TeamId, KeyId, pem);
        var options = new ApnsClientOptions
        {
            Key = key,
            Endpoint = simulator.Endpoint,
            TrustedCertificates = Trust(simulator),
        };
        return new ApnsBed(simulator, key, sending?.Invoke(options) ?? options);
    }

    public static X509Certificate2Collection Trust(ApnsSimulator simulator)
    {
        var trusted = new X509Certificate2Collection();
        trusted.ImportFromPem(simulator.CaPem);
        return trusted;
    }

    /// <summary>64 hex digits that end in the number.</summary>
    public static string Token(int number = 1) => number.ToString("x64", CultureInfo.InvariantCulture);

    public static ApnsNotification Alert(int number = 1) =>
        new()
        {
            DeviceToken = Token(number),
            Topic = Topic,
            Payload = Encoding.UTF8.GetBytes("""{"aps":{"alert":{"title":"alice@example.com","body":"hello"}}}"""),
        };

    public Task<ApnsResponse> SendAsync(ApnsNotification? notification = null) =>
        Client
            .SendAsync(notification ?? Alert(), TestContext.Current.CancellationToken)
            .WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await Simulator.DisposeAsync();
        Key.Dispose();
    }
}
