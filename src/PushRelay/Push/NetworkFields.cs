using PushRelay.Push.Encryption;
using PushRelay.Push.WebPush;

namespace PushRelay.Push;

/// <summary>What registrations for different networks have in common, by the names of the REST interface.</summary>
internal static class NetworkFields
{
    public const string EnvironmentRefused = "is for platforms \"apns\" and \"jpush\" only";

    /// <summary>What the registration brings that this network does not have, and wrong keys for sealed alerts.</summary>
    public static Dictionary<string, string> Refusals(PushAddress address, bool mayHaveCalls, bool mayHaveEnvironment)
    {
        var (given, errors) = (address.Tokens, new Dictionary<string, string>(StringComparer.Ordinal));
        if (!mayHaveCalls && given.ContainsKey(Channels.Call))
        {
            errors["voipToken"] = "is for platform \"apns\" only";
        }

        if (!mayHaveEnvironment && address.Environment is not null)
        {
            errors["environment"] = EnvironmentRefused;
        }

        if (given.Keys.Any(key => key.StartsWith(SubscriptionFields.Subscription, StringComparison.Ordinal)))
        {
            errors[SubscriptionFields.Subscription] = "is for platform \"webpush\" only";
        }

        if (given.ContainsKey(Channels.PublicKey) || given.ContainsKey(Channels.Auth))
        {
            var keys = given
                .Where(t => t.Key is Channels.PublicKey or Channels.Auth)
                .ToDictionary(t => $"encryption.{t.Key}", t => t.Value);
            CheckKeys(keys, "encryption.p256dh", "encryption.auth", errors);
        }

        return errors;
    }

    /// <summary>RFC 8291's two keys, by the fields that hold them.</summary>
    public static void CheckKeys(IReadOnlyDictionary<string, string> given, string point, string auth, Dictionary<string, string> errors)
    {
        if (!ReceiverKeys.IsPoint(given.GetValueOrDefault(point)))
        {
            errors[point] = given.ContainsKey(point) ? ReceiverKeys.PointMust : "is missing";
        }

        if (!ReceiverKeys.IsAuth(given.GetValueOrDefault(auth)))
        {
            errors[auth] = given.ContainsKey(auth) ? ReceiverKeys.AuthMust : "is missing";
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
