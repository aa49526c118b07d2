using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace PushRelay.Apps;

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

/// <summary>What a device that was alerted gets when the conversation is read on another one.</summary>
internal enum ReadElsewhere
{
    /// <summary>A push that shows nothing, with the badge.</summary>
    Update,
    None,
}

/// <summary>Settings <c>Alerts</c>: when an alert goes out.</summary>
internal sealed class AlertsOptions
{
    [Description("how long an alert waits while its account is in the background")]
    [Range(typeof(TimeSpan), "00:00:00", "00:05:00")]
    public TimeSpan BackgroundGrace { get; set; } = TimeSpan.Zero;

    [Description("what a device gets while another one of its account is in front")]
    public OtherDeviceForeground OtherDeviceForeground { get; set; } = OtherDeviceForeground.Delay;

    [Description("how long `Delay` waits for the message to be read or answered there")]
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00")]
    public TimeSpan OtherDeviceDelay { get; set; } = TimeSpan.FromSeconds(30);

    [Description("`true`: a session that shows `away` or `xa` also counts as in front")]
    public bool AwayIsForeground { get; set; }

    [Description("contact requests alert")]
    public bool Subscriptions { get; set; } = true;

    [Description("what a phone is told, silently, of a conversation that was read elsewhere; `None`: nothing")]
    public ReadElsewhere ReadElsewhere { get; set; } = ReadElsewhere.Update;

    [Description("a device gets at most one push that only wakes its app in this time")]
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan WakeInterval { get; set; } = TimeSpan.FromMinutes(20);

    [Description("after an alert, further messages of its conversation wait for the end of this window and show as one")]
    [Range(typeof(TimeSpan), "00:00:00", "00:01:00")]
    public TimeSpan CoalesceWindow { get; set; } = TimeSpan.FromSeconds(2);

    [Description("alerts that a device gets at once before `DeviceInterval` applies; calls do not count")]
    [Range(1, 1000)]
    public int DeviceBurst { get; set; } = 10;

    [Description("beyond the burst a device gets one alert in each such interval; what waits shows as one per conversation")]
    [Range(typeof(TimeSpan), "00:00:00", "00:01:00")]
    public TimeSpan DeviceInterval { get; set; } = TimeSpan.FromSeconds(3);

    // no push network keeps an alert longer than 28 days
    [Description("an older alert is not sent")]
    [Range(typeof(TimeSpan), "00:01:00", "28.00:00:00")]
    public TimeSpan TimeToLive { get; set; } = TimeSpan.FromDays(1);

    [Description("the same for a call")]
    [Range(typeof(TimeSpan), "00:00:05", "00:10:00")]
    public TimeSpan CallTimeToLive { get; set; } = TimeSpan.FromSeconds(30);
}
