using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace PushRelay.Apns;

/// <summary>
/// One way to Apple: credentials, environment, endpoint. Apple ties a connection to the first team and key it sees, so each combination
/// has a client, and connections, of its own.
/// </summary>
public sealed record ApnsClientOptions
{
    /// <summary>Signs the provider token. This or <see cref="Certificate"/>, not both.</summary>
    public ApnsSigningKey? Key { get; init; }

    /// <summary>
    /// An APNs certificate with its private key (<see cref="X509CertificateLoader.LoadPkcs12FromFile(string, string?, X509KeyStorageFlags,
    /// Pkcs12LoaderLimits?)"/>
    /// or <see cref="X509Certificate2.CreateFromPemFile(string, string?)"/>), instead of a key. Location and Live Activity pushes need a
    /// key.
    /// The caller disposes of it, after the client.
    /// </summary>
    public X509Certificate2? Certificate { get; init; }

    public ApnsEnvironment Environment { get; init; } = ApnsEnvironment.Production;

    /// <summary>Overrides Apple's host, for example <c>https://127.0.0.1:2197</c>: https, no path. Null: Apple's host of <see
    /// cref="Environment"/>, port 443.</summary>
    public Uri? Endpoint { get; init; }

    /// <summary>
    /// A private authority that signed the endpoint's certificate; trusted instead of the system's, for this client only. The
    /// certificate must still bear the endpoint's name: there is no switch that turns the check off.
    /// </summary>
    public X509Certificate2Collection? TrustedCertificates { get; init; }

    /// <summary>From the call to the answer, waiting for a free stream included; between 100 ms and 5 minutes, 10 s by default.</summary>
    public TimeSpan RequestTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>At most so many connections; a further one is opened when all are full. 1 to 16, 4 by default.</summary>
    public int ConnectionsMax { get; init; } = 4;

    /// <summary>
    /// Pushes in flight on one connection; more wait. Apple allows about 1000 and announces the number, but the HTTP stack does not show
    /// it: stay below. 1 to 1000, 900 by default.
    /// </summary>
    public int StreamsMax { get; init; } = 900;

    /// <summary>
    /// How old a connection may grow, more or less a tenth; a new one is opened, which asks the name service anew, and takes over before
    /// the old one is closed. Between 1 minute and 1 day, 1 hour by default.
    /// </summary>
    public TimeSpan ConnectionLifetime { get; init; } = TimeSpan.FromHours(1);

    /// <summary>
    /// Opens a connected socket to this host and port, for ways of one's own: through a proxy, or to the first of several addresses that
    /// answers. TLS and HTTP/2 are spoken over it here, to the endpoint's name; the client disposes of it. Null: directly.
    /// </summary>
    public Func<DnsEndPoint, CancellationToken, ValueTask<Socket>>? Connect { get; init; }

    /// <summary>Shares the provider token with other processes. Null: it is shared only by clients with the same <see cref="Key"/>
    /// object.</summary>
    public IApnsTokenStore? TokenStore { get; init; }

    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>
    /// After this long without a frame from Apple a connection is asked for a sign of life; the first missing one ends it. Without that a
    /// connection whose packets vanish is used for ever (measured).
    /// </summary>
    internal TimeSpan PingDelay { get; init; } = TimeSpan.FromSeconds(10);

    internal TimeSpan PingTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Gets no device token, payload or collapse id at any level.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;
}
