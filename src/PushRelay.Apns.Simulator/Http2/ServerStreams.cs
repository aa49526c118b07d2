using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>
/// The open streams of one connection, RFC 9113 section 5: how many there may be, what the peer's windows let out, and where a GOAWAY draws
/// the
/// line. Safe for concurrent use; what it writes goes out with the next <see cref="FrameWriter.Flush"/>.
/// </summary>
internal sealed class ServerStreams(FrameWriter writer, int streamsMax)
{
    private const int WindowBytes = 65535;
    private const long WindowMax = int.MaxValue;

    private readonly Lock sync = new();
    private readonly HpackEncoder encoder = new();
    private readonly ArrayBufferWriter<byte> block = new(256);
    private readonly Dictionary<int, ServerStream> streams = [];

    /// <summary>Limits announced and not acknowledged yet.</summary>
    private readonly Queue<int> announced = new([streamsMax]);
    private int streamsAllowed = streamsMax;
    private long sendWindow = WindowBytes;
    private long peerInitialWindow = WindowBytes;
    private int peerFrameMax = Frame.PayloadBytesMax;
    private int highestStreamId;
    private int highestProcessed;
    private int lastStreamId = int.MaxValue;
    private bool isFrozen;

    /// <summary>The limit announced last.</summary>
    public int StreamsMax { get; private set; } = streamsMax;

    /// <summary>Streams that came above the limit and were refused.</summary>
    public int StreamsRefused { get; private set; }

    public bool IsFrozen
    {
        get
        {
            lock (sync)
            {
                return isFrozen;
            }
        }
    }

    /// <summary>The highest stream id that has come.</summary>
    public int Highest
    {
        get
        {
            lock (sync)
            {
                return highestStreamId;
            }
        }
    }

    public void SetStreamsMax(int streamsMax)
    {
        lock (sync)
        {
            if (StreamsMax != streamsMax)
            {
                StreamsMax = streamsMax;
                streamsAllowed = Math.Max(streamsAllowed, streamsMax);
                this.announced.Enqueue(streamsMax);
                writer.WriteSettings((SettingId.MaxConcurrentStreams, (uint)streamsMax));
            }
        }

        writer.Flush();
    }

    /// <summary>Sends the answer, if the stream still waits for one.</summary>
    /// <param name="streamId">Of the request.</param>
    /// <param name="status">HTTP.</param>
    /// <param name="headers">Without <c>:status</c> and <c>content-length</c>.</param>
    /// <param name="body">Goes out as far as the peer's windows let it.</param>
    /// <param name="sentBytesMax">Of the body, what is sent at all: less than its length cuts the answer short.</param>
    public void Answer(
        int streamId,
        int status,
        IReadOnlyList<HeaderField> headers,
        ReadOnlyMemory<byte> body,
        int sentBytesMax = int.MaxValue
    )
    {
        lock (sync)
        {
            if (isFrozen || !streams.TryGetValue(streamId, out var stream))
            {
                return;
            }

            block.ResetWrittenCount();
            encoder.Begin(block);
            encoder.Write(block, new HeaderField(":status", status.ToString(CultureInfo.InvariantCulture)), keep: true);
            foreach (var header in headers)
            {
                encoder.Write(block, header, keep: header.Name == "date");
            }

            if (body.Length > 0)
            {
                encoder.Write(block, new HeaderField("content-type", "application/json"), keep: true);
                encoder.Write(block, new HeaderField("content-length", body.Length.ToString(CultureInfo.InvariantCulture)), keep: false);
            }

            writer.Write(
                FrameType.Headers,
                FrameFlags.EndHeaders | (body.Length == 0 ? FrameFlags.EndStream : 0),
                streamId,
                block.WrittenSpan
            );
            if (body.Length == 0)
            {
                Forget(stream);
            }
            else if (sentBytesMax < body.Length)
            {
                writer.Write(FrameType.Data, FrameFlags.None, streamId, body.Span[..sentBytesMax]);
            }
            else
            {
                stream.Unsent = body;
                SendBody(stream);
            }
        }
    }

    public void Reset(int streamId, Http2Error error)
    {
        lock (sync)
        {
            if (streams.TryGetValue(streamId, out var stream))
            {
                writer.Write(FrameType.ResetStream, FrameFlags.None, streamId, (uint)error);
                Forget(stream);
            }
        }

        writer.Flush();
    }

    /// <summary>
    /// Streams up to the given one are still answered; those above are dropped unprocessed; with the last answer the connection closes.
    /// Requests end in another order than they begin: where a later one is processed already, the last stream is that one. Returns it.
    /// </summary>
    public int GoAway(int lastStreamId, Http2Error error, string? debugData, bool announced = false)
    {
        lock (sync)
        {
            lastStreamId = Math.Max(lastStreamId, highestProcessed);
            if (lastStreamId >= this.lastStreamId)
            {
                return this.lastStreamId;
            }

            this.lastStreamId = lastStreamId;
            if (announced)
            {
                writer.WriteGoAway(int.MaxValue, error, []);
            }

            writer.WriteGoAway(this.lastStreamId, error, Encoding.UTF8.GetBytes(debugData ?? ""));
            foreach (var stream in streams.Values.Where(stream => stream.Id > this.lastStreamId).ToArray())
            {
                streams.Remove(stream.Id);
            }

            CloseIfDone();
        }

        writer.Flush();
        return this.lastStreamId;
    }

    /// <summary>No GOAWAY may say of this stream that it was not processed.</summary>
    public void MarkProcessed(int streamId)
    {
        lock (sync)
        {
            highestProcessed = Math.Max(highestProcessed, streamId);
        }
    }

    /// <summary>The same for all that has come so far.</summary>
    public void GoAway()
    {
        int last;
        lock (sync)
        {
            last = highestStreamId;
        }

        GoAway(last, Http2Error.NoError, null);
    }

    /// <summary>Whether requests of that stream still count: not after a GOAWAY below it.</summary>
    public bool Takes(int streamId)
    {
        lock (sync)
        {
            return streamId <= this.lastStreamId;
        }
    }

    /// <summary>Neither reads nor writes any more, and does not close.</summary>
    public void Freeze()
    {
        lock (sync)
        {
            isFrozen = true;
        }
    }

    /// <summary>A stream begins, or one that is open gets trailers. Null: it is refused, or no longer of interest.</summary>
    /// <exception cref="Http2ConnectionException">The id is not the peer's to choose.</exception>
    public ServerStream? Open(int streamId, List<HeaderField> headers)
    {
        lock (sync)
        {
            if (streamId <= highestStreamId)
            {
                return streams.GetValueOrDefault(streamId);
            }

            if (streamId % 2 == 0)
            {
                throw new Http2ConnectionException(Http2Error.ProtocolError, "A stream id that is not the peer's to choose.");
            }

            highestStreamId = streamId;
            if (streamId > this.lastStreamId)
            {
                return null;
            }

            if (streams.Count >= streamsAllowed)
            {
                StreamsRefused++;
                writer.Write(FrameType.ResetStream, FrameFlags.None, streamId, (uint)Http2Error.RefusedStream);
                return null;
            }

            var stream = new ServerStream(streamId, headers, peerInitialWindow);
            streams.Add(streamId, stream);
            return stream;
        }
    }

    /// <summary>Null: the stream is gone, or has ended.</summary>
    public ServerStream? Append(int streamId, ReadOnlySpan<byte> data)
    {
        lock (sync)
        {
            if (!streams.TryGetValue(streamId, out var stream) || stream.Ended)
            {
                return null;
            }

            stream.Append(data);
            return stream;
        }
    }

    /// <summary>The peer lost interest.</summary>
    public void Drop(int streamId)
    {
        lock (sync)
        {
            streams.Remove(streamId);
            CloseIfDone();
        }
    }

    /// <summary>The peer knows of the limit announced first: a lower one holds from now on.</summary>
    public void Acknowledged()
    {
        lock (sync)
        {
            streamsAllowed = this.announced.TryDequeue(out var known) ? this.announced.Append(known).Max() : streamsAllowed;
        }
    }

    /// <exception cref="Http2ConnectionException">They are not well-formed.</exception>
    public void Take(ReadOnlySpan<byte> settings)
    {
        if (settings.Length % 6 != 0)
        {
            throw new Http2ConnectionException(Http2Error.FrameSizeError, "SETTINGS of a wrong length.");
        }

        lock (sync)
        {
            for (var rest = settings; rest.Length > 0; rest = rest[6..])
            {
                var value = BinaryPrimitives.ReadUInt32BigEndian(rest[2..]);
                switch ((SettingId)BinaryPrimitives.ReadUInt16BigEndian(rest))
                {
                    case SettingId.HeaderTableSize:
                        encoder.Resize(value);
                        break;
                    case SettingId.InitialWindowSize when value > WindowMax:
                        throw new Http2ConnectionException(Http2Error.FlowControlError, "A window too large.");
                    case SettingId.InitialWindowSize:
                        foreach (var stream in streams.Values)
                        {
                            stream.SendWindow += value - peerInitialWindow;
                        }

                        peerInitialWindow = value;
                        break;
                    case SettingId.MaxFrameSize:
                        peerFrameMax = (int)Math.Min(value, Frame.PayloadBytesMax);
                        break;
                    default:
                        break;
                }
            }

            writer.Write(FrameType.Settings, Frame.Ack, 0, []);
        }
    }

    /// <summary>WINDOW_UPDATE, of the connection or of one stream.</summary>
    public void Widen(int streamId, long increment)
    {
        lock (sync)
        {
            if (streamId == 0)
            {
                sendWindow += increment;
                if (increment == 0 || sendWindow > WindowMax)
                {
                    throw new Http2ConnectionException(Http2Error.FlowControlError, "A window update out of bounds.");
                }

                foreach (var waiting in streams.Values.Where(stream => stream.Unsent.Length > 0).ToArray())
                {
                    SendBody(waiting);
                }
            }
            else if (streams.TryGetValue(streamId, out var stream))
            {
                stream.SendWindow += increment;
                SendBody(stream);
            }
        }
    }

    /// <summary>Called under the lock.</summary>
    private void SendBody(ServerStream stream)
    {
        while (stream.Unsent.Length > 0)
        {
            var length = (int)Math.Min(Math.Min(sendWindow, stream.SendWindow), Math.Min(peerFrameMax, stream.Unsent.Length));
            if (length <= 0)
            {
                return;
            }

            var isLast = length == stream.Unsent.Length;
            writer.Write(FrameType.Data, isLast ? FrameFlags.EndStream : FrameFlags.None, stream.Id, stream.Unsent.Span[..length]);
            stream.Unsent = stream.Unsent[length..];
            stream.SendWindow -= length;
            sendWindow -= length;
            if (isLast)
            {
                Forget(stream);
            }
        }
    }

    /// <summary>Called under the lock.</summary>
    private void Forget(ServerStream stream)
    {
        streams.Remove(stream.Id);
        CloseIfDone();
    }

    /// <summary>Called under the lock.</summary>
    private void CloseIfDone()
    {
        if (this.lastStreamId != int.MaxValue && streams.Count == 0)
        {
            writer.Complete();
        }
    }
}
