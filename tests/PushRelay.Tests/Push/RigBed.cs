using PushRelay.Push;
using PushRelay.Push.WebPush;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push;

/// <summary>A relay whose app is reached over the networks of the rig, and nothing of it but the networks runs.</summary>
internal sealed class RigBed : IAsyncDisposable
{
    private readonly string folder;

    private RigBed(string folder, TestRelay relay) => (this.folder, Relay) = (folder, relay);

    public TestRelay Relay { get; }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <param name="settings">More of them, or others; of app 0.</param>
    public static async Task<RigBed> OpenAsync(NetworkServer server, params string[] settings)
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-network-").FullName;
        try
        {
            var relay = await TestRelay.OpenAsync(null, [.. Settings(folder, server), .. settings]);
            // the networks of the rig judge ages by the real time
            relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
            return new RigBed(folder, relay);
        }
        catch
        {
            Directory.Delete(folder, recursive: true);
            throw;
        }
    }

    /// <summary>What makes an app one of this network's.</summary>
    public static string[] Settings(string folder, NetworkServer server, int app = 0)
    {
        var ca = Path.Combine(folder, $"ca-{server.Port}.pem");
        File.WriteAllText(ca, server.CaPem);
        switch (server)
        {
            case FcmSimulator fcm:
                var credentials = Path.Combine(folder, $"account-{server.Port}.json");
                File.WriteAllText(credentials, fcm.CredentialsJson);
                return
                [
                    $"--Apps:{app}:Fcm:CredentialsFile={credentials}",
                    $"--Apps:{app}:Fcm:Endpoint={server.Origin}",
                    $"--Apps:{app}:Fcm:TokenEndpoint={fcm.TokenEndpoint}",
                    $"--Apps:{app}:Fcm:TrustedCertificateFile={ca}",
                ];
            case WebPushSimulator:
                var key = Path.Combine(folder, $"vapid-{server.Port}.pem");
                File.WriteAllText(key, VapidKey.CreatePem());
                return
                [
                    $"--Apps:{app}:WebPush:PrivateKeyFile={key}",
                    $"--Apps:{app}:WebPush:Subject=mailto:ops@example.com",
                    $"--Apps:{app}:WebPush:AllowPrivateNetworks=true",
                    $"--Apps:{app}:WebPush:TrustedCertificateFile={ca}",
                ];
            case JPushSimulator jpush:
                return
                [
                    $"--Apps:{app}:JPush:AppKey={jpush.AppKey}",
                    $"--Apps:{app}:JPush:MasterSecret={jpush.MasterSecret}",
                    $"--Apps:{app}:JPush:Endpoint={server.Origin}",
                    $"--Apps:{app}:JPush:TrustedCertificateFile={ca}",
                ];
            default:
                throw new ArgumentException("It is no network of the rig.", nameof(server));
        }
    }

    public IPushNetwork Network(string platform)
    {
        Assert.True(Relay.Get<PushNetworks>().TryGet(platform, out var network));
        return network;
    }

    /// <summary>One attempt, with the tokens as a registration brings them.</summary>
    public async Task<PushResult> SendAsync(string platform, Notification notification)
    {
        var network = Network(platform);
        var usable = Assert.IsType<TokenCheck.Usable>(network.Check(notification.Address));
        return await network.SendAsync(
            notification with
            {
                Address = usable.Address,
                Lane = usable.Lane,
                ExpiresAt = Relay.Clock.GetUtcNow().AddHours(1),
            },
            Token
        );
    }

    /// <summary>An attempt whose answer never comes: time goes on until it ends.</summary>
    public async Task<PushResult> SendUntilDeadlineAsync(string platform, Notification notification)
    {
        var sending = SendAsync(platform, notification);
        while (!sending.IsCompleted)
        {
            await Task.WhenAny(sending, Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, Token));
            Relay.Clock.Advance(TimeSpan.FromSeconds(1));
        }

        return await sending;
    }

    public async ValueTask DisposeAsync()
    {
        await Relay.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }
}
