namespace PushRelay.Apns.Simulator.Http2;

/// <summary>
/// The string code of HPACK, RFC 7541 appendix B. It is canonical (codes ascend with length, then with symbol), so the lengths say it all.
/// </summary>
internal static class Huffman
{
    private const int LengthMax = 30;
    private const int EndOfString = 256;
    private const int FastBits = 8;

    private static ReadOnlySpan<byte> Lengths =>
        [
            13,
            23,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            24,
            30,
            28,
            28,
            30,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            30,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            28,
            6,
            10,
            10,
            12,
            13,
            6,
            8,
            11,
            10,
            10,
            8,
            11,
            8,
            6,
            6,
            6,
            5,
            5,
            5,
            6,
            6,
            6,
            6,
            6,
            6,
            6,
            7,
            8,
            15,
            6,
            12,
            10,
            13,
            6,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            7,
            8,
            7,
            8,
            13,
            19,
            13,
            14,
            6,
            15,
            5,
            6,
            5,
            6,
            5,
            6,
            6,
            6,
            5,
            7,
            7,
            6,
            6,
            6,
            5,
            6,
            7,
            6,
            5,
            5,
            6,
            7,
            7,
            7,
            7,
            7,
            15,
            11,
            14,
            13,
            28,
            20,
            22,
            20,
            20,
            22,
            22,
            22,
            23,
            22,
            23,
            23,
            23,
            23,
            23,
            24,
            23,
            24,
            24,
            22,
            23,
            24,
            23,
            23,
            23,
            23,
            21,
            22,
            23,
            22,
            23,
            23,
            24,
            22,
            21,
            20,
            22,
            22,
            23,
            23,
            21,
            23,
            22,
            22,
            24,
            21,
            22,
            23,
            23,
            21,
            21,
            22,
            21,
            23,
            22,
            23,
            23,
            20,
            22,
            22,
            22,
            23,
            22,
            22,
            23,
            26,
            26,
            20,
            19,
            22,
            23,
            22,
            25,
            26,
            26,
            26,
            27,
            27,
            26,
            24,
            25,
            19,
            21,
            26,
            27,
            27,
            26,
            27,
            24,
            21,
            21,
            26,
            26,
            28,
            27,
            27,
            27,
            20,
            24,
            20,
            21,
            22,
            21,
            21,
            23,
            22,
            22,
            25,
            25,
            24,
            24,
            26,
            23,
            26,
            27,
            26,
            26,
            27,
            27,
            27,
            27,
            27,
            28,
            27,
            27,
            27,
            27,
            27,
            26,
            30,
        ];

    /// <summary>Symbols in the order of their codes; for each length its first code, how many, and where they begin.</summary>
    private static readonly short[] Symbols =
    [
        .. Enumerable.Range(0, EndOfString + 1).Select(symbol => (short)symbol).OrderBy(symbol => Lengths[symbol]).ThenBy(symbol => symbol),
    ];

    private static readonly (uint FirstCode, int Count, int Offset)[] ByLength = MakeByLength();

    /// <summary>The next eight bits → symbol and length, for codes that short: nearly all of a header.</summary>
    private static readonly (byte Symbol, byte Length)[] Fast = MakeFast();

    public static int DecodedBytesMax(int encodedBytes) => (encodedBytes * 8 / 5) + 1;

    /// <summary>Returns how many bytes of <paramref name="target"/> (at least <see cref="DecodedBytesMax"/>) it filled.</summary>
    /// <exception cref="Http2ConnectionException">Not a valid code, or not padded as the RFC demands.</exception>
    public static int Decode(ReadOnlySpan<byte> source, Span<byte> target)
    {
        ulong bits = 0;
        var count = 0;
        var next = 0;
        var written = 0;
        while (true)
        {
            while (count <= 32 && next < source.Length)
            {
                bits = (bits << 8) | source[next++];
                count += 8;
            }

            var window = (byte)(count >= FastBits ? bits >> (count - FastBits) : (bits << (FastBits - count)) | (0xfful >> count));
            var (symbol, length) = Fast[window];
            if (length > 0 && length <= count)
            {
                target[written++] = symbol;
                count -= length;
            }
            else if (!TrySlow(bits, count, out var rare, out length))
            {
                // Section 5.2: what is left are the first bits of EOS, fewer than eight.
                return next == source.Length && count < 8 && (bits & ((1ul << count) - 1)) == (1ul << count) - 1
                    ? written
                    : throw new Http2ConnectionException(Http2Error.CompressionError, "Not a Huffman code.");
            }
            else
            {
                target[written++] = rare;
                count -= length;
            }
        }
    }

    private static bool TrySlow(ulong bits, int count, out byte symbol, out byte length)
    {
        for (var candidate = FastBits + 1; candidate <= LengthMax && candidate <= count; candidate++)
        {
            var (firstCode, codes, offset) = ByLength[candidate];
            var index = (long)((bits >> (count - candidate)) & ((1ul << candidate) - 1)) - firstCode;
            if (index >= 0 && index < codes && Symbols[offset + index] is not EndOfString and var found)
            {
                (symbol, length) = ((byte)found, (byte)candidate);
                return true;
            }
        }

        (symbol, length) = (0, 0);
        return false;
    }

    private static (uint FirstCode, int Count, int Offset)[] MakeByLength()
    {
        var table = new (uint, int, int)[LengthMax + 1];
        uint code = 0;
        var offset = 0;
        for (var length = 1; length <= LengthMax; length++)
        {
            code <<= 1;
            var count = 0;
            foreach (var symbolLength in Lengths)
            {
                count += symbolLength == length ? 1 : 0;
            }

            table[length] = (code, count, offset);
            code += (uint)count;
            offset += count;
        }

        return table;
    }

    private static (byte Symbol, byte Length)[] MakeFast()
    {
        var table = new (byte, byte)[1 << FastBits];
        for (var length = 1; length <= FastBits; length++)
        {
            var (firstCode, count, offset) = ByLength[length];
            for (var i = 0; i < count; i++)
            {
                var first = (int)(firstCode + i) << (FastBits - length);
                Array.Fill(table, ((byte)Symbols[offset + i], (byte)length), first, 1 << (FastBits - length));
            }
        }

        return table;
    }
}
