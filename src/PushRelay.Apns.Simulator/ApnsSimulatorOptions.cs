using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace PushRelay.Apns.Simulator;

/// <summary>How a simulator is to behave.</summary>
public sealed record ApnsSimulatorOptions
{
    /// <summary>The APNs port; 0 takes a free one.</summary>
    public int Port { get; init; }

    /// <summary>The plain HTTP port for scripts and inspection, always on loopback unless <see cref="ControlAddress"/> says otherwise; 0
    /// takes a free one.</summary>
    public int ControlPort { get; init; }

    /// <summary>The address the APNs port is bound to.</summary>
    public IPAddress Address { get; init; } = IPAddress.Loopback;

    /// <summary>The address the control port is bound to. It has no authentication: keep it where only testers reach it.</summary>
    public IPAddress ControlAddress { get; init; } = IPAddress.Loopback;

    /// <summary>Names and addresses the certificate is valid for, beside <c>localhost</c>, <c>127.0.0.1</c> and <c>::1</c>.</summary>
    public IReadOnlyList<string> HostNames { get; init; } = [];

    /// <summary>The keys whose provider tokens are taken. Empty: form and age of a token are checked, its signature is not.</summary>
    public IReadOnlyList<ApnsSimulatorKey> Keys { get; init; } = [];

    /// <summary>The bundle ids that may be pushed to. Empty: any.</summary>
    public IReadOnlyList<string> Topics { get; init; } = [];

    /// <summary>So many received notifications are kept for inspection, the newest; 0 only counts: no waiting, no screens. At most
    /// 1,000,000; 100,000 by default.</summary>
    public int KeepMax { get; init; } = 100_000;

    /// <summary>
    /// Called with each notification as it is received, before it is answered, kept or not: for whoever records more than fits in memory
    /// here.
    /// It holds up the answer, may be called concurrently, and must not throw.
    /// </summary>
    public Action<ReceivedNotification>? OnReceived { get; init; }

    /// <summary>Sandbox instead of production: a device of the other one is unknown here, and answers bear an
    /// <c>apns-unique-id</c>.</summary>
    public bool Sandbox { get; init; }

    /// <summary>Only devices made known by <see cref="ApnsSimulator.SetDevice"/> are pushed to; others get <c>BadDeviceToken</c>. Otherwise
    /// any token is a device.</summary>
    public bool KnownDevicesOnly { get; init; }

    /// <summary>Client certificates that are taken instead of a provider token, compared byte for byte.</summary>
    public IReadOnlyList<X509Certificate2> ClientCertificates { get; init; } = [];

    /// <summary>Requests to one device within a minute, more get 429 <c>TooManyRequests</c>; 0, the default: no limit.</summary>
    public int RequestsPerDeviceMax { get; init; }

    /// <summary>
    /// New provider tokens of one key within 20 minutes, more get 429 <c>TooManyProviderTokenUpdates</c> for the rest of their connection;
    /// 0, the default: no limit. Apple's own number is not known; 1 is what it asks senders to keep to.
    /// </summary>
    public int ProviderTokensMax { get; init; }

    /// <summary>Streams that a connection may have before a request with good credentials was answered; 1 as at Apple.</summary>
    public int StreamsBeforeFirstAnswer { get; init; } = 1;

    /// <summary>Streams that it may have after; <see cref="ApnsSimulator.SetStreamsMax"/> changes it while running. 1000 by
    /// default.</summary>
    public int StreamsMax { get; init; } = 1000;

    /// <summary>Every answer comes this much later. Zero by default.</summary>
    public TimeSpan Latency { get; init; }

    /// <summary>For rules with a rate: the same seed strikes the same requests, if they come in the same order.</summary>
    public int Seed { get; init; }

    /// <summary>Judges the age of tokens, dates what is received, and counts the delays.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    public ILogger Logger { get; init; } = NullLogger.Instance;
}

/// <summary>A key known to the simulator; its PEM may be the public key, or the <c>.p8</c> itself.</summary>
public sealed record ApnsSimulatorKey(string TeamId, string KeyId, string Pem)
{
    public override string ToString() => $"{TeamId}/{KeyId}";
}
