using System.Collections.Concurrent;

namespace PushRelay.Apns.Simulator;

/// <summary>May this caller push? By certificate or provider token, with what Apple remembers about connection and key.</summary>
internal sealed class CredentialCheck(ApnsSimulatorOptions options, ProviderTokenCheck tokens)
{
    private static readonly TimeSpan UpdatesWindow = TimeSpan.FromMinutes(20);

    private readonly ConcurrentDictionary<(string TeamId, string KeyId), KeyUse> keys = new();

    /// <summary>Null: yes.</summary>
    public Refusal? Check(ApnsRequest request, DateTimeOffset now)
    {
        var caller = request.Caller;
        if (caller.Wedged is { } wedged)
        {
            return wedged;
        }

        var authorization = request.Header("authorization");
        if (caller.Certificate is { } certificate && authorization is null)
        {
            return options.ClientCertificates.Any(known => known.RawDataMemory.Span.SequenceEqual(certificate.RawDataMemory.Span))
                ? null
                : new Refusal(403, "BadCertificate");
        }

        var (identity, reason) = tokens.Judge(authorization, now);
        if (identity is null)
        {
            var refusal = new Refusal(403, reason!);
            return reason == "ExpiredProviderToken" ? caller.Wedged = refusal : refusal;
        }

        if (caller.Bound is { } bound && bound != (identity.TeamId, identity.KeyId))
        {
            return new Refusal(403, "UnrelatedKeyIdInToken");
        }

        if (
            options.ProviderTokensMax > 0
            && !keys.GetOrAdd((identity.TeamId, identity.KeyId), _ => new KeyUse()).Take(identity.Token, now, options.ProviderTokensMax)
        )
        {
            return caller.Wedged = new Refusal(429, "TooManyProviderTokenUpdates");
        }

        caller.Bound = (identity.TeamId, identity.KeyId);
        return null;
    }

    private sealed class KeyUse
    {
        private readonly Dictionary<string, DateTimeOffset> firstSeen = [];

        public bool Take(string token, DateTimeOffset now, int tokensMax)
        {
            lock (firstSeen)
            {
                if (firstSeen.ContainsKey(token))
                {
                    return true;
                }

                if (firstSeen.Values.Count(at => now - at < UpdatesWindow) >= tokensMax)
                {
                    return false;
                }

                firstSeen.Add(token, now);
                return true;
            }
        }
    }
}
