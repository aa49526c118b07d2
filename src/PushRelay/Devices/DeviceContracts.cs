using System.Text.Json.Serialization;
using PushRelay.Api;
using PushRelay.Push;

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

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    public bool? Exclusive { get; init; }

    /// <param name="id">The app's own installation id, where the path has one.</param>
    /// <param name="expected">What the request's headers expect.</param>
    internal RegistrationRequest ToRegistration(string? id, ExpectedRevision expected)
    {
        var tokens = new Dictionary<string, string>();
        if (Token is not null)
        {
            tokens[Channels.Alert] = Token;
        }

        if (CallToken is not null)
        {
            tokens[Channels.Call] = CallToken;
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

/// <summary>The body of <c>PATCH /v1/devices/{deviceId}</c>: what is left out stays, null resets.</summary>
public sealed record DevicePatchRequest(string? Preview, IReadOnlyList<string>? Muted, QuietHoursResponse? QuietHours);

/// <summary>A device as the outside sees it: never its token.</summary>
public sealed record DeviceResponse(
    string Id,
    string Account,
    string App,
    string Platform,
    string Token,
    string? Environment,
    [property: JsonPropertyName("voipToken")] string? CallToken,
    string? Resource,
    string? Locale,
    string? TimeZone,
    string? Preview,
    IReadOnlyList<string>? Muted,
    QuietHoursResponse? QuietHours,
    string Status,
    string? StatusReason,
    DevicePush Push,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt,
    DateTimeOffset? LastAcceptedAt,
    DateTimeOffset? LastReceivedAt
)
{
    /// <summary>Its entity tag; no member of the body.</summary>
    internal string Revision { get; init; } = "";
}

/// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>.</summary>
public sealed record DevicePush(string Jid, string Node, string Secret);

/// <summary>Hours of the day without alerts, by the clock of the time zone.</summary>
public sealed record QuietHoursResponse(string From, string To, string TimeZone);
