using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace PushRelay.Apns.Simulator;

/// <summary>An authority made for one run, and the server certificate it signed. Nothing is written to disk or to a store.</summary>
internal sealed class SimulatorCertificates : IDisposable
{
    private SimulatorCertificates(string caPem, X509Certificate2 server)
    {
        CaPem = caPem;
        Server = server;
    }

    public string CaPem { get; }

    public X509Certificate2 Server { get; }

    /// <summary>Valid from a day ago for two years by the machine's clock, which is the one the sender's TLS goes by.</summary>
    public static SimulatorCertificates Create(IEnumerable<string> hostNames)
    {
        var from = TimeProvider.System.GetUtcNow().AddDays(-1);
        var to = from.AddYears(2);
        using var caKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var caRequest = new CertificateRequest("CN=PushRelay APNs simulator CA", caKey, HashAlgorithmName.SHA256);
        caRequest.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, true, 0, true));
        caRequest.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        caRequest.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(caRequest.PublicKey, false));
        using var ca = caRequest.CreateSelfSigned(from, to);

        using var serverKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=PushRelay APNs simulator", serverKey, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        foreach (var name in hostNames.Concat(["localhost", "127.0.0.1", "::1"]).Distinct(StringComparer.OrdinalIgnoreCase))
        {
            if (IPAddress.TryParse(name, out var address))
            {
                names.AddIpAddress(address);
            }
            else
            {
                names.AddDnsName(name);
            }
        }

        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(ca, true, false));
        using var bare = request.Create(ca, from, to, RandomNumberGenerator.GetBytes(16));
        return new SimulatorCertificates(ca.ExportCertificatePem() + "\n", bare.CopyWithPrivateKey(serverKey));
    }

    public void Dispose() => Server.Dispose();
}
