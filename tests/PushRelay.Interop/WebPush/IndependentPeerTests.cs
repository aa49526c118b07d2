using System.Buffers.Text;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using PushRelay.Push.Encryption;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;
using PushRelay.Tests;

namespace PushRelay.Interop.WebPush;

/// <summary>The packages http_ece and web-push of npm: neither the relay nor the simulators agree only with themselves.</summary>
public sealed class IndependentPeerTests
{
    private static readonly string Folder = Path.Combine(Repository.Root, "tests", "PushRelay.Interop", "WebPush");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Another_implementation_opens_what_the_relay_encrypts()
    {
        using var subscriber = new PushSubscriber();
        Assert.True(ReceiverKeys.TryRead(subscriber.P256dh, subscriber.Auth, out var keys));
        var texts = ((int[])[0, 1, 255, 256, 1000, 3839, 3993]).Select(bytes => RandomNumberGenerator.GetBytes(bytes)).ToList();
        var lines = texts.Select(text =>
            JsonSerializer.Serialize(
                new
                {
                    privateKey = subscriber.PrivateKeyPem,
                    auth = subscriber.Auth,
                    message = Base64Url.EncodeToString(MessageEncryption.Encrypt(text, keys)),
                }
            )
        );

        var opened = await RunAsync("open.js", [], string.Join('\n', lines) + "\n");

        Assert.Equal(texts.Select(Convert.ToBase64String), opened.Split('\n')[..texts.Count]);
    }

    [Theory]
    [InlineData("Mozilla", "201")]
    [InlineData("Google", "201")]
    [InlineData("Microsoft", "201")]
    [InlineData("Apple", "201")]
    [InlineData("Ntfy", "200")]
    public async Task Another_implementation_gets_through_to_each_simulated_service(string service, string status)
    {
        await using var simulator = new WebPushSimulator(Enum.Parse<SubscriptionService>(service));
        await simulator.StartAsync(Token);
        using var subscription = simulator.Subscribe();
        var pem = VapidKey.CreatePem();
        using var key = ECDsa.Create();
        key.ImportFromPem(pem);
        using var vapid = VapidKey.FromPem(pem, "mailto:ops@example.com");

        var answer = await RunAsync(
            "send.js",
            [
                JsonSerializer.Serialize(
                    new
                    {
                        subscription = subscription.ToJson(),
                        publicKey = vapid.PublicKey,
                        privateKey = Base64Url.EncodeToString(key.ExportParameters(true).D),
                        subject = "mailto:ops@example.com",
                        text = "hello",
                        ca = simulator.CaPem,
                        options = new
                        {
                            TTL = 60,
                            urgency = "high",
                            topic = new string('a', 32),
                        },
                    }
                ),
            ],
            ""
        );

        Assert.Equal(status, answer.Trim());
        var received = Assert.Single(simulator.Received);
        Assert.Equal("hello", Encoding.UTF8.GetString(received.Text));
    }

    private static async Task<string> RunAsync(string script, string[] arguments, string input)
    {
        var start = new ProcessStartInfo("node", [Path.Combine(Folder, script), .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(start)!;
        await process.StandardInput.WriteAsync(input.AsMemory(), Token);
        process.StandardInput.Close();
        var output = await process.StandardOutput.ReadToEndAsync(Token);
        var errors = await process.StandardError.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);
        Assert.True(process.ExitCode == 0, errors + " (are the packages there? npm ci in " + Folder + ")");
        return output;
    }
}
