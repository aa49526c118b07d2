using System.Security.Cryptography.X509Certificates;
using PushRelay.Apns;
using PushRelay.Settings;

namespace PushRelay.Apps;

/// <summary>Settings <c>Apps</c>: the apps that the operator owns.</summary>
internal sealed class AppsOptions
{
    public List<AppOptions> Apps { get; set; } = [];

    public void Check(SettingsFile file)
    {
        for (var i = 0; i < Apps.Count; i++)
        {
            Apps[i].Check($"Apps:{i}", file);
        }

        if (Apps.GroupBy(a => a.Id, StringComparer.Ordinal).FirstOrDefault(g => g.Count() > 1) is { } twice)
        {
            throw new SettingsException($"Apps has '{twice.Key}' twice; each Id must be there once.");
        }
    }
}

internal sealed class AppOptions
{
    public string Id { get; set; } = "";

    public AppApnsOptions Apns { get; set; } = new();

    public AppAlertOptions Alert { get; set; } = new();

    public void Check(string setting, SettingsFile file)
    {
        if (Id.Length is 0 or > 255 || Id.Any(char.IsControl))
        {
            throw new SettingsException($"{setting}:Id is '{Id}'; it must name the app, such as com.example.chat.");
        }

        Apns.Check($"{setting}:Apns", file);
    }
}

/// <summary>How an app's alerts reach APNs: a token signing key of Apple's developer account.</summary>
internal sealed class AppApnsOptions
{
    public string TeamId { get; set; } = "";

    public string KeyId { get; set; } = "";

    /// <summary>The text of the <c>.p8</c> file; usually from <c>KeyFile</c>.</summary>
    public string Key { get; set; } = "";

    public string BundleId { get; set; } = "";

    /// <summary>Of devices that do not say theirs.</summary>
    public ApnsEnvironment Environment { get; set; } = ApnsEnvironment.Production;

    /// <summary>Overrides Apple's host.</summary>
    public string? Endpoint { get; set; }

    /// <summary>PEM: a private CA for that endpoint.</summary>
    public string? TrustedCertificateFile { get; set; }

    public Uri? EndpointUri => string.IsNullOrEmpty(Endpoint) ? null : new Uri(Endpoint);

    public void Check(string setting, SettingsFile file)
    {
        Require(IsAppleId(TeamId), $"{setting}:TeamId", TeamId, "it must be the 10 letters and digits of the developer team");
        Require(IsAppleId(KeyId), $"{setting}:KeyId", KeyId, "it must be the 10 letters and digits in the name of the .p8 file");
        Require(
            BundleId.Length is > 0 and <= 255 && BundleId.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-'),
            $"{setting}:BundleId",
            BundleId,
            "it must be the app's bundle id, such as com.example.chat"
        );
        Require(
            string.IsNullOrEmpty(Endpoint)
                || (Uri.TryCreate(Endpoint, UriKind.Absolute, out var uri) && uri is { Scheme: "https", PathAndQuery: "/", UserInfo: "" }),
            $"{setting}:Endpoint",
            Endpoint,
            "it must be https://host:port, or null for Apple's"
        );
        if (Key.Length == 0)
        {
            throw new SettingsException($"{setting}:KeyFile is missing; name the .p8 file of the signing key.");
        }

        OpenKey(setting).Dispose();
        if (!string.IsNullOrEmpty(TrustedCertificateFile))
        {
            TrustedCertificateFile = file.Resolve(TrustedCertificateFile);
            OpenTrustedCertificates(setting);
        }
    }

    public ApnsSigningKey OpenKey(string setting)
    {
        try
        {
            return ApnsSigningKey.FromPem(TeamId, KeyId, Key);
        }
        catch (FormatException exception)
        {
            throw new SettingsException(
                $"{setting}:KeyFile is no APNs signing key: {exception.Message} Cure: name the .p8 file as Apple gave it.",
                exception
            );
        }
    }

    public X509Certificate2Collection? OpenTrustedCertificates(string setting)
    {
        if (string.IsNullOrEmpty(TrustedCertificateFile))
        {
            return null;
        }

        try
        {
            var certificates = new X509Certificate2Collection();
            certificates.ImportFromPemFile(TrustedCertificateFile);
            return certificates.Count > 0 ? certificates : throw new IOException("it holds no certificate.");
        }
        catch (Exception exception)
            when (exception is IOException or UnauthorizedAccessException or System.Security.Cryptography.CryptographicException)
        {
            throw new SettingsException(
                $"{setting}:TrustedCertificateFile '{TrustedCertificateFile}' cannot be used: {exception.Message} Cure: name a PEM "
                    + $"file with the CA's certificate.",
                exception
            );
        }
    }

    private static bool IsAppleId(string text) => text.Length == 10 && text.All(char.IsAsciiLetterOrDigit);

    private static void Require(bool holds, string setting, string? value, string must)
    {
        if (!holds)
        {
            throw new SettingsException($"{setting} is '{value}'; {must}.");
        }
    }
}

internal enum AlertPreview
{
    /// <summary>Sender and text.</summary>
    Full,

    /// <summary>The sender, but no text.</summary>
    Sender,

    /// <summary>Neither: only that there is something.</summary>
    None,
}

internal sealed class AppAlertOptions
{
    public AlertPreview Preview { get; set; } = AlertPreview.Full;

    /// <summary>A sound of the app's bundle; empty for none.</summary>
    public string Sound { get; set; } = "default";
}
