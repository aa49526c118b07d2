using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Logging;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>
/// The server's side of one HTTP/2 connection, RFC 9113: takes requests in, hands each to <see cref="IRequestHandler"/> once it is whole,
/// and sends what is answered, whenever that is. It can do what a well-behaved server cannot: change its stream limit on the way, choose
/// the last stream id of a GOAWAY, fall silent.
/// </summary>
internal sealed partial class ServerConnection : IDisposable
{
    private const int WindowBytes = 65535;
    private const int WindowUpdateBytes = WindowBytes / 2;
    private const int HeaderBlockBytesMax = 32 * 1024;
    private const long WindowMax = int.MaxValue;

    private static readonly byte[] Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray();

    private readonly Lock _lock = new();
    private readonly Socket _socket;
    private readonly SslStream _tls;
    private readonly FrameReader _reader;
    private readonly FrameWriter _writer;
    private readonly HpackDecoder _decoder = new();
    private readonly HpackEncoder _encoder = new();
    private readonly ArrayBufferWriter<byte> _block = new(256);
    private readonly Dictionary<int, ServerStream> _streams = [];
    private readonly IRequestHandler _handler;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _over = new();
    private readonly Queue<int> _announced = new();
    private int _streamsAllowed;
    private long _sendWindow = WindowBytes;
    private long _peerInitialWindow = WindowBytes;
    private int _peerFrameMax = Frame.PayloadBytesMax;
    private int _unacknowledgedBytes;
    private int _highestStreamId;
    private int _highestProcessed;
    private int _lastStreamId = int.MaxValue;
    private bool _isFrozen;

    public ServerConnection(int number, Socket socket, SslStream tls, int streamsMax, IRequestHandler handler, ILogger logger)
    {
        Number = number;
        StreamsMax = streamsMax;
        _streamsAllowed = streamsMax;
        _socket = socket;
        _tls = tls;
        _reader = new FrameReader(tls);
        _writer = new FrameWriter(tls);
        _handler = handler;
        _logger = logger;
    }

    /// <summary>Counted from 1.</summary>
    public int Number { get; }

    /// <summary>The limit announced last.</summary>
    public int StreamsMax { get; private set; }

    /// <summary>Streams that came above the limit and were refused.</summary>
    public int StreamsRefused { get; private set; }

    /// <summary>Until the connection is over, for whatever reason. Throws nothing.</summary>
    public async Task RunAsync()
    {
        var writing = WriteAsync();
        try
        {
            await ReadAsync();
        }
        catch (Http2ConnectionException exception)
        {
            ProtocolBroken(Number, exception.Error, exception.Message);
            TryGoAway(exception);
        }
        catch (Exception exception) when (IsOver(exception))
        {
            await _over.CancelAsync();
        }

        _writer.Complete();
        await writing;
        _socket.Dispose();
        await _tls.DisposeAsync();
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
                _writer.WriteSettings((SettingId.MaxConcurrentStreams, (uint)streamsMax));
            }
        }

        _writer.Flush();
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

            _writer.Write(FrameType.Headers, FrameFlags.EndHeaders | (body.Length == 0 ? FrameFlags.EndStream : 0), streamId, _block.WrittenSpan);
            if (body.Length == 0)
            {
                Forget(stream);
            }
            else if (sentBytesMax < body.Length)
            {
                _writer.Write(FrameType.Data, FrameFlags.None, streamId, body.Span[..sentBytesMax]);
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
                _writer.Write(FrameType.ResetStream, FrameFlags.None, streamId, (uint)error);
                Forget(stream);
            }
        }

        _writer.Flush();
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
                _writer.WriteGoAway(int.MaxValue, error, []);
            }

            _writer.WriteGoAway(_lastStreamId, error, Encoding.UTF8.GetBytes(debugData ?? ""));
            foreach (var stream in _streams.Values.Where(stream => stream.Id > _lastStreamId).ToArray())
            {
                _streams.Remove(stream.Id);
            }

            CloseIfDone();
        }

        _writer.Flush();
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

    public void Flush() => _writer.Flush();

    /// <summary>Whether requests of that stream still count: not after a GOAWAY below it.</summary>
    public bool Takes(int streamId)
    {
        lock (_lock)
        {
            return streamId <= _lastStreamId;
        }
    }

    /// <summary>Sends what is gathered, then ends the connection with FIN.</summary>
    public void Close() => _writer.Complete();

    /// <summary>Ends it with a TCP reset, at once.</summary>
    public void Abort()
    {
        try
        {
            _socket.LingerState = new LingerOption(true, 0);
            _socket.Close();
            _over.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // It is over already.
        }
    }

    /// <summary>Says no more and goes on listening.</summary>
    public void HalfClose()
    {
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
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

    public void Dispose()
    {
        _over.Dispose();
        _tls.Dispose();
        _socket.Dispose();
    }

    /// <summary>The peer went away, or we cut it off.</summary>
    private static bool IsOver(Exception exception) =>
        exception is IOException or SocketException or OperationCanceledException or ObjectDisposedException or InvalidOperationException;

    /// <summary>Until <see cref="FrameWriter.Complete"/>; then says goodbye, and gives the peer a second to do the same.</summary>
    private async Task WriteAsync()
    {
        try
        {
            await _writer.RunAsync(_over.Token);
            await _tls.ShutdownAsync();
            _socket.Shutdown(SocketShutdown.Send);
            _over.CancelAfter(TimeSpan.FromSeconds(1));
        }
        catch (Exception exception) when (IsOver(exception))
        {
            await _over.CancelAsync();
        }
    }

    private async Task ReadAsync()
    {
        var preface = new byte[Preface.Length];
        if (!await _reader.ReadExactlyAsync(preface, _over.Token) || !preface.AsSpan().SequenceEqual(Preface))
        {
            throw new Http2ConnectionException(Http2Error.ProtocolError, "Not HTTP/2.");
        }

        _writer.WriteSettings(
            (SettingId.MaxConcurrentStreams, (uint)StreamsMax),
            (SettingId.MaxHeaderListSize, (uint)HpackDecoder.HeaderListBytesMax));
        lock (_lock)
        {
            _announced.Enqueue(StreamsMax);
        }

        _writer.Flush();
        var isFirst = true;
        while (await _reader.ReadAsync(_over.Token) is { } frame)
        {
            if (isFirst && frame.Type != FrameType.Settings)
            {
                throw new Http2ConnectionException(Http2Error.ProtocolError, "The first frame is not SETTINGS.");
            }

            isFirst = false;
            if (frame is { Type: FrameType.Headers } && !frame.Has(FrameFlags.EndHeaders))
            {
                frame = await ReadContinuationsAsync(frame);
            }

            await TakeAsync(frame);
            if (!_reader.HasFrame)
            {
                _writer.Flush();
            }
        }
    }

    private async Task TakeAsync(Frame frame)
    {
        if (_isFrozen)
        {
            // Until the peer or the simulator gives up: not even the window is enlarged.
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, _over.Token);
        }

        switch (frame.Type)
        {
            case FrameType.Headers:
                TakeHeaders(frame);
                break;
            case FrameType.Data:
                TakeData(frame);
                break;
            case FrameType.ResetStream:
                lock (_lock)
                {
                    _streams.Remove(frame.StreamId);
                    CloseIfDone();
                }

                break;
            case FrameType.Settings:
                TakeSettings(frame);
                break;
            case FrameType.Ping when !frame.Has(Frame.Ack):
                Demand(frame, bytes: 8);
                _writer.Write(FrameType.Ping, Frame.Ack, 0, frame.Payload.Span);
                break;
            case FrameType.WindowUpdate:
                Demand(frame, bytes: 4);
                TakeWindow(frame.StreamId, BinaryPrimitives.ReadUInt32BigEndian(frame.Payload.Span) & 0x7fff_ffff);
                break;
            case FrameType.Continuation or FrameType.PushPromise:
                throw new Http2ConnectionException(Http2Error.ProtocolError, $"An unexpected {frame.Type} frame.");
            default:
                // GOAWAY (the peer will close), PING acknowledgements, PRIORITY, and types not known are passed over, section 5.5.
                break;
        }
    }

    private async Task<Frame> ReadContinuationsAsync(Frame first)
    {
        var block = new ArrayBufferWriter<byte>();
        block.Write(first.Content().Span);
        while (await _reader.ReadAsync(_over.Token) is { } next)
        {
            if (next.Type != FrameType.Continuation || next.StreamId != first.StreamId)
            {
                throw new Http2ConnectionException(Http2Error.ProtocolError, "A header block with something else in it.");
            }

            block.Write(next.Payload.Span);
            if (block.WrittenCount > HeaderBlockBytesMax)
            {
                throw new Http2ConnectionException(Http2Error.EnhanceYourCalm, "A header block that does not end.");
            }

            if (next.Has(FrameFlags.EndHeaders))
            {
                return first with { Flags = (first.Flags & FrameFlags.EndStream) | FrameFlags.EndHeaders, Payload = block.WrittenMemory };
            }
        }

        throw new IOException("The connection ended within a header block.");
    }

    private void TakeHeaders(Frame frame)
    {
        var headers = _decoder.Decode(frame.Content().Span);
        ServerStream? stream;
        lock (_lock)
        {
            if (frame.StreamId <= _highestStreamId)
            {
                // Trailers, or a stream that is gone.
                if (!_streams.TryGetValue(frame.StreamId, out stream))
                {
                    return;
                }
            }
            else if (frame.StreamId % 2 == 0)
            {
                throw new Http2ConnectionException(Http2Error.ProtocolError, "A stream id that is not the peer's to choose.");
            }
            else
            {
                _highestStreamId = frame.StreamId;
                if (frame.StreamId > _lastStreamId)
                {
                    return;
                }

                if (_streams.Count >= _streamsAllowed)
                {
                    StreamsRefused++;
                    _writer.Write(FrameType.ResetStream, FrameFlags.None, frame.StreamId, (uint)Http2Error.RefusedStream);
                    return;
                }

                stream = new ServerStream(frame.StreamId, headers, _peerInitialWindow);
                _streams.Add(frame.StreamId, stream);
            }
        }

        if (frame.Has(FrameFlags.EndStream))
        {
            End(stream);
        }
    }

    private void TakeData(Frame frame)
    {
        // The whole frame counts, padding too, also on a stream that is gone: section 6.9.
        _unacknowledgedBytes += frame.Payload.Length;
        if (_unacknowledgedBytes >= WindowUpdateBytes)
        {
            _writer.Write(FrameType.WindowUpdate, FrameFlags.None, 0, (uint)_unacknowledgedBytes);
            _unacknowledgedBytes = 0;
        }

        ServerStream? stream;
        lock (_lock)
        {
            if (!_streams.TryGetValue(frame.StreamId, out stream) || stream.Ended)
            {
                return;
            }

            stream.Append(frame.Content().Span);
        }

        if (frame.Has(FrameFlags.EndStream))
        {
            End(stream);
        }
        else if (frame.Payload.Length > 0)
        {
            _writer.Write(FrameType.WindowUpdate, FrameFlags.None, frame.StreamId, (uint)frame.Payload.Length);
        }
    }

    private void End(ServerStream stream)
    {
        stream.Ended = true;
        _handler.Handle(this, stream);
    }

    private void TakeSettings(Frame frame)
    {
        if (frame.Has(Frame.Ack))
        {
            lock (_lock)
            {
                // A lower limit holds only once the peer knows of it.
                _streamsAllowed = _announced.TryDequeue(out var known) ? _announced.Append(known).Max() : _streamsAllowed;
            }

            return;
        }

        if (frame.Payload.Length % 6 != 0)
        {
            throw new Http2ConnectionException(Http2Error.FrameSizeError, "SETTINGS of a wrong length.");
        }

        lock (_lock)
        {
            for (var rest = frame.Payload.Span; rest.Length > 0; rest = rest[6..])
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

            _writer.Write(FrameType.Settings, Frame.Ack, 0, []);
        }
    }

    private void TakeWindow(int streamId, long increment)
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
            _writer.Write(FrameType.Data, isLast ? FrameFlags.EndStream : FrameFlags.None, stream.Id, stream.Unsent.Span[..length]);
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
            _writer.Complete();
        }
    }

    private static void Demand(Frame frame, int bytes)
    {
        if (frame.Payload.Length != bytes)
        {
            throw new Http2ConnectionException(Http2Error.FrameSizeError, $"A {frame.Type} frame of {frame.Payload.Length} bytes.");
        }
    }

    private void TryGoAway(Http2ConnectionException exception)
    {
        try
        {
            _writer.WriteGoAway(_highestStreamId, exception.Error, Encoding.UTF8.GetBytes(exception.Message));
        }
        catch (Http2ConnectionException)
        {
            // It does not read either.
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Connection {Number} broke HTTP/2 ({Error}): {Problem}")]
    private partial void ProtocolBroken(int number, Http2Error error, string problem);
}

/// <summary>Takes each request once it is whole. Called on the connection's reading task: must not block.</summary>
internal interface IRequestHandler
{
    public void Handle(ServerConnection connection, ServerStream stream);
}
