using System.Globalization;
using PushRelay.Apns;

namespace PushRelay.Push.Apns;

/// <summary>Says Apple's answer in the relay's words: whose fault a failure is, is decided here and nowhere else.</summary>
internal static class ApnsResults
{
    private const string Prefix = "apns_";

    public static PushResult Of(ApnsResponse response, string channel)
    {
        var duration = response.Duration;
        // an answer from somebody between us and Apple may give no reason
        var code = CodeOf(response.Reason ?? response.Status?.ToString(CultureInfo.InvariantCulture) ?? "unknown");
        return response.Outcome switch
        {
            ApnsOutcome.Accepted => new PushResult.Accepted(response.ApnsId?.ToString("D"), response.Status, duration),
            ApnsOutcome.DeviceInvalid => new PushResult.TokenDead(channel, response.InvalidSince, code, response.Status, duration),
            ApnsOutcome.Refused => new PushResult.Refused(code, response.Status, duration),
            ApnsOutcome.Deferred => new PushResult.Later(FaultOf(response), response.RetryAfter, code, response.Status, duration),
            ApnsOutcome.Misconfigured => new PushResult.Later(Fault.Credentials, response.RetryAfter, code, response.Status, duration),
            ApnsOutcome.Unknown => new PushResult.Unknown(code, duration),
        };
    }

    public static string CodeOf(string reason) => Prefix + reason;

    public static string? CureOf(string code) =>
        code[Prefix.Length..] switch
        {
            nameof(ApnsReason.BadDeviceToken) => "the tokens may be of the other environment: check Environment of this app",
            nameof(ApnsReason.DeviceTokenNotForTopic) or nameof(ApnsReason.BadTopic) or nameof(ApnsReason.TopicDisallowed) =>
                "check BundleId of this app",
            nameof(ApnsReason.BadEnvironmentKeyIdInToken) or nameof(ApnsReason.BadEnvironmentKeyInToken) =>
                "the key is not for this environment: check KeyFile and Environment of this app",
            nameof(ApnsReason.InvalidProviderToken) or nameof(ApnsReason.MissingProviderToken) =>
                "check KeyFile, KeyId and TeamId of this app",
            "app_not_configured" => "add the app to setting Apps",
            "connect_failed" or "timed_out" or "connection_lost" => "check this machine's way to Apple's host, port 443",
            "tls_failed" => "check what stands between this machine and Apple's host, and TrustedCertificateFile",
            _ => null,
        };

    /// <summary>429 TooManyRequests and 500 are about one device or one notification; all else that is deferred is Apple's
    /// outage.</summary>
    private static Fault FaultOf(ApnsResponse response) =>
        (response.Status, response.KnownReason) switch
        {
            (500, _) => Fault.ServerError,
            (429, ApnsReason.TooManyRequests) => Fault.Throttled,
            _ => Fault.Outage,
        };
}
