using System.ComponentModel;
using PushRelay.Settings;

namespace PushRelay.Api;

/// <summary>Where the REST interface listens; stands at the top of the settings, where ASP.NET Core reads it.</summary>
internal sealed class ListenOptions : ISettings
{
    [Description("where the REST interface listens; several with `;`")]
    public string Urls { get; set; } = "http://127.0.0.1:8080";

    /// <summary>Each of them.</summary>
    /// <exception cref="FormatException">One is no address.</exception>
    public IReadOnlyList<BindingAddress> Addresses() =>
        [.. Urls.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(BindingAddress.Parse)];

    public void Check(SettingsCheck check)
    {
        try
        {
            if (Addresses().Count > 0)
            {
                return;
            }
        }
        catch (FormatException)
        {
            // said below
        }

        check.Wrong(nameof(Urls), Urls, "an address such as http://127.0.0.1:8080, or several with ;");
    }
}
