using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Secrets;

/// <summary>
/// The key outside the database that makes a copy of the database useless on its own. One key of 32 bytes, and from it by HKDF one
/// for each purpose: tokens and message bodies are sealed (AES-256-GCM, a random nonce, bound to the row and column they stand in),
/// tokens are found and names disguised by HMAC-SHA256. While one key is being replaced there are several: the first writes, every one
/// reads.
/// </summary>
internal sealed class MasterKey
{
    public const int KeyBytes = 32;

    private const int NonceBytes = 12;
    private const int TagBytes = 16;
    private const int StackMax = 512;

    private readonly Derived[] keys;

    /// <param name="keys">The one that writes, and older ones.</param>
    public MasterKey(params IReadOnlyList<byte[]> keys)
    {
        if (keys.Count == 0 || keys.Any(key => key.Length != KeyBytes))
        {
            throw new ArgumentException("A master key has 32 bytes.", nameof(keys));
        }

        this.keys = [.. keys.Select(key => new Derived(Derive(key, "pushrelay sealing"u8), Derive(key, "pushrelay naming"u8)))];
    }

    /// <summary>What the database keeps to recognise its key by; tells nothing about it. Of the key that writes.</summary>
    public string Fingerprint => Fingerprints[0];

    /// <summary>Of every key there is, in their order.</summary>
    public IReadOnlyList<string> Fingerprints => [.. Macs("fingerprint").Select(Convert.ToHexStringLower)];

    /// <summary>Seals text for one place; the same text in another row, or the same row's other column, cannot be opened.</summary>
    public byte[] Seal(string text, string table, Guid row, string column)
    {
        var plain = Encoding.UTF8.GetBytes(text);
        var result = new byte[NonceBytes + plain.Length + TagBytes];
        RandomNumberGenerator.Fill(result.AsSpan(0, NonceBytes));
        keys[0]
            .Seal(
                result.AsSpan(0, NonceBytes),
                plain,
                result.AsSpan(NonceBytes, plain.Length),
                result.AsSpan(NonceBytes + plain.Length),
                Place(table, row, column)
            );
        return result;
    }

    /// <exception cref="CryptographicException">Another key, another place, or a changed byte.</exception>
    public string Open(ReadOnlySpan<byte> sealedText, string table, Guid row, string column) => Open(sealedText, table, row, column, out _);

    /// <summary>The same text sealed with the key that writes; null where it is already.</summary>
    /// <exception cref="CryptographicException">No key here opens it.</exception>
    public byte[]? Reseal(byte[] sealedText, string table, Guid row, string column)
    {
        var text = Open(sealedText, table, row, column, out var opener);
        return opener == 0 ? null : Seal(text, table, row, column);
    }

    /// <summary>32 bytes that only this relay can make of these words. Words are kept apart: ("a","bc") and ("ab","c") differ.</summary>
    public byte[] Mac(string purpose, params ReadOnlySpan<string> words) => Mac(keys[0], purpose, words);

    /// <summary><see cref="Mac(string, ReadOnlySpan{string})"/> under each key: what was made before the key was replaced is among
    /// them.</summary>
    public IReadOnlyList<byte[]> Macs(string purpose, params ReadOnlySpan<string> words)
    {
        var macs = new byte[keys.Length][];
        for (var i = 0; i < keys.Length; i++)
        {
            macs[i] = Mac(keys[i], purpose, words);
        }

        return macs;
    }

    private string Open(ReadOnlySpan<byte> sealedText, string table, Guid row, string column, out int opener)
    {
        if (sealedText.Length < NonceBytes + TagBytes)
        {
            throw new CryptographicException("A sealed text is too short.");
        }

        var (plain, place) = (new byte[sealedText.Length - NonceBytes - TagBytes], Place(table, row, column));
        for (opener = 0; ; opener++)
        {
            try
            {
                keys[opener].Open(sealedText[..NonceBytes], sealedText[NonceBytes..^TagBytes], sealedText[^TagBytes..], plain, place);
                return Encoding.UTF8.GetString(plain);
            }
            catch (AuthenticationTagMismatchException) when (opener < keys.Length - 1)
            {
                // sealed with an older one
            }
        }
    }

    private static byte[] Mac(Derived key, string purpose, ReadOnlySpan<string> words)
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

        return key.Name(text);
    }

    private static byte[] Derive(byte[] key, ReadOnlySpan<byte> purpose) =>
        HKDF.DeriveKey(HashAlgorithmName.SHA256, key, KeyBytes, info: purpose.ToArray());

    private static int Measure(string word) => sizeof(int) + Encoding.UTF8.GetByteCount(word);

    private static Span<byte> Put(string word, Span<byte> to)
    {
        var bytes = Encoding.UTF8.GetBytes(word, to[sizeof(int)..]);
        BinaryPrimitives.WriteInt32LittleEndian(to, bytes);
        return to[(sizeof(int) + bytes)..];
    }

    private static byte[] Place(string table, Guid row, string column) => Encoding.UTF8.GetBytes($"{table}/{row:D}/{column}");

    /// <summary>
    /// What one key does. The library's objects serve one caller at a time, and making one costs twice what it then does: they are kept,
    /// as many as were ever used at once.
    /// </summary>
    private sealed class Derived(byte[] sealing, byte[] naming)
    {
        private readonly ConcurrentBag<AesGcm> sealers = [];
        private readonly ConcurrentBag<IncrementalHash> namers = [];

        public void Seal(ReadOnlySpan<byte> nonce, ReadOnlySpan<byte> plain, Span<byte> text, Span<byte> tag, ReadOnlySpan<byte> place)
        {
            var sealer = TakeSealer();
            sealer.Encrypt(nonce, plain, text, tag, place);
            sealers.Add(sealer);
        }

        /// <exception cref="AuthenticationTagMismatchException">Another key, another place, or a changed byte.</exception>
        public void Open(
            ReadOnlySpan<byte> nonce,
            ReadOnlySpan<byte> text,
            ReadOnlySpan<byte> tag,
            Span<byte> plain,
            ReadOnlySpan<byte> place
        )
        {
            var sealer = TakeSealer();
            try
            {
                sealer.Decrypt(nonce, text, tag, plain, place);
            }
            finally
            {
                sealers.Add(sealer);
            }
        }

        public byte[] Name(ReadOnlySpan<byte> text)
        {
            var namer = namers.TryTake(out var kept) ? kept : IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, naming);
            namer.AppendData(text);
            var name = namer.GetHashAndReset();
            namers.Add(namer);
            return name;
        }

        private AesGcm TakeSealer() => sealers.TryTake(out var kept) ? kept : new AesGcm(sealing, TagBytes);
    }
}
