using System.Security.Cryptography.X509Certificates;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Push.Connections;
using PushRelay.Push.Texts;

namespace PushRelay.Push.Apns;

/// <summary>Says a <see cref="Notification"/> in Apple's words and sends it: one client for each app and environment, which is a
/// lane.</summary>
internal sealed class ApnsNetwork : IPushNetwork, IAsyncDisposable
{
    /// <summary>As devices and deliveries name it.</summary>
    public const string Name = "apns";

    private const string Production = "production";
    private const string Sandbox = "sandbox";
    private const int AlertBytesMax = 4096;
    private const int VoipBytesMax = 5120;

    private readonly Dictionary<string, ApnsOptions> apps = new(StringComparer.Ordinal);
    private readonly Dictionary<Lane, Way> lanes = [];
    private readonly List<ApnsSigningKey> keys = [];
    private readonly List<X509Certificate2> certificates = [];
    private readonly ApnsComplaints complaints;

    public ApnsNetwork(
        AppCatalog catalog,
        ApnsTokenStore tokens,
        PushConnector connector,
        ApnsComplaints complaints,
        TimeProvider clock,
        ILogger<ApnsClient> logger
    )
    {
        this.complaints = complaints;
        foreach (var app in catalog.Apps)
        {
            if (app.Network<ApnsOptions>() is not { } options)
            {
                continue;
            }

            apps[app.Id] = options;
            var key = options.OpenKey();
            if (key is not null)
            {
                keys.Add(key);
            }

            var certificate = options.OpenCertificate();
            if (certificate is not null)
            {
                certificates.Add(certificate);
            }

            foreach (var environment in (ApnsEnvironment[])[ApnsEnvironment.Production, ApnsEnvironment.Sandbox])
            {
                var client = new ApnsClient(
                    new ApnsClientOptions
                    {
                        Key = key,
                        Certificate = certificate,
                        Environment = environment,
                        Endpoint = options.EndpointOf(environment),
                        TrustedCertificates = options.OpenTrustedCertificates(),
                        RequestTimeout = PushNetworks.AnswerMax,
                        TokenStore = tokens,
                        Connect = connector.ConnectAsync,
                        Clock = clock,
                        Logger = logger,
                    }
                );
                lanes[LaneOf(app.Id, NameOf(environment))] = new Way(client, options.BundleId, app.Alert);
            }
        }
    }

    /// <summary>Sends over one lane.</summary>
    private sealed record Way(ApnsClient Client, string Topic, AlertOptions Alert);

    public string Platform => Name;

    public IReadOnlyCollection<string> Apps => apps.Keys;

    public TokenCheck Check(PushAddress address)
    {
        var errors = NetworkFields.Refusals(address, mayHaveCalls: true, mayHaveEnvironment: true);
        var tokens = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (channel, field) in (ReadOnlySpan<(string, string)>)[(Channels.Alert, "token"), (Channels.Call, "voipToken")])
        {
            if (!address.Tokens.TryGetValue(channel, out var token))
            {
                if (channel == Channels.Alert)
                {
                    errors[field] = "is missing";
                }
            }
            else if (ApnsTokens.TryNormalise(token, out var normal))
            {
                tokens[channel] = normal;
            }
            else
            {
                errors[field] = ApnsTokens.Form;
            }
        }

        foreach (var channel in (string[])[Channels.PublicKey, Channels.Auth])
        {
            if (address.Tokens.TryGetValue(channel, out var key))
            {
                tokens[channel] = key;
            }
        }

        if (address.Environment is not (null or Production or Sandbox))
        {
            errors["environment"] = $"must be \"{Production}\" or \"{Sandbox}\"";
        }

        if (errors.Count > 0)
        {
            return new TokenCheck.Refused(errors);
        }

        var environment = address.Environment ?? (apps.TryGetValue(address.App, out var app) ? NameOf(app.Environment) : null);
        return new TokenCheck.Usable(address with { Environment = environment, Tokens = tokens }, LaneOf(address.App, environment));
    }

    public async Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken)
    {
        if (!lanes.TryGetValue(notification.Lane, out var lane))
        {
            return new PushResult.Later(Fault.Credentials, null, ApnsResults.CodeOf("app_not_configured"), null, TimeSpan.Zero);
        }

        var channel =
            notification is { Kind: PushKind.Call, Silent: false } && notification.Address.Tokens.ContainsKey(Channels.Call)
                ? Channels.Call
                : Channels.Alert;
        var isCall = channel == Channels.Call;
        var isBackground = AlertText.IsBackground(notification, lane.Alert);
        if (ApnsAlert.Write(notification, lane.Alert, isCall ? VoipBytesMax : AlertBytesMax) is not { } payload)
        {
            // what Apple would say
            return new PushResult.Refused(ApnsResults.CodeOf("PayloadTooLarge"), null, TimeSpan.Zero);
        }

        var response = await lane.Client.SendAsync(
            new ApnsNotification
            {
                DeviceToken = notification.Address.Tokens[channel],
                Topic = lane.Topic,
                PushType =
                    isCall ? ApnsPushType.Voip
                    : isBackground ? ApnsPushType.Background
                    : ApnsPushType.Alert,
                // Apple takes no other of a background push
                Priority = isBackground || notification.Calm ? 5 : 10,
                Expiration = notification.ExpiresAt,
                CollapseId = isBackground ? null : notification.CollapseId ?? notification.ThreadId,
                Id = notification.Id,
                Payload = payload,
            },
            cancellationToken
        );
        complaints.Note(notification.Address.App, notification.Lane, notification.Address.Tokens[channel], response);
        return ApnsResults.Of(response, channel);
    }

    public string? Cure(string code) => ApnsResults.CureOf(code);

    public async ValueTask DisposeAsync()
    {
        foreach (var lane in lanes.Values)
        {
            await lane.Client.DisposeAsync();
        }

        keys.ForEach(key => key.Dispose());
        certificates.ForEach(certificate => certificate.Dispose());
    }

    /// <summary>Apple may refuse an app's credentials in one environment and take them in the other.</summary>
    private static Lane LaneOf(string app, string? environment) =>
        new(environment == Sandbox ? $"{app}/{Name}-{Sandbox}" : $"{app}/{Name}");

    private static string NameOf(ApnsEnvironment environment) => environment == ApnsEnvironment.Sandbox ? Sandbox : Production;
}
