using System.Buffers;
using System.Text;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>Reads header blocks, RFC 7541. One per connection and direction; blocks in the order they came.</summary>
internal sealed class HpackDecoder
{
    public const int TableBytesMax = 4096;

    /// <summary>Of one block, decoded: a small block can name the same large field a thousand times.</summary>
    public const int HeaderListBytesMax = 16 * 1024;

    private readonly HpackTable table = new(TableBytesMax);

    /// <exception cref="Http2ConnectionException">The two tables are no longer the same, or it is too much: the connection is
    /// over.</exception>
    public List<HeaderField> Decode(ReadOnlySpan<byte> block)
    {
        var fields = new List<HeaderField>(12);
        var bytes = 0;
        while (!block.IsEmpty)
        {
            var first = block[0];
            if ((first & 0xe0) == 0x20)
            {
                var size = ReadInteger(ref block, 5);
                if (size > TableBytesMax || fields.Count > 0)
                {
                    throw Broken("A table size that was not offered, or not at the beginning.");
                }

                table.Resize(size);
                continue;
            }

            HeaderField field;
            if ((first & 0x80) != 0)
            {
                field = table[ReadInteger(ref block, 7)] ?? throw Broken("An index that is in no table.");
            }
            else
            {
                var indexing = (first & 0x40) != 0;
                var nameIndex = ReadInteger(ref block, indexing ? 6 : 4);
                var name = nameIndex > 0 ? (table[nameIndex] ?? throw Broken("A name that is in no table.")).Name : ReadText(ref block);
                field = new HeaderField(name, ReadText(ref block));
                if (indexing)
                {
                    table.Add(field);
                }
            }

            fields.Add(field);
            bytes += field.Bytes;
            if (bytes > HeaderListBytesMax)
            {
                throw new Http2ConnectionException(Http2Error.EnhanceYourCalm, "Too many headers.");
            }
        }

        return fields;
    }

    /// <summary>RFC 7541 section 5.1; at most 28 bits, far beyond anything allowed here.</summary>
    private static int ReadInteger(ref ReadOnlySpan<byte> block, int prefixBits)
    {
        if (block.IsEmpty)
        {
            throw Broken("A header block that ends too early.");
        }

        var mask = (1 << prefixBits) - 1;
        var value = block[0] & mask;
        block = block[1..];
        if (value < mask)
        {
            return value;
        }

        for (var shift = 0; shift <= 21; shift += 7)
        {
            if (block.IsEmpty)
            {
                break;
            }

            var next = block[0];
            block = block[1..];
            value += (next & 0x7f) << shift;
            if ((next & 0x80) == 0)
            {
                return value;
            }
        }

        throw Broken("An integer that does not end.");
    }

    private static string ReadText(ref ReadOnlySpan<byte> block)
    {
        var huffman = !block.IsEmpty && (block[0] & 0x80) != 0;
        var length = ReadInteger(ref block, 7);
        if (length > block.Length)
        {
            throw Broken("A text longer than its block.");
        }

        var source = block[..length];
        block = block[length..];
        if (!huffman)
        {
            return Encoding.Latin1.GetString(source);
        }

        var target = ArrayPool<byte>.Shared.Rent(Huffman.DecodedBytesMax(length));
        try
        {
            return Encoding.Latin1.GetString(target, 0, Huffman.Decode(source, target));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(target);
        }
    }

    private static Http2ConnectionException Broken(string what) => new(Http2Error.CompressionError, what);
}

/// <summary>Writes header blocks, RFC 7541, without Huffman. One per connection and direction; blocks in the order they go out.</summary>
internal sealed class HpackEncoder
{
    private readonly HpackTable table = new(HpackDecoder.TableBytesMax);
    private int? newSize;

    /// <summary>The peer's SETTINGS_HEADER_TABLE_SIZE; more than 4096 is not used.</summary>
    public void Resize(uint bytesMax)
    {
        newSize = (int)Math.Min(bytesMax, HpackDecoder.TableBytesMax);
        table.Resize(newSize.Value);
    }

    /// <summary>Before the first field of each block.</summary>
    public void Begin(IBufferWriter<byte> block)
    {
        if (newSize is { } size)
        {
            WriteInteger(block, 0x20, 5, size);
            newSize = null;
        }
    }

    /// <param name="block">Where to.</param>
    /// <param name="field">Latin-1.</param>
    /// <param name="keep">Worth a place in the table: it will come again just so.</param>
    public void Write(IBufferWriter<byte> block, HeaderField field, bool keep)
    {
        var (exact, name) = table.Find(field);
        if (exact > 0)
        {
            WriteInteger(block, 0x80, 7, exact);
            return;
        }

        WriteInteger(block, (byte)(keep ? 0x40 : 0x00), keep ? 6 : 4, name);
        if (name == 0)
        {
            WriteText(block, field.Name);
        }

        WriteText(block, field.Value);
        if (keep)
        {
            table.Add(field);
        }
    }

    private static void WriteText(IBufferWriter<byte> block, string text)
    {
        WriteInteger(block, 0x00, 7, text.Length);
        block.Advance(Encoding.Latin1.GetBytes(text, block.GetSpan(text.Length)));
    }

    private static void WriteInteger(IBufferWriter<byte> block, byte pattern, int prefixBits, int value)
    {
        var target = block.GetSpan(6);
        var mask = (1 << prefixBits) - 1;
        if (value < mask)
        {
            target[0] = (byte)(pattern | value);
            block.Advance(1);
            return;
        }

        target[0] = (byte)(pattern | mask);
        value -= mask;
        var length = 1;
        for (; value >= 0x80; value >>= 7)
        {
            target[length++] = (byte)(value | 0x80);
        }

        target[length++] = (byte)value;
        block.Advance(length);
    }
}
