using System.Security.Cryptography.X509Certificates;

namespace PushRelay.Apns.Simulator;

/// <summary>Who is at the other end of a connection, as far as is known. Touched by one request of the connection at a time.</summary>
internal sealed class ApnsCaller(int connection, X509Certificate2? certificate)
{
    /// <summary>Counted from 1.</summary>
    public int Connection { get; } = connection;

    /// <summary>Shown in the TLS handshake.</summary>
    public X509Certificate2? Certificate { get; } = certificate;

    /// <summary>Team and key of the first provider token that was good: others are not taken any more.</summary>
    public (string TeamId, string KeyId)? Bound { get; set; }

    /// <summary>After an expired token, or too many new ones, Apple refuses whatever comes over the connection, with this.</summary>
    public Refusal? Wedged { get; set; }
}
