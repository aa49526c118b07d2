using System.ComponentModel;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using PushRelay.Push.Connections;
using PushRelay.Settings;

namespace PushRelay.Push;

/// <summary>Settings <c>Network</c>: how push networks are reached, all of them.</summary>
internal sealed class NetworkOptions : ISettings
{
    [Secret]
    [Description("`http://host:port` or `http://user:password@host:port`: every connection to a push network goes through it (CONNECT)")]
    public string? Proxy { get; set; }

    public void Check(SettingsCheck check)
    {
        if (!string.IsNullOrEmpty(Proxy) && !PushProxy.TryRead(Proxy, out _))
        {
            // it may hold a password
            check.Report(nameof(Proxy), $"cannot be read; {PushProxy.Must}.");
        }
    }

    /// <summary>Of options that passed <see cref="Check"/>; null: no proxy.</summary>
    public PushProxy? OpenProxy() =>
        string.IsNullOrEmpty(Proxy) ? null
        : PushProxy.TryRead(Proxy, out var proxy) ? proxy
        : null;
}

/// <summary>What the networks' own settings have in common.</summary>
internal static class NetworkSettings
{
    /// <summary>A host instead of the network's own: an origin, nothing after it.</summary>
    public static void CheckOrigin(SettingsCheck check, string name, string? value, string whose)
    {
        if (
            !string.IsNullOrEmpty(value)
            && !(Uri.TryCreate(value, UriKind.Absolute, out var uri) && uri is { Scheme: "https", PathAndQuery: "/", UserInfo: "" })
        )
        {
            check.Wrong(name, value, $"https://host:port, or null for {whose}");
        }
    }

    /// <returns>The file's full path.</returns>
    public static string? CheckCertificates(SettingsCheck check, string name, string? file)
    {
        if (string.IsNullOrEmpty(file))
        {
            return null;
        }

        var path = check.Resolve(file);
        try
        {
            OpenCertificates(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or CryptographicException)
        {
            check.Report(name, $"'{path}' cannot be used: {exception.Message} Cure: name a PEM file with the CA's certificate.");
        }

        return path;
    }

    /// <summary>Null: the machine's own authorities count.</summary>
    public static X509Certificate2Collection? OpenCertificates(string? path)
    {
        if (string.IsNullOrEmpty(path))
        {
            return null;
        }

        var certificates = new X509Certificate2Collection();
        certificates.ImportFromPemFile(path);
        return certificates.Count > 0 ? certificates : throw new IOException("it holds no certificate.");
    }
}
