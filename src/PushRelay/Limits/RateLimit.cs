using System.Net;
using System.Net.Sockets;

namespace PushRelay.Limits;

/// <summary>
/// At most so many of something in a time span for each key, and no more than a burst at once (GCRA: one instant for each key is all that
/// is kept). Bounded: once <see cref="KeysMax"/> keys are busy, new ones share one. Made here because the framework's limiter uses the
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

    // when the key's burst will be whole again, in ticks
    private readonly Dictionary<string, long> whole = new(StringComparer.Ordinal);
    private readonly long interval = count == 0 ? 0 : per.Ticks / count;
    private long forgetAgain;

    /// <returns>False: too many; ask again after <paramref name="retryAfter"/>.</returns>
    public bool TryTake(string key, out TimeSpan retryAfter)
    {
        retryAfter = TimeSpan.Zero;
        if (count == 0)
        {
            return true;
        }

        // not the time of day, which an administrator can set back
        var now = clock.GetElapsedTime(start).Ticks;
        lock (sync)
        {
            if (whole.Count >= KeysMax && !whole.ContainsKey(key))
            {
                Forget(now);
                key = whole.Count >= KeysMax ? Others : key;
            }

            var next = Math.Max(whole.GetValueOrDefault(key), now) + interval;
            var wait = next - now - (interval * burst);
            if (wait > 0)
            {
                retryAfter = TimeSpan.FromTicks(wait);
                return false;
            }

            whole[key] = next;
            return true;
        }
    }

    /// <summary>Looks through all keys, so at most every <see cref="ForgetEvery"/>.</summary>
    private void Forget(long now)
    {
        if (now < forgetAgain)
        {
            return;
        }

        forgetAgain = now + ForgetEvery.Ticks;
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
