using System.Collections.Frozen;

namespace PushRelay.Apns;

/// <summary>
/// The reasons Apple documents ("Handling notification responses from APNs"), and <see cref="BadEnvironmentKeyInToken"/>, which it sends
/// where the document says <see cref="BadEnvironmentKeyIdInToken"/>. The comment gives the status each comes with.
/// </summary>
public enum ApnsReason
{
    /// <summary>400</summary>
    BadCollapseId,

    /// <summary>400; also what a sandbox token gets in production and the other way round.</summary>
    BadDeviceToken,

    /// <summary>400</summary>
    BadExpirationDate,

    /// <summary>400</summary>
    BadMessageId,

    /// <summary>400</summary>
    BadPriority,

    /// <summary>400</summary>
    BadTopic,

    /// <summary>400</summary>
    DeviceTokenNotForTopic,

    /// <summary>400</summary>
    DuplicateHeaders,

    /// <summary>400</summary>
    IdleTimeout,

    /// <summary>400</summary>
    InvalidPushType,

    /// <summary>400</summary>
    MissingDeviceToken,

    /// <summary>400</summary>
    MissingTopic,

    /// <summary>400</summary>
    PayloadEmpty,

    /// <summary>400</summary>
    TopicDisallowed,

    /// <summary>403</summary>
    BadCertificate,

    /// <summary>403</summary>
    BadCertificateEnvironment,

    /// <summary>403; as documented.</summary>
    BadEnvironmentKeyIdInToken,

    /// <summary>403; as really sent.</summary>
    BadEnvironmentKeyInToken,

    /// <summary>403</summary>
    ExpiredProviderToken,

    /// <summary>403</summary>
    Forbidden,

    /// <summary>403</summary>
    InvalidProviderToken,

    /// <summary>403</summary>
    MissingProviderToken,

    /// <summary>403</summary>
    UnrelatedKeyIdInToken,

    /// <summary>404</summary>
    BadPath,

    /// <summary>405</summary>
    MethodNotAllowed,

    /// <summary>410</summary>
    ExpiredToken,

    /// <summary>410</summary>
    Unregistered,

    /// <summary>413</summary>
    PayloadTooLarge,

    /// <summary>429; of the connection, not of the device.</summary>
    TooManyProviderTokenUpdates,

    /// <summary>429; of this one device.</summary>
    TooManyRequests,

    /// <summary>500</summary>
    InternalServerError,

    /// <summary>503</summary>
    ServiceUnavailable,

    /// <summary>503</summary>
    Shutdown,
}

public static class ApnsReasons
{
    /// <summary>The HTTP status Apple sends this reason with.</summary>
    public static int Status(this ApnsReason reason) =>
        reason switch
        {
            <= ApnsReason.TopicDisallowed => 400,
            <= ApnsReason.UnrelatedKeyIdInToken => 403,
            ApnsReason.BadPath => 404,
            ApnsReason.MethodNotAllowed => 405,
            ApnsReason.ExpiredToken or ApnsReason.Unregistered => 410,
            ApnsReason.PayloadTooLarge => 413,
            ApnsReason.TooManyProviderTokenUpdates or ApnsReason.TooManyRequests => 429,
            ApnsReason.InternalServerError => 500,
            _ => 503,
        };
}

internal static class ApnsAnswers
{
    private static readonly FrozenDictionary<string, ApnsReason> ByText = Enum.GetValues<ApnsReason>()
        .ToFrozenDictionary(reason => reason.ToString(), StringComparer.Ordinal);

    public static ApnsReason? Parse(string? reason) => reason is not null && ByText.TryGetValue(reason, out var known) ? known : null;

    /// <summary>
    /// What an answer means for who sent the notification. The reason is asked only where Apple puts answers of different classes under
    /// one status.
    /// </summary>
    public static ApnsOutcome Outcome(int status, ApnsReason? reason) =>
        (status, reason) switch
        {
            (200, _) => ApnsOutcome.Accepted,
            (410, _) => ApnsOutcome.DeviceInvalid,
            (400, ApnsReason.BadDeviceToken or ApnsReason.DeviceTokenNotForTopic) => ApnsOutcome.DeviceInvalid,
            (400, ApnsReason.BadTopic or ApnsReason.TopicDisallowed) => ApnsOutcome.Misconfigured,
            (400, ApnsReason.IdleTimeout) => ApnsOutcome.Deferred,
            (401 or 403 or 407, _) => ApnsOutcome.Misconfigured,
            // Without Apple's reason, as with any status Apple does not use, it was not Apple who answered, but what the endpoint setting
            // points to.
            (404 or 405, null) => ApnsOutcome.Misconfigured,
            (408 or 425 or 429, _) => ApnsOutcome.Deferred,
            (400 or 413, _) => ApnsOutcome.Refused,
            (>= 400 and < 500, null) => ApnsOutcome.Deferred,
            (>= 400 and < 500, _) => ApnsOutcome.Refused,
            (>= 500, _) => ApnsOutcome.Deferred,
            _ => ApnsOutcome.Misconfigured,
        };
}
