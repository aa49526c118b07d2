using PushRelay.Push.Encryption;

namespace PushRelay.Push;

/// <summary>What registrations for different networks have in common, by the names of the REST interface.</summary>
internal static class NetworkFields
{
    /// <summary>What no network but those that have it takes, and the keys for sealed alerts where they are wrong.</summary>
    public static Dictionary<string, string> Refusals(PushAddress address, bool mayHaveCalls, bool mayHaveEnvironment)
    {
        var errors = new Dictionary<string, string>(StringComparer.Ordinal);
        if (!mayHaveCalls && address.Tokens.ContainsKey(Channels.Call))
        {
            errors["voipToken"] = "is for platform \"apns\" only";
        }

        if (!mayHaveEnvironment && address.Environment is not null)
        {
            errors["environment"] = "is for platforms \"apns\" and \"jpush\" only";
        }

        CheckKeys(address, "encryption", isNeeded: false, errors);
        return errors;
    }

    /// <summary>RFC 8291's two keys.</summary>
    /// <param name="field">That holds them.</param>
    /// <param name="isNeeded">They may not be absent together.</param>
    public static void CheckKeys(PushAddress address, string field, bool isNeeded, Dictionary<string, string> errors)
    {
        var point = address.Tokens.GetValueOrDefault(Channels.PublicKey);
        var auth = address.Tokens.GetValueOrDefault(Channels.Auth);
        if (point is null && auth is null && !isNeeded)
        {
            return;
        }

        if (!ReceiverKeys.IsPoint(point))
        {
            errors[$"{field}.p256dh"] = point is null ? "is missing" : ReceiverKeys.PointMust;
        }

        if (!ReceiverKeys.IsAuth(auth))
        {
            errors[$"{field}.auth"] = auth is null ? "is missing" : ReceiverKeys.AuthMust;
        }
    }

    /// <summary>What helps where no answer came; null: the word is none of those.</summary>
    public static string? ReachCure(string? word) =>
        word switch
        {
            "timed_out" or "connect_failed" or "connection_lost" or "name_unknown" =>
                "check this machine's way to the push network: its name service, port 443, and Network:Proxy",
            "tls_failed" => "check what stands between this machine and the push network, and TrustedCertificateFile",
            "proxy_refused" => "check the user and password of Network:Proxy, and what it lets through",
            "bad_answer" => "check what stands between this machine and the push network: something else answers",
            _ => null,
        };
}
