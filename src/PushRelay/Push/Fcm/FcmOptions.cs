using System.ComponentModel;
using PushRelay.Settings;

namespace PushRelay.Push.Fcm;

/// <summary>Settings <c>Apps:N:Fcm</c>: how an app is reached over FCM, with a service account of its Firebase project.</summary>
internal sealed class FcmOptions : ISettings
{
    [Secret]
    [Description("the key file of a service account that may send messages for the Firebase project, as the console gives it (JSON)")]
    public string Credentials { get; set; } = "";

    [Description("`https://host:port` instead of Google's `https://fcm.googleapis.com`")]
    public string? Endpoint { get; set; }

    [Description("a full URL instead of the credentials' `token_uri`; the assertion still names that")]
    public string? TokenEndpoint { get; set; }

    [Description("a PEM file with a private authority for `Endpoint` and `TokenEndpoint`")]
    public string? TrustedCertificateFile { get; set; }

    public Uri EndpointUri => new(string.IsNullOrEmpty(Endpoint) ? "https://fcm.googleapis.com" : Endpoint);

    public void Check(SettingsCheck check)
    {
        NetworkSettings.CheckOrigin(check, nameof(Endpoint), Endpoint, "Google's");
        if (
            !string.IsNullOrEmpty(TokenEndpoint)
            && !(Uri.TryCreate(TokenEndpoint, UriKind.Absolute, out var uri) && uri is { Scheme: "https", UserInfo: "", Fragment: "" })
        )
        {
            check.Wrong(nameof(TokenEndpoint), TokenEndpoint, "an https URL, or null for the credentials' token_uri");
        }

        TrustedCertificateFile = NetworkSettings.CheckCertificates(check, nameof(TrustedCertificateFile), TrustedCertificateFile);
        if (Credentials.Length == 0)
        {
            check.Report("CredentialsFile", "is missing; name the JSON key file of the service account.");
            return;
        }

        try
        {
            OpenAccount().Dispose();
        }
        catch (FormatException exception)
        {
            check.Report(
                check.GivenAs(nameof(Credentials)),
                $"is no key file of a service account: {exception.Message} Cure: name the JSON file that the Firebase console gives "
                    + "(Project settings, Service accounts, Generate new private key)."
            );
        }
    }

    /// <summary>Of options that passed <see cref="Check"/>.</summary>
    public ServiceAccount OpenAccount() => ServiceAccount.FromJson(KeyText.Json(Credentials));
}
