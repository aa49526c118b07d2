using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;

namespace PushRelay.Secrets;

/// <summary>
/// The key outside the database, without which a copy of the database does not show tokens and texts. HKDF derives two keys from its 32
/// bytes: one seals tokens and message texts (AES-256-GCM, random nonce, bound to row and column), one makes its fingerprint. During a
/// rotation there are several master keys: the first seals, all of them open. Names (HMAC-SHA256), by which tokens are found and
/// conversations, receipts and secrets are made, have a key of their own, which the database keeps, sealed: a rotation never changes it.
/// Thread-safe.
/// </summary>
internal sealed class MasterKey
{
    public const int KeyBytes = 32;

    private const int NonceBytes = 12;
    private const int TagBytes = 16;
    private const int StackMax = 512;

    private const string NamingTable = "known_keys";
    private const string NamingColumn = "naming";

    private readonly Derived[] keys;

    // null: not read from the database yet; the first master key's own names are used until then
    private Derived? naming;

    /// <param name="keys">The one that seals, then older ones.</param>
    public MasterKey(params IReadOnlyList<byte[]> keys)
    {
        if (keys.Count == 0 || keys.Any(key => key.Length != KeyBytes))
        {
            throw new ArgumentException("A master key has 32 bytes.", nameof(keys));
        }

        this.keys = [.. keys.Select(key => new Derived(Derive(key, "pushrelay sealing"u8), Derive(key, "pushrelay naming"u8)))];
    }

    /// <summary>By this the database recognises its key; it does not help to find the key. Of the key that seals.</summary>
    public string Fingerprint => Fingerprints[0];

    /// <summary>Of each key, in order.</summary>
    public IReadOnlyList<string> Fingerprints => [.. keys.Select(key => Convert.ToHexStringLower(Mac(key, "fingerprint", [])))];

    /// <summary>A new naming key, as the database keeps it.</summary>
    public byte[] NewNaming() =>
        Seal(Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(KeyBytes)), NamingTable, Guid.Empty, NamingColumn);

    /// <summary>Names are made with the database's naming key from here on.</summary>
    /// <exception cref="CryptographicException">No key opens it.</exception>
    public void UseNaming(byte[] sealedNaming)
    {
        var key = Convert.FromHexString(Open(sealedNaming, NamingTable, Guid.Empty, NamingColumn));
        naming = new Derived(key, key);
    }

    /// <summary>The same naming key sealed with the first master key.</summary>
    public byte[] ResealNaming(byte[] sealedNaming) => Reseal(sealedNaming, NamingTable, Guid.Empty, NamingColumn) ?? sealedNaming;

    /// <summary>Seals a text for one row and column: copied to another row or column it cannot be opened.</summary>
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

    /// <summary>The same text sealed with the first key; null if it is already.</summary>
    /// <exception cref="CryptographicException">No key opens it.</exception>
    public byte[]? Reseal(byte[] sealedText, string table, Guid row, string column)
    {
        var text = Open(sealedText, table, row, column, out var opener);
        return opener == 0 ? null : Seal(text, table, row, column);
    }

    /// <summary>32 bytes that only a holder of the naming key can make from these words; ("a","bc") and ("ab","c") differ.</summary>
    public byte[] Mac(string purpose, params ReadOnlySpan<string> words) => Mac(naming ?? keys[0], purpose, words);

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
                // sealed with an older key: try that
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
    /// The two keys derived from one master key. The library's objects are not thread-safe, and creating one costs twice as much as using
    /// it: they are pooled, as many as were ever used at once.
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
