using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Rig.Networks;

/// <summary>
/// The receiver's side of message encryption, written from RFC 8188 and RFC 8291 and not from the relay's code: any record size, any
/// number of records.
/// </summary>
internal static class MessageDecryption
{
    private const int TagBytes = 16;

    /// <summary>The text of a message in content coding <c>aes128gcm</c> whose input keying material is known (RFC 8188).</summary>
    /// <exception cref="CryptographicException">It cannot be opened, or is not formed as the coding demands.</exception>
    public static byte[] Decode(ReadOnlySpan<byte> message, ReadOnlySpan<byte> inputKey)
    {
        var header = Header.Read(message);
        var mixed = HKDF.Extract(HashAlgorithmName.SHA256, inputKey.ToArray(), header.Salt);
        var key = HKDF.Expand(HashAlgorithmName.SHA256, mixed, 16, Encoding.ASCII.GetBytes("Content-Encoding: aes128gcm\0"));
        var nonce = HKDF.Expand(HashAlgorithmName.SHA256, mixed, 12, Encoding.ASCII.GetBytes("Content-Encoding: nonce\0"));
        using var cipher = new AesGcm(key, TagBytes);
        var text = new MemoryStream();
        var rest = message[header.Bytes..];
        for (ulong record = 0; ; record++)
        {
            var bytes = Math.Min(rest.Length, header.RecordBytes);
            if (bytes <= TagBytes)
            {
                throw new CryptographicException("A record is shorter than its tag and delimiter.");
            }

            var content = new byte[bytes - TagBytes];
            cipher.Decrypt(NonceOf(nonce, record), rest[..content.Length], rest[content.Length..bytes], content);
            var end = Array.FindLastIndex(content, octet => octet != 0);
            rest = rest[bytes..];
            if (end < 0 || content[end] != (rest.IsEmpty ? 2 : 1))
            {
                throw new CryptographicException("A record does not end in the delimiter of its place.");
            }

            text.Write(content, 0, end);
            if (rest.IsEmpty)
            {
                return text.ToArray();
            }
        }
    }

    /// <summary>The text of a Web Push message (RFC 8291): one record, the sender's public key as the key's name.</summary>
    /// <exception cref="CryptographicException">It cannot be opened with this receiver's keys, or is not formed as demanded.</exception>
    public static byte[] Open(ReadOnlySpan<byte> message, ECDiffieHellman receiver, ReadOnlySpan<byte> auth)
    {
        var header = Header.Read(message);
        if (header.KeyId is not { Length: 65 } || header.KeyId[0] != 4)
        {
            throw new CryptographicException("The key's name is no uncompressed point.");
        }

        if (message.Length - header.Bytes > header.RecordBytes)
        {
            throw new CryptographicException("There is more than one record.");
        }

        using var sender = ECDiffieHellman.Create(
            new ECParameters
            {
                Curve = ECCurve.NamedCurves.nistP256,
                Q = new ECPoint { X = header.KeyId[1..33], Y = header.KeyId[33..] },
            }
        );
        var own = receiver.ExportParameters(includePrivateParameters: false).Q;
        byte[] info = [.. Encoding.ASCII.GetBytes("WebPush: info\0"), 4, .. own.X!, .. own.Y!, .. header.KeyId];
        var agreed = receiver.DeriveRawSecretAgreement(sender.PublicKey);
        return Decode(message, HKDF.DeriveKey(HashAlgorithmName.SHA256, agreed, 32, auth.ToArray(), info));
    }

    private static byte[] NonceOf(byte[] nonce, ulong record)
    {
        var own = (byte[])nonce.Clone();
        var number = own.AsSpan(4);
        BinaryPrimitives.WriteUInt64BigEndian(number, BinaryPrimitives.ReadUInt64BigEndian(number) ^ record);
        return own;
    }

    private sealed record Header(byte[] Salt, int RecordBytes, byte[] KeyId)
    {
        public int Bytes => 21 + KeyId.Length;

        public static Header Read(ReadOnlySpan<byte> message)
        {
            if (message.Length < 21 || message.Length < 21 + message[20])
            {
                throw new CryptographicException("The header is cut.");
            }

            var recordBytes = BinaryPrimitives.ReadUInt32BigEndian(message[16..]);
            return recordBytes is < 18 or > int.MaxValue
                ? throw new CryptographicException("The record size is below 18.")
                : new Header(message[..16].ToArray(), (int)recordBytes, message.Slice(21, message[20]).ToArray());
        }
    }
}
