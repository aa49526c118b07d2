using System.Net.Http.Headers;
using PushRelay.Apps;
using PushRelay.Push.Connections;
using PushRelay.Push.Encryption;

namespace PushRelay.Push.Fcm;

/// <summary>Firebase Cloud Messaging, HTTP v1: one connection pool and one access token for each app's project.</summary>
internal sealed class FcmNetwork : IPushNetwork, IDisposable
{
    public const string PlatformName = "fcm";

    private const int TokenCharsMin = 32;
    private const int TokenCharsMax = 4096;
    private const int ConnectionsMax = 8;

    private readonly Dictionary<string, Sender> senders = new(StringComparer.Ordinal);
    private readonly TimeProvider clock;

    public FcmNetwork(AppCatalog apps, PushConnector connector, SharedAccessTokens shared, TimeProvider clock)
    {
        this.clock = clock;
        foreach (var app in apps.Apps)
        {
            if (app.Network<FcmOptions>() is { } options)
            {
                senders.Add(app.Id, new Sender(app, options, connector, shared, clock));
            }
        }
    }

    public string Platform => PlatformName;

    public IReadOnlyDictionary<Lane, string> Lanes => senders.Keys.ToDictionary(LaneOf);

    public TokenCheck Check(PushAddress address)
    {
        var errors = NetworkFields.Refusals(address, mayHaveCalls: false, mayHaveEnvironment: false);
        var token = address.Tokens.GetValueOrDefault(Channels.Alert);
        if (token is null)
        {
            errors["token"] = "is missing";
        }
        else if (token.Length is < TokenCharsMin or > TokenCharsMax || token.Any(c => c is <= ' ' or > '~'))
        {
            errors["token"] = $"must be {TokenCharsMin} to {TokenCharsMax} printable ASCII characters without spaces";
        }

        return errors.Count > 0
            ? new TokenCheck.Refused(errors)
            : new TokenCheck.Usable(address with { Environment = null }, LaneOf(address.App));
    }

    public Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken) =>
        SendAsync(notification, validateOnly: false, cancellationToken);

    public async Task<PushResult> SendAsync(Notification notification, bool validateOnly, CancellationToken cancellationToken)
    {
        if (!senders.TryGetValue(notification.Address.App, out var sender))
        {
            return new PushResult.Later(Fault.Credentials, null, FcmAnswers.Code("app_not_configured"), null, TimeSpan.Zero);
        }

        var body = FcmMessage.Write(
            notification,
            notification.Address.Tokens[Channels.Alert],
            SealedAlert.KeysOf(notification.Address),
            sender.Preview,
            clock.GetUtcNow(),
            validateOnly
        );
        return body is null
            // what FCM would say
            ? new PushResult.Refused(FcmAnswers.Code("INVALID_ARGUMENT"), null, TimeSpan.Zero)
            : await sender.SendAsync(body, cancellationToken);
    }

    public string Cure(string code) =>
        PushCode.WordOf(code) switch
        {
            "UNREGISTERED" => "The app was removed from the device, or has not been used for 270 days; it registers again when it is opened.",
            "SENDER_ID_MISMATCH" =>
                "The token is of another Firebase project than CredentialsFile: check that the app and the key file are of one project.",
            "INVALID_ARGUMENT" => "FCM does not take the token or the message; a token ends its device, a message is this relay's fault.",
            "THIRD_PARTY_AUTH_ERROR" or "APNS_AUTH_ERROR" => "The Firebase project lacks the APNs or Web Push key for this device's system.",
            "QUOTA_EXCEEDED" or "RESOURCE_EXHAUSTED" => "The project's or the device's message rate is spent; deliveries go on by themselves.",
            "NOT_FOUND" or "404" => "There is no such Firebase project, or Endpoint is wrong: check CredentialsFile and Endpoint.",
            "PERMISSION_DENIED" or "403" =>
                "The service account may not send: enable the Firebase Cloud Messaging API, and give the account cloudmessaging.messages.create.",
            "UNAUTHENTICATED" or "401" => "FCM does not take the access token: check that CredentialsFile's key is not disabled.",
            "invalid_grant" or "invalid_client" or "unauthorized_client" or "invalid_request" =>
                "Google does not take the service account's key: it is deleted or disabled, or this machine's clock is wrong; name a valid key file in CredentialsFile.",
            "app_not_configured" => "The app has no Fcm section in Apps: its deliveries wait for one until they expire.",
            { } word when word.StartsWith("token_", StringComparison.Ordinal) =>
                "The token endpoint does not give out a token: check that it can be reached (TokenEndpoint, Network:Proxy).",
            var word => NetworkFields.ReachCure(word) ?? "FCM's own fault, or its limit: deliveries go on by themselves.",
        };

    public void Dispose()
    {
        foreach (var sender in senders.Values)
        {
            sender.Dispose();
        }
    }

    private static Lane LaneOf(string app) => new($"{app}/{PlatformName}");

    /// <summary>One app's way to FCM.</summary>
    private sealed class Sender : IDisposable
    {
        private readonly ServiceAccount account;
        private readonly PushClient client;
        private readonly AccessTokens tokens;
        private readonly Uri url;
        private readonly TimeProvider clock;

        public Sender(App app, FcmOptions options, PushConnector connector, SharedAccessTokens shared, TimeProvider clock)
        {
            this.clock = clock;
            account = options.OpenAccount();
            client = new PushClient(
                connector.ConnectAsync,
                NetworkSettings.OpenCertificates(options.TrustedCertificateFile),
                ConnectionsMax,
                clock
            );
            var tokenEndpoint = string.IsNullOrEmpty(options.TokenEndpoint) ? account.TokenUri : new Uri(options.TokenEndpoint);
            tokens = new AccessTokens(account, tokenEndpoint, client, shared, clock);
            url = new Uri(options.EndpointUri, $"/v1/projects/{account.Project}/messages:send");
            Preview = app.Alert.Preview;
        }

        public AlertPreview Preview { get; }

        public async Task<PushResult> SendAsync(byte[] body, CancellationToken cancellationToken)
        {
            var started = clock.GetTimestamp();
            var answer = await tokens.GetAsync(cancellationToken);
            if (answer.Token is not { } token)
            {
                return answer.Refusal! with { Duration = clock.GetElapsedTime(started) };
            }

            var exchange = await AskAsync(body, token, cancellationToken);
            if (
                FcmAnswers.IsOfAccessToken(exchange)
                && await tokens.ReplaceAsync(token, cancellationToken) is { Token: { } another }
                && another != token
            )
            {
                exchange = await AskAsync(body, another, cancellationToken);
            }

            return FcmAnswers.Read(exchange, clock.GetUtcNow()) with { Duration = clock.GetElapsedTime(started) };
        }

        public void Dispose()
        {
            client.Dispose();
            account.Dispose();
        }

        private Task<PushExchange> AskAsync(byte[] body, AccessToken token, CancellationToken cancellationToken)
        {
            var request = new HttpRequestMessage(HttpMethod.Post, url);
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token.Value);
            return client.SendAsync(request, new BodyContent(body, "application/json; charset=utf-8"), cancellationToken);
        }
    }
}
