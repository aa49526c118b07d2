using System.ComponentModel;
using PushRelay.Settings;

namespace PushRelay.Push.WebPush;

/// <summary>Settings <c>Apps:N:WebPush</c>: how browsers and UnifiedPush apps are reached, and who says to be the sender.</summary>
internal sealed class WebPushOptions : ISettings
{
    [Secret]
    [Description("the VAPID key, PEM on the curve P-256; `pushrelay webpush key` makes one. Kept for life: subscriptions are bound to it")]
    public string PrivateKey { get; set; } = "";

    [Description("whom push services may turn to: `mailto:` and an address, or an https URL")]
    public string Subject { get; set; } = "";

    [Description("the only push services that devices may name, exact names or `*.suffix`; empty: any")]
    public List<string> AllowedHosts { get; set; } = [];

    [Description(
        "push services may stand inside of networks too: for UnifiedPush on a LAN. Devices then reach whatever this machine reaches"
    )]
    public bool AllowPrivateNetworks { get; set; }

    [Description("a PEM file with a private authority for push services of one's own")]
    public string? TrustedCertificateFile { get; set; }

    public void Check(SettingsCheck check)
    {
        if (!VapidKey.IsSubject(Subject))
        {
            check.Wrong(nameof(Subject), Subject, "mailto: and one address, such as mailto:ops@example.com, or an https URL");
        }

        for (var i = 0; i < AllowedHosts.Count; i++)
        {
            if (!PushEndpoint.IsHostPattern(AllowedHosts[i]))
            {
                check.Wrong($"{nameof(AllowedHosts)}:{i}", AllowedHosts[i], "a host name, or *. and the end of host names");
            }
        }

        TrustedCertificateFile = NetworkSettings.CheckCertificates(check, nameof(TrustedCertificateFile), TrustedCertificateFile);
        if (PrivateKey.Length == 0)
        {
            check.Report("PrivateKeyFile", "is missing; make a key with: pushrelay webpush key > vapid.pem");
            return;
        }

        try
        {
            OpenKey().Dispose();
        }
        catch (FormatException exception)
        {
            check.Report(
                check.GivenAs(nameof(PrivateKey)),
                $"is no VAPID key: {exception.Message} Cure: name the one that subscriptions were made with, or make one with: "
                    + "pushrelay webpush key"
            );
        }
    }

    /// <summary>Of options that passed <see cref="Check"/>.</summary>
    public VapidKey OpenKey() => VapidKey.FromPem(KeyText.Pem(PrivateKey), Subject);
}
