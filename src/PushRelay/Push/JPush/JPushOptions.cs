using System.ComponentModel;
using PushRelay.Apps;
using PushRelay.Settings;

namespace PushRelay.Push.JPush;

/// <summary>Settings <c>Apps:N:JPush</c>: how an app is reached over JPush.</summary>
internal sealed class JPushOptions : ISettings
{
    private const int KeyCharsMax = 64;

    [Description("the app's key in JPush's console")]
    public string AppKey { get; set; } = "";

    [Secret]
    [Description("its master secret")]
    public string MasterSecret { get; set; } = "";

    [Description(
        "how much of a message JPush may read; its terms forbid readable private conversations. "
            + "Of a device with `encryption` it reads nothing, and the phone shows all"
    )]
    public AlertPreview Preview { get; set; } = AlertPreview.None;

    [Description("`https://host:port` instead of JPush's `https://api.jpush.cn`; `https://bjapi.push.jiguang.cn` for apps in Beijing")]
    public string? Endpoint { get; set; }

    [Description("a PEM file with a private authority for `Endpoint`")]
    public string? TrustedCertificateFile { get; set; }

    public Uri EndpointUri => new(string.IsNullOrEmpty(Endpoint) ? "https://api.jpush.cn" : Endpoint);

    public void Check(SettingsCheck check)
    {
        if (!IsKey(AppKey))
        {
            check.Wrong(nameof(AppKey), AppKey, "the app's key as JPush's console shows it, letters and digits");
        }

        if (MasterSecret.Length == 0)
        {
            check.Report(nameof(MasterSecret), "is missing; name the app's master secret, or MasterSecretFile.");
        }
        else if (!IsKey(MasterSecret))
        {
            check.Report(nameof(MasterSecret), "must be the app's master secret as JPush's console shows it, letters and digits.");
        }

        NetworkSettings.CheckOrigin(check, nameof(Endpoint), Endpoint, "JPush's");
        TrustedCertificateFile = NetworkSettings.CheckCertificates(check, nameof(TrustedCertificateFile), TrustedCertificateFile);
    }

    private static bool IsKey(string text) => text.Length is > 0 and <= KeyCharsMax && text.All(char.IsAsciiLetterOrDigit);
}
