using System.Buffers.Text;
using System.Security.Cryptography;

namespace PushRelay.Rig.Networks;

/// <summary>The keys that a browser, or an app of ours, makes for itself: opens what was encrypted to it.</summary>
internal sealed class PushSubscriber : IDisposable
{
    private readonly ECDiffieHellman key = ECDiffieHellman.Create(ECCurve.NamedCurves.nistP256);
    private readonly byte[] auth = RandomNumberGenerator.GetBytes(16);

    public string P256dh
    {
        get
        {
            var q = key.ExportParameters(includePrivateParameters: false).Q;
            return Base64Url.EncodeToString([4, .. q.X!, .. q.Y!]);
        }
    }

    public string Auth => Base64Url.EncodeToString(auth);

    /// <summary>For another program that is to open the messages.</summary>
    public string PrivateKeyPem => key.ExportPkcs8PrivateKeyPem();

    /// <exception cref="CryptographicException">It is not for this receiver, or was changed.</exception>
    public byte[] Open(ReadOnlySpan<byte> message) => MessageDecryption.Open(message, key, auth);

    public void Dispose() => key.Dispose();
}
