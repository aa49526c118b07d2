using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>
/// The open streams of one connection, RFC 9113 section 5: how many there may be, what the peer's windows let out, and where a GOAWAY draws the
/// line. Safe for concurrent use; what it writes goes out with the next <see cref="FrameWriter.Flush"/>.
/// </summary>
internal sealed class ServerStreams(FrameWriter writer, int streamsMax)
{
    private const int WindowBytes = 65535;
    private const long WindowMax = int.MaxValue;

    private readonly Lock _lock = new();
    private readonly HpackEncoder _encoder = new();
    private readonly ArrayBufferWriter<byte> _block = new(256);
    private readonly Dictionary<int, ServerStream> _streams = [];

    /// <summary>Limits announced and not acknowledged yet.</summary>
    private readonly Queue<int> _announced = new([streamsMax]);
    private int _streamsAllowed = streamsMax;
    private long _sendWindow = WindowBytes;
    private long _peerInitialWindow = WindowBytes;
    private int _peerFrameMax = Frame.PayloadBytesMax;
    private int _highestStreamId;
    private int _highestProcessed;
    private int _lastStreamId = int.MaxValue;
    private bool _isFrozen;

    /// <summary>The limit announced last.</summary>
    public int StreamsMax { get; private set; } = streamsMax;

    /// <summary>Streams that came above the limit and were refused.</summary>
    public int StreamsRefused { get; private set; }

    public bool IsFrozen
    {
        get
        {
            lock (_lock)
            {
                return _isFrozen;
            }
        }
    }

    /// <summary>The highest stream id that has come.</summary>
    public int Highest
    {
        get
        {
            lock (_lock)
            {
                return _highestStreamId;
            }
        }
    }

    public void SetStreamsMax(int streamsMax)
    {
        lock (_lock)
        {
            if (StreamsMax != streamsMax)
            {
                StreamsMax = streamsMax;
                _streamsAllowed = Math.Max(_streamsAllowed, streamsMax);
                _announced.Enqueue(streamsMax);
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
    public void Answer(int streamId, int status, IReadOnlyList<HeaderField> headers, ReadOnlyMemory<byte> body, int sentBytesMax = int.MaxValue)
    {
        lock (_lock)
        {
            if (_isFrozen || !_streams.TryGetValue(streamId, out var stream))
            {
                return;
            }

            _block.ResetWrittenCount();
            _encoder.Begin(_block);
            _encoder.Write(_block, new HeaderField(":status", status.ToString(CultureInfo.InvariantCulture)), keep: true);
            foreach (var header in headers)
            {
                _encoder.Write(_block, header, keep: header.Name == "date");
            }

            if (body.Length > 0)
            {
                _encoder.Write(_block, new HeaderField("content-type", "application/json"), keep: true);
                _encoder.Write(_block, new HeaderField("content-length", body.Length.ToString(CultureInfo.InvariantCulture)), keep: false);
            }

            writer.Write(FrameType.Headers, FrameFlags.EndHeaders | (body.Length == 0 ? FrameFlags.EndStream : 0), streamId, _block.WrittenSpan);
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
        lock (_lock)
        {
            if (_streams.TryGetValue(streamId, out var stream))
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
        lock (_lock)
        {
            lastStreamId = Math.Max(lastStreamId, _highestProcessed);
            if (lastStreamId >= _lastStreamId)
            {
                return _lastStreamId;
            }

            _lastStreamId = lastStreamId;
            if (announced)
            {
                writer.WriteGoAway(int.MaxValue, error, []);
            }

            writer.WriteGoAway(_lastStreamId, error, Encoding.UTF8.GetBytes(debugData ?? ""));
            foreach (var stream in _streams.Values.Where(stream => stream.Id > _lastStreamId).ToArray())
            {
                _streams.Remove(stream.Id);
            }

            CloseIfDone();
        }

        writer.Flush();
        return _lastStreamId;
    }

    /// <summary>No GOAWAY may say of this stream that it was not processed.</summary>
    public void MarkProcessed(int streamId)
    {
        lock (_lock)
        {
            _highestProcessed = Math.Max(_highestProcessed, streamId);
        }
    }

    /// <summary>The same for all that has come so far.</summary>
    public void GoAway()
    {
        int last;
        lock (_lock)
        {
            last = _highestStreamId;
        }

        GoAway(last, Http2Error.NoError, null);
    }

    /// <summary>Whether requests of that stream still count: not after a GOAWAY below it.</summary>
    public bool Takes(int streamId)
    {
        lock (_lock)
        {
            return streamId <= _lastStreamId;
        }
    }

    /// <summary>Neither reads nor writes any more, and does not close.</summary>
    public void Freeze()
    {
        lock (_lock)
        {
            _isFrozen = true;
        }
    }

    /// <summary>A stream begins, or one that is open gets trailers. Null: it is refused, or no longer of interest.</summary>
    /// <exception cref="Http2ConnectionException">The id is not the peer's to choose.</exception>
    public ServerStream? Open(int streamId, List<HeaderField> headers)
    {
        lock (_lock)
        {
            if (streamId <= _highestStreamId)
            {
                return _streams.GetValueOrDefault(streamId);
            }

            if (streamId % 2 == 0)
            {
                throw new Http2ConnectionException(Http2Error.ProtocolError, "A stream id that is not the peer's to choose.");
            }

            _highestStreamId = streamId;
            if (streamId > _lastStreamId)
            {
                return null;
            }

            if (_streams.Count >= _streamsAllowed)
            {
                StreamsRefused++;
                writer.Write(FrameType.ResetStream, FrameFlags.None, streamId, (uint)Http2Error.RefusedStream);
                return null;
            }

            var stream = new ServerStream(streamId, headers, _peerInitialWindow);
            _streams.Add(streamId, stream);
            return stream;
        }
    }

    /// <summary>Null: the stream is gone, or has ended.</summary>
    public ServerStream? Append(int streamId, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            if (!_streams.TryGetValue(streamId, out var stream) || stream.Ended)
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
        lock (_lock)
        {
            _streams.Remove(streamId);
            CloseIfDone();
        }
    }

    /// <summary>The peer knows of the limit announced first: a lower one holds from now on.</summary>
    public void Acknowledged()
    {
        lock (_lock)
        {
            _streamsAllowed = _announced.TryDequeue(out var known) ? _announced.Append(known).Max() : _streamsAllowed;
        }
    }

    /// <exception cref="Http2ConnectionException">They are not well-formed.</exception>
    public void Take(ReadOnlySpan<byte> settings)
    {
        if (settings.Length % 6 != 0)
        {
            throw new Http2ConnectionException(Http2Error.FrameSizeError, "SETTINGS of a wrong length.");
        }

        lock (_lock)
        {
            for (var rest = settings; rest.Length > 0; rest = rest[6..])
            {
                var value = BinaryPrimitives.ReadUInt32BigEndian(rest[2..]);
                switch ((SettingId)BinaryPrimitives.ReadUInt16BigEndian(rest))
                {
                    case SettingId.HeaderTableSize:
                        _encoder.Resize(value);
                        break;
                    case SettingId.InitialWindowSize when value > WindowMax:
                        throw new Http2ConnectionException(Http2Error.FlowControlError, "A window too large.");
                    case SettingId.InitialWindowSize:
                        foreach (var stream in _streams.Values)
                        {
                            stream.SendWindow += value - _peerInitialWindow;
                        }

                        _peerInitialWindow = value;
                        break;
                    case SettingId.MaxFrameSize:
                        _peerFrameMax = (int)Math.Min(value, Frame.PayloadBytesMax);
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
        lock (_lock)
        {
            if (streamId == 0)
            {
                _sendWindow += increment;
                if (increment == 0 || _sendWindow > WindowMax)
                {
                    throw new Http2ConnectionException(Http2Error.FlowControlError, "A window update out of bounds.");
                }

                foreach (var waiting in _streams.Values.Where(stream => stream.Unsent.Length > 0).ToArray())
                {
                    SendBody(waiting);
                }
            }
            else if (_streams.TryGetValue(streamId, out var stream))
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
            var length = (int)Math.Min(Math.Min(_sendWindow, stream.SendWindow), Math.Min(_peerFrameMax, stream.Unsent.Length));
            if (length <= 0)
            {
                return;
            }

            var isLast = length == stream.Unsent.Length;
            writer.Write(FrameType.Data, isLast ? FrameFlags.EndStream : FrameFlags.None, stream.Id, stream.Unsent.Span[..length]);
            stream.Unsent = stream.Unsent[length..];
            stream.SendWindow -= length;
            _sendWindow -= length;
            if (isLast)
            {
                Forget(stream);
            }
        }
    }

    /// <summary>Called under the lock.</summary>
    private void Forget(ServerStream stream)
    {
        _streams.Remove(stream.Id);
        CloseIfDone();
    }

    /// <summary>Called under the lock.</summary>
    private void CloseIfDone()
    {
        if (_lastStreamId != int.MaxValue && _streams.Count == 0)
        {
            writer.Complete();
        }
    }
}
