using System.Globalization;
using System.Text.Json.Serialization;
using PushRelay.Api;
using PushRelay.Push;
using PushRelay.Push.WebPush;

namespace PushRelay.Devices;

/// <summary>The body of <c>POST</c> and <c>PUT /v1/devices</c>.</summary>
public sealed record DeviceRequest
{
    public string? Account { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    public string? Token { get; init; }

    public string? Environment { get; init; }

    [JsonPropertyName("voipToken")]
    public string? CallToken { get; init; }

    /// <summary>Instead of <see cref="Token"/> for Web Push and UnifiedPush.</summary>
    public SubscriptionRequest? Subscription { get; init; }

    /// <summary>With it the push network cannot read the alerts.</summary>
    public EncryptionRequest? Encryption { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    public bool? Exclusive { get; init; }

    /// <param name="id">The app's own installation id, where the path has one.</param>
    /// <param name="expected">What the request's headers expect.</param>
    internal RegistrationRequest ToRegistration(string? id, ExpectedRevision expected)
    {
        var tokens = new Dictionary<string, string>();
        foreach (
            var (channel, token) in (ReadOnlySpan<(string, string?)>)
                [
                    (Channels.Alert, Token),
                    (Channels.Call, CallToken),
                    (Channels.PublicKey, Encryption?.P256dh),
                    (Channels.Auth, Encryption?.Auth),
                    (SubscriptionFields.Endpoint, Subscription?.Endpoint),
                    (SubscriptionFields.PublicKey, Subscription?.Keys?.P256dh),
                    (SubscriptionFields.Auth, Subscription?.Keys?.Auth),
                    (SubscriptionFields.Expires, Subscription?.ExpirationTime?.ToString("F0", CultureInfo.InvariantCulture)),
                ]
        )
        {
            if (token is not null)
            {
                tokens[channel] = token;
            }
        }

        return new RegistrationRequest
        {
            Id = id,
            Account = Account,
            App = App,
            Platform = Platform,
            Environment = Environment,
            Tokens = tokens,
            Resource = Resource,
            Locale = Locale,
            TimeZone = TimeZone,
            Exclusive = Exclusive ?? true,
            Expected = expected,
        };
    }
}

/// <summary>As a browser's <c>PushSubscription</c> gives it.</summary>
public sealed record SubscriptionRequest
{
    public string? Endpoint { get; init; }

    /// <summary>Milliseconds since 1970.</summary>
    public double? ExpirationTime { get; init; }

    public EncryptionRequest? Keys { get; init; }
}

/// <summary>The keys of RFC 8291, in base64url.</summary>
public sealed record EncryptionRequest
{
    /// <summary>The installation's public key.</summary>
    public string? P256dh { get; init; }

    /// <summary>Its secret of 16 bytes.</summary>
    public string? Auth { get; init; }
}

/// <summary>The body of <c>PATCH /v1/devices/{deviceId}</c>: what is left out stays, null resets.</summary>
public sealed record DevicePatchRequest(
    string? Preview,
    IReadOnlyList<string>? Muted,
    IReadOnlyList<string>? MentionsOnly,
    string? Groups,
    QuietHoursResponse? QuietHours
);

/// <summary>A device as the outside sees it: never its token.</summary>
public sealed record DeviceResponse(
    string Id,
    string Account,
    string App,
    string Platform,
    string? Token,
    string? Environment,
    [property: JsonPropertyName("voipToken")] string? CallToken,
    SubscriptionResponse? Subscription,
    bool Encryption,
    string? Resource,
    string? Locale,
    string? TimeZone,
    string? Preview,
    IReadOnlyList<string>? Muted,
    IReadOnlyList<string>? MentionsOnly,
    string? Groups,
    QuietHoursResponse? QuietHours,
    string Status,
    string? StatusReason,
    DevicePush Push,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt,
    bool Confirms,
    DateTimeOffset? LastAcceptedAt,
    DateTimeOffset? LastReceivedAt
)
{
    /// <summary>Of a registration what looks wrong; left out where nothing does.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Warnings { get; init; }

    /// <summary>Its entity tag; no member of the body.</summary>
    internal string Revision { get; init; } = "";
}

/// <summary>A subscription as the outside sees it: its push service, and little of the rest.</summary>
public sealed record SubscriptionResponse(string Endpoint);

/// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>.</summary>
public sealed record DevicePush(string Jid, string Node, string Secret);

/// <summary>Hours of the day without alerts, by the clock of the time zone.</summary>
/// <param name="Alerts"><c>silent</c>: alerts make no sound; <c>none</c>: there are none.</param>
/// <param name="Calls">Calls ring also in quiet hours.</param>
public sealed record QuietHoursResponse(string From, string To, string TimeZone, string Alerts, bool Calls);
