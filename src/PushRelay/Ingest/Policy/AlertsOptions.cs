using PushRelay.Settings;

namespace PushRelay.Ingest.Policy;

/// <summary>What a device gets while another device of the same account is in front.</summary>
internal enum OtherDeviceForeground
{
    /// <summary>The alert, at once.</summary>
    Push,

    /// <summary>The alert, after <see cref="AlertsOptions.OtherDeviceDelay"/>, unless the conversation was read or answered by
    /// then.</summary>
    Delay,

    /// <summary>No alert.</summary>
    Suppress,
}

/// <summary>Settings <c>Alerts</c>: when an alert goes out.</summary>
internal sealed class AlertsOptions
{
    /// <summary>Waited before alerting an account in the background; 0 to 5 minutes.</summary>
    public TimeSpan BackgroundGrace { get; set; } = TimeSpan.Zero;

    public OtherDeviceForeground OtherDeviceForeground { get; set; } = OtherDeviceForeground.Delay;

    /// <summary>0 to 1 hour.</summary>
    public TimeSpan OtherDeviceDelay { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>After an alert, further events of its conversation wait for the end of this window and show as one alert; 0 to 1
    /// minute.</summary>
    public TimeSpan CoalesceWindow { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>Alerts that a device gets one upon another before <see cref="DeviceInterval"/> holds; calls do not count. 1 to
    /// 1000.</summary>
    public int DeviceBurst { get; set; } = 10;

    /// <summary>Beyond the burst a device gets an alert in each such interval, and what waits shows as one per conversation; 0 to 1
    /// minute.</summary>
    public TimeSpan DeviceInterval { get; set; } = TimeSpan.FromSeconds(3);

    /// <summary>After this long an alert is stale and is not sent; 1 minute to 28 days, which is as long as APNs keeps one.</summary>
    public TimeSpan TimeToLive { get; set; } = TimeSpan.FromDays(1);

    /// <summary>The same for a call, which rings no longer; 5 seconds to 10 minutes.</summary>
    public TimeSpan CallTimeToLive { get; set; } = TimeSpan.FromSeconds(30);

    public void Check()
    {
        SettingsReader.Require("Alerts:BackgroundGrace", BackgroundGrace, TimeSpan.Zero, TimeSpan.FromMinutes(5));
        SettingsReader.Require("Alerts:OtherDeviceDelay", OtherDeviceDelay, TimeSpan.Zero, TimeSpan.FromHours(1));
        SettingsReader.Require("Alerts:CoalesceWindow", CoalesceWindow, TimeSpan.Zero, TimeSpan.FromMinutes(1));
        SettingsReader.Require("Alerts:DeviceBurst", DeviceBurst, 1, 1000);
        SettingsReader.Require("Alerts:DeviceInterval", DeviceInterval, TimeSpan.Zero, TimeSpan.FromMinutes(1));
        SettingsReader.Require("Alerts:TimeToLive", TimeToLive, TimeSpan.FromMinutes(1), TimeSpan.FromDays(28));
        SettingsReader.Require("Alerts:CallTimeToLive", CallTimeToLive, TimeSpan.FromSeconds(5), TimeSpan.FromMinutes(10));
    }
}
