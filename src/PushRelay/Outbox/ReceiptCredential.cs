using System.Buffers.Text;
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
}
