using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Options;
using PushRelay.Limits;

namespace PushRelay.Access;

/// <summary>
/// So many of something a time span for each key, and no more than a burst at once (<see cref="CellRate"/>). Bounded:
/// beyond so many busy keys the newcomers share one. Made here because the framework's limiter goes by the machine's clock only.
/// </summary>
/// <param name="count">In each <paramref name="per"/>; 0: without limit.</param>
/// <param name="per">The time span.</param>
/// <param name="burst">At once.</param>
/// <param name="clock">The time it goes by.</param>
internal sealed class RateLimit(int count, TimeSpan per, int burst, TimeProvider clock)
{
    internal const int KeysMax = 20_000;
    private const string Others = "";

    private static readonly TimeSpan ForgetEvery = TimeSpan.FromMilliseconds(100);

    private readonly Lock sync = new();
    private readonly long start = clock.GetTimestamp();

    // when the key's burst is whole again
    private readonly Dictionary<string, TimeSpan> whole = new(StringComparer.Ordinal);
    private readonly CellRate rate = new(count == 0 ? TimeSpan.Zero : per / count, burst);
    private TimeSpan forgetAgain;

    /// <returns>False: too many; ask again after <paramref name="retryAfter"/>.</returns>
    public bool TryTake(string key, out TimeSpan retryAfter)
    {
        retryAfter = TimeSpan.Zero;
        if (count == 0)
        {
            return true;
        }

        // not the time of day, which may be set back
        var now = clock.GetElapsedTime(start);
        lock (sync)
        {
            if (whole.Count >= KeysMax && !whole.ContainsKey(key))
            {
                Forget(now);
                key = whole.Count >= KeysMax ? Others : key;
            }

            var wholeAt = whole.GetValueOrDefault(key);
            retryAfter = rate.Next(now, wholeAt) - now;
            if (retryAfter > TimeSpan.Zero)
            {
                return false;
            }

            whole[key] = rate.Take(now, wholeAt);
            return true;
        }
    }

    /// <summary>Looks through all keys, so not for each of many newcomers.</summary>
    private void Forget(TimeSpan now)
    {
        if (now < forgetAgain)
        {
            return;
        }

        forgetAgain = now + ForgetEvery;
        foreach (var (idle, _) in whole.Where(entry => entry.Value <= now).ToList())
        {
            whole.Remove(idle);
        }
    }

    /// <summary>What one person has of addresses: a /64 of IPv6, one of IPv4.</summary>
    public static string KeyOf(IPAddress? address)
    {
        if (address is null)
        {
            return Others;
        }

        address = address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        return address.AddressFamily == AddressFamily.InterNetworkV6
            ? Convert.ToHexString(address.GetAddressBytes().AsSpan(0, 8))
            : address.ToString();
    }
}

/// <summary>The REST interface's limits, by settings <c>Api:RateLimits</c>.</summary>
internal sealed class RateLimits(IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>Requests of an account, however many credentials it has.</summary>
    public RateLimit Requests { get; } = options.Value.RateLimits.Requests(clock);

    /// <summary>Registrations of an account, by itself.</summary>
    public RateLimit Registrations { get; } =
        new(
            options.Value.RateLimits.RegistrationsPerMinute,
            TimeSpan.FromMinutes(1),
            3 * options.Value.RateLimits.RegistrationsPerMinute,
            clock
        );

    /// <summary>Tokens issued to an account.</summary>
    public RateLimit Tokens { get; } =
        new(options.Value.RateLimits.TokensPerMinute, TimeSpan.FromMinutes(1), options.Value.RateLimits.TokensPerMinute, clock);

    /// <summary>Test alerts to a device.</summary>
    public RateLimit Tests { get; } =
        new(options.Value.RateLimits.TestsPerHour, TimeSpan.FromHours(1), options.Value.RateLimits.TestsPerHour, clock);

    /// <summary>Bad credentials from an address.</summary>
    public RateLimit Failures { get; } =
        new(options.Value.RateLimits.FailuresPerMinute, TimeSpan.FromMinutes(1), options.Value.RateLimits.FailuresPerMinute, clock);

    /// <summary>Requests without a good credential from an address.</summary>
    public RateLimit Strangers { get; } =
        new(
            options.Value.RateLimits.StrangersPerSecond,
            TimeSpan.FromSeconds(1),
            RateLimitOptions.Burst * options.Value.RateLimits.StrangersPerSecond,
            clock
        );
}
