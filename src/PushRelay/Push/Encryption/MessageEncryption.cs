using System.Buffers.Binary;
using System.Security.Cryptography;

namespace PushRelay.Push.Encryption;

/// <summary>
/// Message encryption for Web Push (RFC 8291) with the content coding <c>aes128gcm</c> (RFC 8188): one record, a key pair and a salt of
/// its own for each message.
/// </summary>
internal static class MessageEncryption
{
    /// <summary>The whole message may have so many bytes: what every push service takes (RFC 8030 section 7.2).</summary>
    public const int MessageBytesMax = 4096;

    /// <summary>Salt, record size, length of the key's name, and the name: our public key.</summary>
    public const int HeaderBytes = SaltBytes + 4 + 1 + ReceiverKeys.PointBytes;

    /// <summary>A message is so much longer than its content: the text, the delimiter and the padding.</summary>
    public const int OverheadBytes = HeaderBytes + TagBytes;

    /// <summary>Contents come in multiples of this, so that their length says little of the text's.</summary>
    public const int PaddingBytes = 256;

    private const int SaltBytes = 16;
    private const int TagBytes = 16;
    private const byte LastRecord = 0x02;

    /// <summary>The longest text that a message of so many bytes can carry.</summary>
    public static int TextBytesMax(int messageBytesMax) => messageBytesMax - OverheadBytes - 1;

    /// <summary>The longest text of a message of so many bytes whose content is a whole multiple of <see cref="PaddingBytes"/>.</summary>
    public static int PaddedTextBytesMax(int messageBytesMax) =>
        Math.Max(0, ((messageBytesMax - OverheadBytes) / PaddingBytes * PaddingBytes) - 1);

    /// <summary>Encrypts a text, padded to the next multiple of <see cref="PaddingBytes"/> or to the most that fits.</summary>
    /// <exception cref="ArgumentException">The text is longer than <see cref="TextBytesMax"/>.</exception>
    public static byte[] Encrypt(ReadOnlySpan<byte> text, ReceiverKeys receiver, int messageBytesMax = MessageBytesMax)
    {
        using var sender = ECDiffieHellman.Create(ECCurve.NamedCurves.nistP256);
        var contentBytes = (text.Length + PaddingBytes) / PaddingBytes * PaddingBytes;
        Span<byte> salt = stackalloc byte[SaltBytes];
        RandomNumberGenerator.Fill(salt);
        return Encrypt(text, receiver, Math.Min(contentBytes, messageBytesMax - OverheadBytes), sender, salt);
    }

    /// <summary>With a given key pair and salt, for known answers: no two messages may have the same.</summary>
    internal static byte[] Encrypt(
        ReadOnlySpan<byte> text,
        ReceiverKeys receiver,
        int contentBytes,
        ECDiffieHellman sender,
        ReadOnlySpan<byte> salt
    )
    {
        if (text.Length >= contentBytes || contentBytes + OverheadBytes > MessageBytesMax)
        {
            throw new ArgumentException("The text does not fit into the message.", nameof(text));
        }

        var message = new byte[OverheadBytes + contentBytes];
        salt.CopyTo(message);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(SaltBytes), MessageBytesMax);
        message[SaltBytes + 4] = ReceiverKeys.PointBytes;
        var senderPoint = message.AsSpan(HeaderBytes - ReceiverKeys.PointBytes, ReceiverKeys.PointBytes);
        WritePoint(sender, senderPoint);

        Span<byte> input = stackalloc byte[32];
        using (var point = receiver.OpenPoint())
        {
            var agreed = sender.DeriveRawSecretAgreement(point.PublicKey);
            HKDF.DeriveKey(
                HashAlgorithmName.SHA256,
                agreed,
                input,
                receiver.Auth.Span,
                [.. "WebPush: info\0"u8, .. receiver.Point.Span, .. senderPoint]
            );
            CryptographicOperations.ZeroMemory(agreed);
        }

        Span<byte> mixed = stackalloc byte[32];
        HKDF.Extract(HashAlgorithmName.SHA256, input, salt, mixed);
        Span<byte> key = stackalloc byte[16];
        HKDF.Expand(HashAlgorithmName.SHA256, mixed, key, "Content-Encoding: aes128gcm\0"u8);
        Span<byte> nonce = stackalloc byte[12];
        HKDF.Expand(HashAlgorithmName.SHA256, mixed, nonce, "Content-Encoding: nonce\0"u8);

        // the padding is what the array has already: zeros
        var content = message.AsSpan(HeaderBytes, contentBytes);
        text.CopyTo(content);
        content[text.Length] = LastRecord;
        using var cipher = new AesGcm(key, TagBytes);
        cipher.Encrypt(nonce, content, content, message.AsSpan(HeaderBytes + contentBytes));
        return message;
    }

    private static void WritePoint(ECDiffieHellman key, Span<byte> point)
    {
        var q = key.ExportParameters(includePrivateParameters: false).Q;
        point[0] = 0x04;
        q.X.CopyTo(point[1..]);
        q.Y.CopyTo(point[33..]);
    }
}
