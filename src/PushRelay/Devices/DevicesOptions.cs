using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace PushRelay.Devices;

/// <summary>Settings <c>Devices</c>.</summary>
internal sealed class DevicesOptions
{
    [Description("a device that did not register for so long is `invalid`, `not_renewed`: apps register at each start")]
    [Range(typeof(TimeSpan), "1.00:00:00", "3650.00:00:00")]
    public TimeSpan MaxAge { get; set; } = TimeSpan.FromDays(180);
}
