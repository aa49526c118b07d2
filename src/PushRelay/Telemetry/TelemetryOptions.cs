using System.ComponentModel;
using PushRelay.Settings;

namespace PushRelay.Telemetry;

/// <summary>Settings <c>Telemetry</c>.</summary>
internal sealed class TelemetryOptions : ISettings
{
    [Description(
        "`http://host:port` of a listener of its own for `/metrics`, open to all who reach it; without it `/metrics` is at `Urls`, for "
            + "operator keys"
    )]
    public string? MetricsUrl { get; set; }

    /// <summary>Null: none of its own.</summary>
    public BindingAddress? Listener => string.IsNullOrEmpty(MetricsUrl) ? null : BindingAddress.Parse(MetricsUrl);

    public void Check(SettingsCheck check)
    {
        try
        {
            if (Listener is null or { Port: > 0, PathBase: "", IsUnixPipe: false })
            {
                return;
            }
        }
        catch (FormatException)
        {
            // said below
        }

        check.Wrong(nameof(MetricsUrl), MetricsUrl, "an address without a path such as http://127.0.0.1:9464");
    }
}
