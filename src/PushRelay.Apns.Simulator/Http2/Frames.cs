using System.Buffers;
using System.Buffers.Binary;
using System.Threading.Channels;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>RFC 9113 section 6.</summary>
internal enum FrameType : byte
{
    Data = 0,
    Headers = 1,
    Priority = 2,
    ResetStream = 3,
    Settings = 4,
    PushPromise = 5,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

[Flags]
internal enum FrameFlags : byte
{
    None = 0,

    EndStream = 0x1,
    EndHeaders = 0x4,
    Padded = 0x8,
    Priority = 0x20,
}

/// <summary>RFC 9113 section 7.</summary>
internal enum Http2Error : uint
{
    NoError = 0,
    ProtocolError = 1,
    InternalError = 2,
    FlowControlError = 3,
    SettingsTimeout = 4,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    Cancel = 8,
    CompressionError = 9,
    ConnectError = 10,
    EnhanceYourCalm = 11,
}

/// <summary>RFC 9113 section 6.5.2.</summary>
internal enum SettingId : ushort
{
    HeaderTableSize = 1,
    EnablePush = 2,
    MaxConcurrentStreams = 3,
    InitialWindowSize = 4,
    MaxFrameSize = 5,
    MaxHeaderListSize = 6,
}

/// <summary>The peer broke the protocol beyond one stream: GOAWAY, and the connection is over.</summary>
internal sealed class Http2ConnectionException(Http2Error error, string message) : Exception(message)
{
    public Http2Error Error { get; } = error;
}

/// <summary>One frame; its payload lives until the next read.</summary>
internal readonly record struct Frame(FrameType Type, FrameFlags Flags, int StreamId, ReadOnlyMemory<byte> Payload)
{
    public const int HeaderBytes = 9;

    /// <summary>The largest payload without a SETTINGS_MAX_FRAME_SIZE: also what everybody must take.</summary>
    public const int PayloadBytesMax = 16384;

    /// <summary>Of SETTINGS and PING the bit that otherwise ends a stream says "acknowledged".</summary>
    public const FrameFlags Ack = FrameFlags.EndStream;

    public bool Has(FrameFlags flag) => (Flags & flag) != 0;

    /// <summary>The payload without padding (DATA, HEADERS) and without the deprecated priority fields (HEADERS).</summary>
    public ReadOnlyMemory<byte> Content()
    {
        var content = Payload;
        var padding = 0;
        if (Has(FrameFlags.Padded))
        {
            if (content.Length < 1)
            {
                throw new Http2ConnectionException(Http2Error.FrameSizeError, "A padded frame without its padding length.");
            }

            padding = content.Span[0];
            content = content[1..];
        }

        if (Type == FrameType.Headers && Has(FrameFlags.Priority))
        {
            if (content.Length < 5)
            {
                throw new Http2ConnectionException(Http2Error.FrameSizeError, "A HEADERS frame without the priority it announces.");
            }

            content = content[5..];
        }

        return padding <= content.Length
            ? content[..^padding]
            : throw new Http2ConnectionException(Http2Error.ProtocolError, "More padding than frame.");
    }
}

/// <summary>Cuts a byte stream into frames. One reader at a time.</summary>
internal sealed class FrameReader(Stream stream)
{
    private readonly byte[] buffer = new byte[4 * (Frame.HeaderBytes + Frame.PayloadBytesMax)];
    private int start;
    private int end;

    /// <summary>Whether <see cref="ReadAsync"/> would return without asking the stream.</summary>
    public bool HasFrame => end - start >= Frame.HeaderBytes && end - start - Frame.HeaderBytes >= Length();

    /// <summary>Takes so many bytes that are no frame (the connection preface). False: the stream ended before.</summary>
    public async ValueTask<bool> ReadExactlyAsync(Memory<byte> target, CancellationToken cancellationToken)
    {
        while (end - start < target.Length)
        {
            if (!await FillAsync(cancellationToken))
            {
                return false;
            }
        }

        buffer.AsMemory(start, target.Length).CopyTo(target);
        start += target.Length;
        return true;
    }

    /// <summary>Null: the stream ended, maybe within a frame.</summary>
    /// <exception cref="Http2ConnectionException">A frame larger than anyone may send unasked.</exception>
    public async ValueTask<Frame?> ReadAsync(CancellationToken cancellationToken)
    {
        while (!HasFrame)
        {
            if (end - start >= Frame.HeaderBytes && Length() > Frame.PayloadBytesMax)
            {
                throw new Http2ConnectionException(Http2Error.FrameSizeError, $"A frame of {Length()} bytes.");
            }

            if (!await FillAsync(cancellationToken))
            {
                return null;
            }
        }

        var length = Length();
        var header = buffer.AsSpan(start, Frame.HeaderBytes);
        var frame = new Frame(
            (FrameType)header[3],
            (FrameFlags)header[4],
            (int)(BinaryPrimitives.ReadUInt32BigEndian(header[5..]) & 0x7fff_ffff),
            buffer.AsMemory(start + Frame.HeaderBytes, length)
        );
        start += Frame.HeaderBytes + length;
        return frame;
    }

    private int Length() => (buffer[start] << 16) | (buffer[start + 1] << 8) | buffer[start + 2];

    private async ValueTask<bool> FillAsync(CancellationToken cancellationToken)
    {
        if (start == end)
        {
            start = end = 0;
        }
        else if (buffer.Length - start < Frame.HeaderBytes + Frame.PayloadBytesMax)
        {
            buffer.AsSpan(start, end - start).CopyTo(buffer);
            end -= start;
            start = 0;
        }

        var read = await stream.ReadAsync(buffer.AsMemory(end), cancellationToken);
        end += read;
        return read > 0;
    }
}

/// <summary>
/// Gathers frames and writes what has gathered in one go: many small answers make one TLS record. Safe for concurrent use.
/// </summary>
internal sealed class FrameWriter(Stream stream)
{
    /// <summary>A peer that asks and does not read is cut off here.</summary>
    private const int WaitingBytesMax = 4 * 1024 * 1024;

    private readonly Lock sync = new();
    private readonly Channel<bool> wanted = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite }
    );
    private ArrayBufferWriter<byte> filling = new(16 * 1024);
    private ArrayBufferWriter<byte> writing = new(16 * 1024);

    /// <summary>Appends; goes out with the next <see cref="Flush"/>.</summary>
    public void Write(FrameType type, FrameFlags flags, int streamId, ReadOnlySpan<byte> payload)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(payload.Length, Frame.PayloadBytesMax);
        lock (sync)
        {
            if (filling.WrittenCount > WaitingBytesMax)
            {
                throw new Http2ConnectionException(Http2Error.EnhanceYourCalm, "The peer does not read what it asks for.");
            }

            var target = filling.GetSpan(Frame.HeaderBytes + payload.Length);
            target[0] = (byte)(payload.Length >> 16);
            target[1] = (byte)(payload.Length >> 8);
            target[2] = (byte)payload.Length;
            target[3] = (byte)type;
            target[4] = (byte)flags;
            BinaryPrimitives.WriteInt32BigEndian(target[5..], streamId);
            payload.CopyTo(target[Frame.HeaderBytes..]);
            filling.Advance(Frame.HeaderBytes + payload.Length);
        }
    }

    public void Write(FrameType type, FrameFlags flags, int streamId, uint value)
    {
        Span<byte> payload = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(payload, value);
        Write(type, flags, streamId, payload);
    }

    public void WriteSettings(params ReadOnlySpan<(SettingId Id, uint Value)> settings)
    {
        Span<byte> payload = stackalloc byte[settings.Length * 6];
        for (var i = 0; i < settings.Length; i++)
        {
            BinaryPrimitives.WriteUInt16BigEndian(payload[(i * 6)..], (ushort)settings[i].Id);
            BinaryPrimitives.WriteUInt32BigEndian(payload[((i * 6) + 2)..], settings[i].Value);
        }

        Write(FrameType.Settings, FrameFlags.None, 0, payload);
    }

    public void WriteGoAway(int lastStreamId, Http2Error error, ReadOnlySpan<byte> debugData)
    {
        Span<byte> payload = stackalloc byte[8 + debugData.Length];
        BinaryPrimitives.WriteInt32BigEndian(payload, lastStreamId);
        BinaryPrimitives.WriteUInt32BigEndian(payload[4..], (uint)error);
        debugData.CopyTo(payload[8..]);
        Write(FrameType.GoAway, FrameFlags.None, 0, payload);
    }

    public void Flush() => wanted.Writer.TryWrite(true);

    /// <summary>After what is gathered nothing more goes out, and <see cref="RunAsync"/> ends.</summary>
    public void Complete() => wanted.Writer.TryComplete();

    /// <summary>Writes until <see cref="Complete"/>; throws what the stream throws.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await foreach (var _ in wanted.Reader.ReadAllAsync(cancellationToken))
        {
            await WriteGatheredAsync(cancellationToken);
        }

        await WriteGatheredAsync(cancellationToken);
    }

    private async Task WriteGatheredAsync(CancellationToken cancellationToken)
    {
        lock (sync)
        {
            (filling, writing) = (writing, filling);
        }

        if (writing.WrittenCount > 0)
        {
            await stream.WriteAsync(writing.WrittenMemory, cancellationToken);
            writing.ResetWrittenCount();
        }
    }
}
