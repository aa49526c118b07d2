using System.ComponentModel;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using PushRelay.Apns;
using PushRelay.Settings;

namespace PushRelay.Push.Apns;

/// <summary>Settings <c>Apps:N:Apns</c>: how an app is reached over APNs, with a signing key of Apple's developer account.</summary>
internal sealed class ApnsOptions : ISettings
{
    private const string AnyAppleId = "0000000000";
    private const string AppleHost = "api.push.apple.com";
    private const string AppleSandboxHost = "api.sandbox.push.apple.com";

    [Description("10 letters and digits: the developer team")]
    public string TeamId { get; set; } = "";

    [Description("10 letters and digits, also in the name of the `.p8` file")]
    public string KeyId { get; set; } = "";

    [Secret]
    [Description("the signing key, the text of the `.p8` file")]
    public string Key { get; set; } = "";

    [Description("the app's bundle id, such as `com.example.chat`")]
    public string BundleId { get; set; } = "";

    [Description("the environment of devices that do not say theirs")]
    public ApnsEnvironment Environment { get; set; } = ApnsEnvironment.Production;

    [Description("`https://host:port` instead of Apple's production host")]
    public string? Endpoint { get; set; }

    [Description("the same instead of Apple's sandbox host; without it Apple's, on the port of `Endpoint` if that is Apple's own host")]
    public string? SandboxEndpoint { get; set; }

    [Description("a PEM file with a private authority for `Endpoint`")]
    public string? TrustedCertificateFile { get; set; }

    /// <summary>Null: Apple's.</summary>
    public Uri? EndpointOf(ApnsEnvironment environment)
    {
        var text = environment == ApnsEnvironment.Production ? Endpoint : SandboxEndpoint;
        if (!string.IsNullOrEmpty(text))
        {
            return new Uri(text);
        }

        return environment == ApnsEnvironment.Sandbox && !string.IsNullOrEmpty(Endpoint) && new Uri(Endpoint) is { Host: AppleHost } own
            ? new UriBuilder("https", AppleSandboxHost, own.Port).Uri
            : null;
    }

    public void Check(SettingsCheck check)
    {
        if (!IsAppleId(TeamId))
        {
            check.Wrong(nameof(TeamId), TeamId, "the 10 letters and digits of the developer team");
        }

        if (!IsAppleId(KeyId))
        {
            check.Wrong(nameof(KeyId), KeyId, "the 10 letters and digits in the name of the .p8 file");
        }

        if (BundleId.Length is 0 or > 255 || !BundleId.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-'))
        {
            check.Wrong(nameof(BundleId), BundleId, "the app's bundle id, such as com.example.chat");
        }

        foreach (var (name, text) in ((string, string?)[])[(nameof(Endpoint), Endpoint), (nameof(SandboxEndpoint), SandboxEndpoint)])
        {
            if (
                !string.IsNullOrEmpty(text)
                && !(Uri.TryCreate(text, UriKind.Absolute, out var uri) && uri is { Scheme: "https", PathAndQuery: "/", UserInfo: "" })
            )
            {
                check.Wrong(name, text, "https://host:port, or null for Apple's");
            }
        }

        CheckKey(check);
        CheckCertificates(check);
    }

    /// <summary>Of options that passed <see cref="Check"/>.</summary>
    public ApnsSigningKey OpenKey() => ApnsSigningKey.FromPem(TeamId, KeyId, Key);

    /// <summary>Null: the machine's own authorities count.</summary>
    public X509Certificate2Collection? OpenTrustedCertificates()
    {
        if (string.IsNullOrEmpty(TrustedCertificateFile))
        {
            return null;
        }

        var certificates = new X509Certificate2Collection();
        certificates.ImportFromPemFile(TrustedCertificateFile);
        return certificates.Count > 0 ? certificates : throw new IOException("it holds no certificate.");
    }

    private void CheckKey(SettingsCheck check)
    {
        if (Key.Length == 0)
        {
            check.Report("KeyFile", "is missing; name the .p8 file of the signing key.");
            return;
        }

        try
        {
            // of a wrong team or key id is said elsewhere
            ApnsSigningKey.FromPem(AnyAppleId, AnyAppleId, Key).Dispose();
        }
        catch (FormatException exception)
        {
            check.Report("KeyFile", $"is no APNs signing key: {exception.Message} Cure: name the .p8 file as Apple gave it.");
        }
    }

    private void CheckCertificates(SettingsCheck check)
    {
        if (string.IsNullOrEmpty(TrustedCertificateFile))
        {
            return;
        }

        TrustedCertificateFile = check.Resolve(TrustedCertificateFile);
        try
        {
            OpenTrustedCertificates();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or CryptographicException)
        {
            check.Report(
                nameof(TrustedCertificateFile),
                $"'{TrustedCertificateFile}' cannot be used: {exception.Message} Cure: name a PEM file with the CA's certificate."
            );
        }
    }

    private static bool IsAppleId(string text) => text.Length == 10 && text.All(char.IsAsciiLetterOrDigit);
}
