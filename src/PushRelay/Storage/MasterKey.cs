using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Storage;

/// <summary>
/// The key outside the database that makes a copy of the database useless on its own. One key of 32 bytes, and from it by HKDF one
/// for each purpose: tokens and message bodies are sealed (AES-256-GCM, a random nonce, bound to the row and column they stand in),
/// tokens are found and names disguised by HMAC-SHA256.
/// </summary>
internal sealed class MasterKey
{
    private const int NonceBytes = 12;
    private const int TagBytes = 16;
    private const int StackMax = 512;

    private readonly byte[] sealing;
    private readonly byte[] naming;

    public MasterKey(byte[] key)
    {
        if (key.Length != 32)
        {
            throw new ArgumentException("A master key has 32 bytes.", nameof(key));
        }

        sealing = HKDF.DeriveKey(HashAlgorithmName.SHA256, key, 32, info: "pushrelay sealing"u8.ToArray());
        naming = HKDF.DeriveKey(HashAlgorithmName.SHA256, key, 32, info: "pushrelay naming"u8.ToArray());
    }

    /// <summary>What the database keeps to recognise its key by; tells nothing about it.</summary>
    public string Fingerprint => Convert.ToHexStringLower(Mac("fingerprint"));

    /// <summary>Seals text for one place; the same text in another row, or the same row's other column, cannot be opened.</summary>
    public byte[] Seal(string text, string table, Guid row, string column)
    {
        var plain = Encoding.UTF8.GetBytes(text);
        var result = new byte[NonceBytes + plain.Length + TagBytes];
        RandomNumberGenerator.Fill(result.AsSpan(0, NonceBytes));
        using var aes = new AesGcm(sealing, TagBytes);
        aes.Encrypt(result.AsSpan(0, NonceBytes), plain, result.AsSpan(NonceBytes, plain.Length), result.AsSpan(NonceBytes + plain.Length), Place(table, row, column));
        return result;
    }

    /// <exception cref="CryptographicException">Another key, another place, or a changed byte.</exception>
    public string Open(ReadOnlySpan<byte> sealedText, string table, Guid row, string column)
    {
        if (sealedText.Length < NonceBytes + TagBytes)
        {
            throw new CryptographicException("A sealed text is too short.");
        }

        var plain = new byte[sealedText.Length - NonceBytes - TagBytes];
        using var aes = new AesGcm(sealing, TagBytes);
        aes.Decrypt(sealedText[..NonceBytes], sealedText[NonceBytes..^TagBytes], sealedText[^TagBytes..], plain, Place(table, row, column));
        return Encoding.UTF8.GetString(plain);
    }

    /// <summary>32 bytes that only this relay can make of these words. Words are kept apart: ("a","bc") and ("ab","c") differ.</summary>
    public byte[] Mac(string purpose, params ReadOnlySpan<string> words)
    {
        var bytes = Measure(purpose);
        foreach (var word in words)
        {
            bytes += Measure(word);
        }

        // one call into the cryptography library instead of one for each word
        var text = bytes <= StackMax ? stackalloc byte[bytes] : new byte[bytes];
        var rest = Put(purpose, text);
        foreach (var word in words)
        {
            rest = Put(word, rest);
        }

        return HMACSHA256.HashData(naming, text);
    }

    private static int Measure(string word) => sizeof(int) + Encoding.UTF8.GetByteCount(word);

    private static Span<byte> Put(string word, Span<byte> to)
    {
        var bytes = Encoding.UTF8.GetBytes(word, to[sizeof(int)..]);
        BinaryPrimitives.WriteInt32LittleEndian(to, bytes);
        return to[(sizeof(int) + bytes)..];
    }

    private static byte[] Place(string table, Guid row, string column) => Encoding.UTF8.GetBytes($"{table}/{row:D}/{column}");
}
