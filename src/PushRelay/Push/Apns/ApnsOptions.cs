using System.ComponentModel;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using PushRelay.Apns;
using PushRelay.Settings;

namespace PushRelay.Push.Apns;

/// <summary>Settings <c>Apps:N:Apns</c>: how an app is reached over APNs, with a signing key of Apple's developer account or a
/// certificate of the app.</summary>
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
    [Description("the signing key, the text of the `.p8` file, also in one line with `\\n` for line ends, or its base64")]
    public string Key { get; set; } = "";

    [Description("the app's certificate with its private key, `.p12` or PEM, instead of `TeamId`, `KeyId` and `Key`")]
    public string? CertificateFile { get; set; }

    [Secret]
    [Description("opens `CertificateFile`")]
    public string CertificatePassword { get; set; } = "";

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
        if (ByCertificate)
        {
            CheckClientCertificate(check);
        }
        else
        {
            CheckKey(check);
        }

        if (!ByCertificate && !IsAppleId(TeamId))
        {
            check.Wrong(nameof(TeamId), TeamId, "the 10 letters and digits of the developer team");
        }

        if (!ByCertificate && !IsAppleId(KeyId))
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

        CheckCertificates(check);
    }

    private bool ByCertificate => !string.IsNullOrEmpty(CertificateFile);

    /// <summary>Of options that passed <see cref="Check"/>; null where the app has a certificate.</summary>
    public ApnsSigningKey? OpenKey() => ByCertificate ? null : ApnsSigningKey.FromPem(TeamId, KeyId, KeyText.Pem(Key));

    /// <summary>Of options that passed <see cref="Check"/>, with its private key; null where the app has a signing key.</summary>
    public X509Certificate2? OpenCertificate()
    {
        if (!ByCertificate)
        {
            return null;
        }

        var bytes = File.ReadAllBytes(CertificateFile!);
        var password = CertificatePassword.Length == 0 ? null : CertificatePassword;
        if (bytes.AsSpan().IndexOf("-----BEGIN"u8) < 0)
        {
            return X509CertificateLoader.LoadPkcs12(bytes, password);
        }

        var pem = System.Text.Encoding.ASCII.GetString(bytes);
        return password is null ? X509Certificate2.CreateFromPem(pem, pem) : X509Certificate2.CreateFromEncryptedPem(pem, pem, password);
    }

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
            check.Report("KeyFile", "is missing; name the .p8 file of the signing key, or the app's certificate in CertificateFile.");
            return;
        }

        try
        {
            // of a wrong team or key id is said elsewhere
            ApnsSigningKey.FromPem(AnyAppleId, AnyAppleId, KeyText.Pem(Key)).Dispose();
        }
        catch (FormatException exception)
        {
            check.Report(
                check.GivenAs(nameof(Key)),
                $"is no APNs signing key: {exception.Message} Cure: name the .p8 file in KeyFile, or put its text into Key."
            );
        }
    }

    private void CheckClientCertificate(SettingsCheck check)
    {
        if (TeamId.Length + KeyId.Length + Key.Length > 0)
        {
            check.Report(
                nameof(CertificateFile),
                "is given beside TeamId, KeyId or Key. Cure: give the certificate, or the signing key with its ids, not both."
            );
        }

        CertificateFile = check.Resolve(CertificateFile!);
        try
        {
            using var certificate = OpenCertificate();
            if (!certificate!.HasPrivateKey)
            {
                check.Report(
                    nameof(CertificateFile),
                    $"'{CertificateFile}' has no private key. Cure: export the certificate together with its key, as .p12 or PEM."
                );
            }
        }
        catch (Exception exception)
            when (exception is IOException or UnauthorizedAccessException or CryptographicException or ArgumentException)
        {
            check.Report(
                nameof(CertificateFile),
                $"'{CertificateFile}' cannot be used: {exception.Message} Cure: name the .p12 or PEM file with the app's certificate and "
                    + "its private key, and its password in CertificatePassword."
            );
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
