using System.Net.Http.Headers;
using PushRelay.Apps;
using PushRelay.Push.Connections;
using PushRelay.Push.Encryption;
using PushRelay.Telemetry;

namespace PushRelay.Push.Fcm;

/// <summary>Firebase Cloud Messaging, HTTP v1: one connection pool and one access token for each app's project.</summary>
internal sealed class FcmNetwork : IPushNetwork, IAsyncDisposable
{
    public const string Name = "fcm";

    private const int TokenCharsMin = 32;
    private const int TokenCharsMax = 4096;
    private const int ConnectionsMax = 8;

    private readonly Dictionary<string, Sender> senders = new(StringComparer.Ordinal);
    private readonly TimeProvider clock;

    public FcmNetwork(AppCatalog apps, PushConnector connector, SharedAccessTokens shared, ClockSkew skew, TimeProvider clock)
    {
        this.clock = clock;
        foreach (var app in apps.Apps)
        {
            if (app.Network<FcmOptions>() is { } options)
            {
                senders.Add(app.Id, new Sender(app, options, connector, shared, clock, skew));
            }
        }
    }

    public string Platform => Name;

    public IReadOnlyCollection<string> Apps => senders.Keys;

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
            sender.Alert,
            clock.GetUtcNow(),
            validateOnly
        );
        return body is null
            // what FCM would say
            ? new PushResult.Refused(FcmAnswers.Code("INVALID_ARGUMENT"), null, TimeSpan.Zero)
            : await sender.SendAsync(body, cancellationToken);
    }

    public string? Cure(string code) =>
        PushCode.WordOf(code) switch
        {
            "SENDER_ID_MISMATCH" => "check that the app and CredentialsFile are of one Firebase project",
            "THIRD_PARTY_AUTH_ERROR" or "APNS_AUTH_ERROR" => "give the Firebase project the APNs or Web Push key of this app",
            "NOT_FOUND" or "404" => "check that CredentialsFile is of a Firebase project that exists, and Endpoint",
            "PERMISSION_DENIED" or "403" =>
                "enable the Firebase Cloud Messaging API, and give the service account the permission cloudmessaging.messages.create",
            "UNAUTHENTICATED" or "401" or "invalid_grant" or "invalid_client" or "unauthorized_client" or "invalid_request" =>
                "check that the key of CredentialsFile is neither deleted nor disabled, and this machine's clock",
            "app_not_configured" => "add the section Fcm to this app in setting Apps",
            { } word when word.StartsWith("token_", StringComparison.Ordinal) => NetworkFields.ReachCure(word["token_".Length..])
                ?? "check TokenEndpoint, and this machine's way to it",
            var word => NetworkFields.ReachCure(word),
        };

    public async ValueTask DisposeAsync()
    {
        foreach (var sender in senders.Values)
        {
            await sender.DisposeAsync();
        }
    }

    private static Lane LaneOf(string app) => new($"{app}/{Name}");

    /// <summary>One app's way to FCM.</summary>
    private sealed class Sender : IAsyncDisposable
    {
        private readonly ServiceAccount account;
        private readonly PushClient client;
        private readonly AccessTokens tokens;
        private readonly Uri url;
        private readonly TimeProvider clock;

        public Sender(App app, FcmOptions options, PushConnector connector, SharedAccessTokens shared, TimeProvider clock, ClockSkew skew)
        {
            this.clock = clock;
            account = options.OpenAccount();
            client = new PushClient(
                connector.ConnectAsync,
                NetworkSettings.OpenCertificates(options.TrustedCertificateFile),
                ConnectionsMax,
                clock,
                skew
            );
            var tokenEndpoint = string.IsNullOrEmpty(options.TokenEndpoint) ? account.TokenUri : new Uri(options.TokenEndpoint);
            tokens = new AccessTokens(account, tokenEndpoint, client, shared, clock);
            url = new Uri(options.EndpointUri, $"/v1/projects/{account.Project}/messages:send");
            Alert = app.Alert;
        }

        public AlertOptions Alert { get; }

        public async Task<PushResult> SendAsync(byte[] body, CancellationToken cancellationToken)
        {
            var started = clock.GetTimestamp();
            using var deadline = new CancellationTokenSource(PushNetworks.AnswerMax, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
            PushResult result;
            try
            {
                result = await SendAsync(body, started, either.Token, cancellationToken);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                // no token came in time: nothing was sent
                result = new PushResult.Later(Fault.Outage, null, FcmAnswers.Code("token_timed_out"), null, TimeSpan.Zero);
            }

            return result with
            {
                Duration = clock.GetElapsedTime(started),
            };
        }

        private async Task<PushResult> SendAsync(byte[] body, long started, CancellationToken deadline, CancellationToken cancellationToken)
        {
            var answer = await tokens.GetAsync(deadline);
            if (answer.Token is not { } token)
            {
                return answer.Refusal!;
            }

            var exchange = await AskAsync(body, token, started, cancellationToken);
            if (
                FcmAnswers.IsOfAccessToken(exchange)
                && await tokens.ReplaceAsync(token, deadline) is { Token: { } another }
                && another != token
            )
            {
                exchange = await AskAsync(body, another, started, cancellationToken);
            }

            return FcmAnswers.Read(exchange, clock.GetUtcNow());
        }

        public async ValueTask DisposeAsync()
        {
            client.Dispose();
            await tokens.RenewedAsync();
            account.Dispose();
        }

        private Task<PushExchange> AskAsync(byte[] body, AccessToken token, long started, CancellationToken cancellationToken)
        {
            var request = new HttpRequestMessage(HttpMethod.Post, url);
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token.Value);
            return client.SendAsync(
                request,
                new BodyContent(body, "application/json; charset=utf-8"),
                PushNetworks.AnswerMax - clock.GetElapsedTime(started),
                cancellationToken
            );
        }
    }
}
