using System.Buffers.Text;
using System.Security.Cryptography;
using PushRelay.Secrets;

namespace PushRelay.Outbox;

/// <summary>The credential of one delivery's receipt: its id and an HMAC of it, so that no table is needed and none can be
/// guessed.</summary>
internal static class Receipts
{
    private const int IdBytes = 16;
    private const int MacBytes = 16;

    public static string For(MasterKey masterKey, Guid delivery)
    {
        Span<byte> receipt = stackalloc byte[IdBytes + MacBytes];
        delivery.TryWriteBytes(receipt, bigEndian: true, out _);
        masterKey.Mac("receipt", delivery.ToString("D")).AsSpan(0, MacBytes).CopyTo(receipt[IdBytes..]);
        return Base64Url.EncodeToString(receipt);
    }

    /// <returns>False: we never made it.</returns>
    public static bool TryRead(MasterKey masterKey, string receipt, out Guid delivery)
    {
        delivery = Guid.Empty;
        Span<byte> bytes = stackalloc byte[IdBytes + MacBytes];
        if (
            receipt.Length != Base64Url.GetEncodedLength(bytes.Length)
            || !Base64Url.IsValid(receipt)
            || !Base64Url.TryDecodeFromChars(receipt, bytes, out var length)
            || length != bytes.Length
        )
        {
            return false;
        }

        var id = new Guid(bytes[..IdBytes], bigEndian: true);
        if (!CryptographicOperations.FixedTimeEquals(masterKey.Mac("receipt", id.ToString("D")).AsSpan(0, MacBytes), bytes[IdBytes..]))
        {
            return false;
        }

        delivery = id;
        return true;
    }
}
