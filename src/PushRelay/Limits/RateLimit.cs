using System.Net;
using System.Net.Sockets;

namespace PushRelay.Limits;

/// <summary>
/// At most so many of something in a time span for each key, and no more than a burst at once (<see cref="CellRate"/>: one instant for
/// each key is
/// all that is kept). Bounded: once <see cref="KeysMax"/> keys are busy, new ones share one. Made here because the framework's limiter
/// uses the
/// machine's clock only.
/// </summary>
/// <param name="count">How many in each <paramref name="per"/>; 0: without limit.</param>
/// <param name="per">The time span.</param>
/// <param name="burst">How many at once.</param>
/// <param name="clock">Measures the time.</param>
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

        // not the time of day, which an administrator can set back
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

    /// <summary>Looks through all keys, so at most every <see cref="ForgetEvery"/>.</summary>
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

    /// <summary>The addresses that one person has count as one key: a /64 of IPv6, one address of IPv4.</summary>
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
