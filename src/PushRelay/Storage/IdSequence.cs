using System.Buffers.Binary;
using System.Security.Cryptography;

namespace PushRelay.Storage;

/// <summary>
/// Makes UUIDv7 in strictly rising order within this process, so that the rows of one batch keep their order (RFC 9562 section 6.2, method
/// 1: a 12-bit counter after the milliseconds, which runs ahead of the clock when it overflows). Across nodes they follow the database's
/// clock, because callers pass its time. Thread-safe.
/// </summary>
internal sealed class IdSequence
{
    private readonly Lock sync = new();
    private readonly byte[] random = new byte[1024];
    private int used = 1024;
    private long last;

    /// <summary>No id of this instant or a later one sorts before it: a bound for statements that look at rows of a time.</summary>
    public static Guid First(DateTimeOffset from)
    {
        Span<byte> bytes = stackalloc byte[16];
        bytes.Clear();
        BinaryPrimitives.WriteInt64BigEndian(bytes, from.ToUnixTimeMilliseconds() << 16);
        return new Guid(bytes, bigEndian: true);
    }

    /// <param name="now">By the database's clock.</param>
    public Guid Next(DateTimeOffset now)
    {
        Span<byte> bytes = stackalloc byte[16];
        long tick;
        lock (sync)
        {
            if (used == random.Length)
            {
                // one call into the cryptography library for 128 ids
                RandomNumberGenerator.Fill(random);
                used = 0;
            }

            random.AsSpan(used, 8).CopyTo(bytes[8..]);
            used += 8;

            // the milliseconds in the upper bits, the counter in the lower twelve
            tick = last = Math.Max(last + 1, now.ToUnixTimeMilliseconds() << 12);
        }

        BinaryPrimitives.WriteInt64BigEndian(bytes, tick >> 12 << 16);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)(0x7000 | (tick & 0xFFF)));
        bytes[8] = (byte)(0x80 | (bytes[8] & 0x3F));
        return new Guid(bytes, bigEndian: true);
    }
}
