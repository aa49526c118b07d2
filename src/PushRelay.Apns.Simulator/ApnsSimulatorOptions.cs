using System.Net;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace PushRelay.Apns.Simulator;

/// <summary>How a simulator is to behave.</summary>
public sealed record ApnsSimulatorOptions
{
    /// <summary>The APNs port; 0 takes a free one.</summary>
    public int Port { get; init; }

    /// <summary>The plain HTTP port for scripts and inspection, always on loopback unless <see cref="ControlAddress"/> says otherwise; 0 takes a free one.</summary>
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

    /// <summary>So many received notifications are kept for inspection, the newest; 0 keeps none. At most 1,000,000; 100,000 by default.</summary>
    public int KeepMax { get; init; } = 100_000;

    /// <summary>Judges the age of tokens, dates what is received, and counts the delays.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    public ILogger Logger { get; init; } = NullLogger.Instance;
}

/// <summary>A key known to the simulator; its PEM may be the public key, or the <c>.p8</c> itself.</summary>
public sealed record ApnsSimulatorKey(string TeamId, string KeyId, string Pem)
{
    public override string ToString() => $"{TeamId}/{KeyId}";
}
