using System.Net.Http.Headers;
using System.Text;
using PushRelay.Apps;
using PushRelay.Push.Connections;
using PushRelay.Push.Encryption;
using PushRelay.Telemetry;

namespace PushRelay.Push.JPush;

/// <summary>
/// JPush, REST v3: one request for each alert and registration id. The <c>cid</c> of a delivery is the same on every attempt, so that JPush
/// sends it once, within a day.
/// </summary>
internal sealed class JPushNetwork : IPushNetwork, IDisposable
{
    public const string Name = "jpush";

    private const string Production = "production";
    private const string Sandbox = "sandbox";
    private const int IdCharsMax = 64;
    private const int ConnectionsMax = 32;

    private readonly Dictionary<string, Sender> senders = new(StringComparer.Ordinal);

    public JPushNetwork(AppCatalog apps, PushConnector connector, ClockSkew skew, TimeProvider clock)
    {
        foreach (var app in apps.Apps)
        {
            if (app.Network<JPushOptions>() is { } options)
            {
                senders.Add(app.Id, new Sender(app, options, connector, clock, skew));
            }
        }
    }

    public string Platform => Name;

    public IReadOnlyCollection<string> Apps => senders.Keys;

    /// <summary>More than its rate takes; without answers the rest is the app's other networks'.</summary>
    public int? InFlightPerLaneMax => 50;

    /// <summary>A text that says nothing needs no correction.</summary>
    public bool TakesFollowUps(string app) => senders.TryGetValue(app, out var sender) && sender.Preview != AlertPreview.None;

    public bool TakesWakeups => false;

    public TokenCheck Check(PushAddress address)
    {
        var errors = NetworkFields.Refusals(address, mayHaveCalls: false, mayHaveEnvironment: true);
        var id = address.Tokens.GetValueOrDefault(Channels.Alert);
        if (id is null)
        {
            errors["token"] = "is missing";
        }
        else if (id.Length is 0 or > IdCharsMax || !id.All(char.IsAsciiLetterOrDigit))
        {
            errors["token"] = $"must be a registration id: 1 to {IdCharsMax} letters and digits";
        }

        if (address.Environment is not (null or Production or Sandbox))
        {
            errors["environment"] = $"must be \"{Production}\" or \"{Sandbox}\"";
        }

        return errors.Count > 0
            ? new TokenCheck.Refused(errors)
            : new TokenCheck.Usable(address with { Environment = address.Environment ?? Production }, LaneOf(address.App));
    }

    public Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken) =>
        SendAsync(notification, validateOnly: false, cancellationToken);

    public async Task<PushResult> SendAsync(Notification notification, bool validateOnly, CancellationToken cancellationToken) =>
        senders.TryGetValue(notification.Address.App, out var sender)
            ? await sender.SendAsync(notification, validateOnly, cancellationToken)
            : new PushResult.Later(Fault.Credentials, null, JPushAnswers.Code("app_not_configured"), null, TimeSpan.Zero);

    public string? Cure(string code) =>
        PushCode.WordOf(code) switch
        {
            "1004" or "1008" or "401" => "check AppKey and MasterSecret of this app against JPush's console",
            "1012" => "apply for the vendors' category of messages in JPush's console: a quota of the day is spent",
            "2002" or "429" or "rate" => "ask JPush for more requests a minute, if this lasts",
            "2003" or "2004" => "allow this machine's address in the app's settings in JPush's console",
            "2005" or "2006" or "2007" or "403" => "ask JPush's support: it does not let the app push so",
            "404" => "check Endpoint of this app",
            "app_not_configured" => "add the section JPush to this app in setting Apps",
            var word => NetworkFields.ReachCure(word),
        };

    public void Dispose()
    {
        foreach (var sender in senders.Values)
        {
            sender.Dispose();
        }
    }

    private static Lane LaneOf(string app) => new($"{app}/{Name}");

    /// <summary>One app's way to JPush.</summary>
    private sealed class Sender : IDisposable
    {
        private readonly JPushOptions options;
        private readonly PushClient client;
        private readonly RequestRate rate;
        private readonly AlertOptions alert;
        private readonly AuthenticationHeaderValue authorization;
        private readonly TimeProvider clock;

        public AlertPreview Preview => options.Preview;

        public Sender(App app, JPushOptions options, PushConnector connector, TimeProvider clock, ClockSkew skew)
        {
            (this.options, this.clock) = (options, clock);
            rate = new RequestRate(clock);
            alert = app.Alert;
            authorization = new AuthenticationHeaderValue(
                "Basic",
                Convert.ToBase64String(Encoding.ASCII.GetBytes($"{options.AppKey}:{options.MasterSecret}"))
            );
            client = new PushClient(
                connector.ConnectAsync,
                NetworkSettings.OpenCertificates(options.TrustedCertificateFile),
                ConnectionsMax,
                clock,
                skew
            );
        }

        public async Task<PushResult> SendAsync(Notification notification, bool validateOnly, CancellationToken cancellationToken)
        {
            var id = notification.Address.Tokens[Channels.Alert];
            var keys = SealedAlert.KeysOf(notification.Address);
            var body = JPushMessage.Write(
                notification,
                id,
                $"{options.AppKey}-{notification.Id:D}",
                notification.Address.Environment != Sandbox,
                keys,
                // JPush reads nothing of what is sealed
                keys is null
                    ? (AlertPreview)Math.Max((int)alert.Preview, (int)options.Preview)
                    : alert.Preview,
                alert,
                clock.GetUtcNow()
            );
            if (body is null)
            {
                // what JPush would say
                return new PushResult.Refused(JPushAnswers.Code("1005"), null, TimeSpan.Zero);
            }

            if (!rate.TryTake(out var wait))
            {
                return new PushResult.Later(Fault.Quota, wait, JPushAnswers.Code("rate"), null, TimeSpan.Zero);
            }

            PushExchange? exchange = null;
            try
            {
                var request = new HttpRequestMessage(
                    HttpMethod.Post,
                    new Uri(options.EndpointUri, validateOnly ? "/v3/push/validate" : "/v3/push")
                );
                request.Headers.Authorization = authorization;
                exchange = await client.SendAsync(
                    request,
                    new BodyContent(body, "application/json; charset=utf-8"),
                    PushNetworks.AnswerMax,
                    cancellationToken
                );
                return JPushAnswers.Read(id, exchange, clock.GetUtcNow());
            }
            finally
            {
                rate.Return(exchange is null ? null : JPushAnswers.RateOf(exchange));
            }
        }

        public void Dispose() => client.Dispose();
    }
}

/// <summary>
/// The requests that the app may still make, as the last answer said: what is certain to be refused is not asked. Thread-safe.
/// </summary>
internal sealed class RequestRate(TimeProvider clock)
{
    private readonly Lock sync = new();
    private int left;
    private int inFlight;
    private DateTimeOffset resetAt;

    /// <param name="wait">Until there are some again.</param>
    public bool TryTake(out TimeSpan wait)
    {
        lock (sync)
        {
            wait = resetAt - clock.GetUtcNow();
            if (wait > TimeSpan.Zero && left - inFlight <= 0)
            {
                return false;
            }

            inFlight++;
            return true;
        }
    }

    /// <param name="told">What the answer said, if it came and did.</param>
    public void Return((int Left, TimeSpan Reset)? told)
    {
        lock (sync)
        {
            inFlight--;
            if (told is not { } rate)
            {
                return;
            }

            // answers overtake each other: within a window the number only falls
            var at = clock.GetUtcNow() + rate.Reset;
            left = at - resetAt < TimeSpan.FromSeconds(2) ? Math.Min(left, rate.Left) : rate.Left;
            resetAt = at > resetAt ? at : resetAt;
        }
    }
}
