using System.Buffers.Text;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using PushRelay.Apps;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Push.Encryption;
using PushRelay.Push.Fcm;
using PushRelay.Push.JPush;
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
    [InlineData("apns", false)]
    [InlineData("apns", true)]
    [InlineData("fcm", false)]
    [InlineData("fcm", true)]
    [InlineData("jpush", false)]
    [InlineData("jpush", true)]
    public async Task Another_implementation_opens_a_sealed_alert_of_each_network(string platform, bool isLong)
    {
        using var installation = new PushSubscriber();
        var text = isLong ? string.Concat(Enumerable.Repeat("Grüße 🍵 ", 600)) : "the word that nobody may read";
        var notification = SealedTo(installation, text);

        var payload = PayloadOf(platform, notification);

        var shown = Encoding.UTF8.GetString(payload);
        Assert.DoesNotContain(text[..10], shown, StringComparison.Ordinal);
        Assert.DoesNotContain(notification.From!, shown, StringComparison.Ordinal);
        // JPush has one for each kind of phone, and they are the same
        var message = SealedOf(JsonNode.Parse(payload)!).Distinct().Single();
        var line = JsonSerializer.Serialize(
            new
            {
                privateKey = installation.PrivateKeyPem,
                auth = installation.Auth,
                message,
            }
        );
        var opened = JsonNode.Parse(Convert.FromBase64String((await RunAsync("open.js", [], line + "\n")).Trim()))!;
        Assert.Equal((notification.From, notification.Account), ((string?)opened["from"], (string?)opened["account"]));
        var body = (string)opened["body"]!;
        Assert.True(
            isLong ? body.Length is > 300 and < 3000 && text.StartsWith(body[..300], StringComparison.Ordinal) : body == text,
            body
        );
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

    private static Notification SealedTo(PushSubscriber installation, string text) =>
        new()
        {
            Id = Guid.CreateVersion7(),
            Address = new PushAddress
            {
                App = "com.example.chat",
                Tokens = new Dictionary<string, string>
                {
                    [Channels.Alert] = "token",
                    [Channels.PublicKey] = installation.P256dh,
                    [Channels.Auth] = installation.Auth,
                },
            },
            Lane = new Lane("com.example.chat/test"),
            ExpiresAt = TimeProvider.System.GetUtcNow().AddHours(1),
            ThreadId = "thread",
            Receipt = "receipt",
            Kind = PushKind.Message,
            Account = "bob@example.com",
            From = "alice@example.com",
            Type = "chat",
            Body = text,
            MessageId = "m1",
            Badge = 3,
        };

    private static byte[] PayloadOf(string platform, Notification notification)
    {
        var alert = new AlertOptions { Preview = AlertPreview.Full };
        var keys = SealedAlert.KeysOf(notification.Address);
        var now = TimeProvider.System.GetUtcNow();
        return platform switch
        {
            "apns" => ApnsAlert.Write(notification, alert, 4096)!,
            "fcm" => FcmMessage.Write(notification, "token", keys, alert, now)!,
            _ => JPushMessage.Write(notification, "id", "cid", isProduction: true, keys, AlertPreview.Full, alert, now)!,
        };
    }

    private static IEnumerable<string> SealedOf(JsonNode node) =>
        node switch
        {
            JsonObject members => members.SelectMany(m =>
                m is { Key: "sealed", Value: JsonValue value } ? [(string)value!]
                : m.Value is { } child ? SealedOf(child)
                : []
            ),
            JsonArray items => items.OfType<JsonNode>().SelectMany(SealedOf),
            _ => [],
        };

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
