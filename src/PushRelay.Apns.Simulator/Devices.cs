using System.Globalization;

namespace PushRelay.Apns.Simulator;

/// <summary>A phone with one app.</summary>
public sealed record SimulatedDevice
{
    public required string Token { get; init; }

    /// <summary>The app's bundle id; a push for another gets <c>DeviceTokenNotForTopic</c>. Null: any.</summary>
    public string? Topic { get; init; }

    /// <summary>Belongs to the sandbox, not to production.</summary>
    public bool Sandbox { get; init; }

    /// <summary>False: out of reach. Of what comes meanwhile the newest is kept, one for each app, until it expires.</summary>
    public bool Online { get; init; } = true;

    /// <summary>The app was removed then: 410 with this time.</summary>
    public DateTimeOffset? UnregisteredAt { get; init; }
}

/// <summary>The phones that are known, what lies on their screens and what is stored for them. Safe for concurrent use.</summary>
internal sealed class DeviceRegister(ApnsSimulatorOptions options)
{
    private readonly Lock sync = new();
    private readonly Dictionary<string, Phone> phones = new(StringComparer.OrdinalIgnoreCase);
    private readonly Dictionary<string, Queue<DateTimeOffset>> requests = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>New, or changed; coming back into reach it gets what was stored and has not expired.</summary>
    public void Set(SimulatedDevice device, DateTimeOffset now)
    {
        lock (sync)
        {
            if (!phones.TryGetValue(device.Token, out var phone))
            {
                phones.Add(device.Token, phone = new Phone());
            }

            phone.Device = device;
            if (!device.Online)
            {
                return;
            }

            foreach (var stored in phone.Stored.Values.Where(stored => ExpiresAt(stored) is not { } at || at > now))
            {
                Show(phone, stored);
            }

            phone.Stored.Clear();
        }
    }

    public SimulatedDevice? Find(string token)
    {
        lock (sync)
        {
            return phones.GetValueOrDefault(token)?.Device;
        }
    }

    public IReadOnlyList<ReceivedNotification> Screen(string token)
    {
        lock (sync)
        {
            return phones.TryGetValue(token, out var phone) ? [.. phone.Screen] : [];
        }
    }

    public IReadOnlyList<ReceivedNotification> Stored(string token)
    {
        lock (sync)
        {
            return phones.TryGetValue(token, out var phone) ? [.. phone.Stored.Values] : [];
        }
    }

    /// <summary>Null: the device takes it. With a 410: since when.</summary>
    public (Refusal Refusal, DateTimeOffset Since)? Check(string token, string bundleId, DateTimeOffset now)
    {
        lock (sync)
        {
            if (phones.TryGetValue(token, out var phone))
            {
                var device = phone.Device;
                if (device.Sandbox != options.Sandbox)
                {
                    return (new Refusal(400, "BadDeviceToken"), now);
                }

                if (device.Topic is { } topic && topic != bundleId)
                {
                    return (new Refusal(400, "DeviceTokenNotForTopic"), now);
                }

                if (device.UnregisteredAt is { } since)
                {
                    return (new Refusal(410, "Unregistered"), since);
                }
            }
            else if (options.KnownDevicesOnly)
            {
                return (new Refusal(400, "BadDeviceToken"), now);
            }

            return options.RequestsPerDeviceMax > 0 && IsTooMany(token, now) ? (new Refusal(429, "TooManyRequests"), now) : null;
        }
    }

    /// <summary>An accepted push reaches the phone, or is stored for it.</summary>
    public void Deliver(ReceivedNotification notification, string bundleId, DateTimeOffset now)
    {
        lock (sync)
        {
            if (!phones.TryGetValue(notification.DeviceToken, out var phone))
            {
                return;
            }

            if (phone.Device.Online)
            {
                Show(phone, notification);
            }
            else if (ExpiresAt(notification) is not { } at || at > now)
            {
                phone.Stored[bundleId] = notification;
            }
        }
    }

    private bool IsTooMany(string token, DateTimeOffset now)
    {
        if (!requests.TryGetValue(token, out var times))
        {
            requests.Add(token, times = new Queue<DateTimeOffset>());
        }

        while (times.TryPeek(out var oldest) && now - oldest >= TimeSpan.FromMinutes(1))
        {
            times.Dequeue();
        }

        if (times.Count >= options.RequestsPerDeviceMax)
        {
            return true;
        }

        times.Enqueue(now);
        return false;
    }

    private static void Show(Phone phone, ReceivedNotification notification)
    {
        if (notification.Headers.TryGetValue("apns-collapse-id", out var collapseId))
        {
            phone.Screen.RemoveAll(shown => shown.Headers.GetValueOrDefault("apns-collapse-id") == collapseId);
        }

        phone.Screen.Add(notification);
    }

    /// <summary>Null: not said; the header's 0 is long past, so it is never stored.</summary>
    private static DateTimeOffset? ExpiresAt(ReceivedNotification notification) =>
        notification.Headers.TryGetValue("apns-expiration", out var seconds)
            ? DateTimeOffset.FromUnixTimeSeconds(long.Parse(seconds, CultureInfo.InvariantCulture))
            : null;

    private sealed class Phone
    {
        public SimulatedDevice Device { get; set; } = new() { Token = "" };

        public List<ReceivedNotification> Screen { get; } = [];

        /// <summary>By bundle id.</summary>
        public Dictionary<string, ReceivedNotification> Stored { get; } = [];
    }
}
