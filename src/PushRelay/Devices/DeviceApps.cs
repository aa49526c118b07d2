using PushRelay.Apps;
using PushRelay.Push.Apns;

namespace PushRelay.Devices;

/// <summary>The environment of devices that do not say theirs, app by app.</summary>
internal sealed class DeviceApps(AppCatalog apps)
{
    /// <summary>Null where the app is not configured.</summary>
    public string? DefaultEnvironment(string app) => apps.Find(app)?.Network<ApnsOptions>()?.Environment.ToString().ToLowerInvariant();
}
