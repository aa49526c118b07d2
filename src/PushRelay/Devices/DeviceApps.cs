using Microsoft.Extensions.Options;

namespace PushRelay.Devices;

/// <summary>The part of settings <c>Apps</c> that a registration needs: which apps there are, and their environment.</summary>
internal sealed class DeviceAppsOptions
{
    public List<App> Apps { get; set; } = [];

    internal sealed class App
    {
        public string Id { get; set; } = "";

        public AppApns Apns { get; set; } = new();
    }

    internal sealed class AppApns
    {
        public string Environment { get; set; } = "Production";
    }
}

internal sealed class DeviceApps(IOptions<DeviceAppsOptions> options)
{
    private readonly Dictionary<string, string> environments = options.Value.Apps.ToDictionary(
        app => app.Id,
        app => app.Apns.Environment.ToLowerInvariant(),
        StringComparer.Ordinal
    );

    /// <summary>Of devices that do not say theirs; null where the app is not configured.</summary>
    public string? DefaultEnvironment(string app) => environments.GetValueOrDefault(app);
}
