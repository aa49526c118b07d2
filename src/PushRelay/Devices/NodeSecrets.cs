using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Secrets;

namespace PushRelay.Devices;

/// <summary>The XEP-0357 publish option <c>secret</c> of each node: made with the naming key, stored nowhere.</summary>
internal sealed class NodeSecrets(MasterKey masterKey)
{
    private const int SecretBytes = 18;

    public string Of(string node) => Base64Url.EncodeToString(masterKey.Mac("node secret", node).AsSpan(0, SecretBytes));

    /// <summary>In the same time for any two texts.</summary>
    public bool Is(string node, string? secret) =>
        CryptographicOperations.FixedTimeEquals(
            SHA256.HashData(Encoding.UTF8.GetBytes(Of(node))),
            SHA256.HashData(Encoding.UTF8.GetBytes(secret ?? ""))
        );
}
