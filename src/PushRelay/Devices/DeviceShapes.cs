namespace PushRelay.Devices;

/// <summary>The body of <c>POST</c> and <c>PUT /v1/devices</c>.</summary>
public sealed record DeviceRequest
{
    public string? Account { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    public string? Token { get; init; }

    public string? Environment { get; init; }

    public string? VoipToken { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    public bool? Exclusive { get; init; }
}

/// <summary>The body of <c>PATCH /v1/devices/{deviceId}</c>: what is left out stays, null resets.</summary>
public sealed record DevicePatchRequest(string? Preview, IReadOnlyList<string>? Muted, QuietHoursAnswer? QuietHours);

/// <summary>A device as the outside sees it: never its token.</summary>
public sealed record DeviceAnswer(
    string Id,
    string Account,
    string App,
    string Platform,
    string Token,
    string? Environment,
    string? VoipToken,
    string? Resource,
    string? Locale,
    string? TimeZone,
    string? Preview,
    IReadOnlyList<string>? Muted,
    QuietHoursAnswer? QuietHours,
    string Status,
    string? StatusReason,
    DevicePush Push,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt,
    DateTimeOffset? LastAcceptedAt,
    DateTimeOffset? LastReceivedAt
);

/// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>.</summary>
public sealed record DevicePush(string Jid, string Node, string Secret);

/// <summary>Hours of the day without alerts, by the clock of the time zone.</summary>
public sealed record QuietHoursAnswer(string From, string To, string TimeZone);

/// <summary>A page of a list, newest first.</summary>
public sealed record DevicePage(IReadOnlyList<DeviceAnswer> Items, string? Next);
