using System.Buffers;
using System.Buffers.Binary;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Logging;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>
/// The server's side of one HTTP/2 connection, RFC 9113: takes requests in, hands each to <see cref="IRequestHandler"/> once it is whole,
/// and ends as it is told: in order, at once, by half, or never.
/// </summary>
internal sealed partial class ServerConnection : IDisposable
{
    /// <summary>Half of the window that everybody starts with.</summary>
    private const int WindowUpdateBytes = 65535 / 2;
    private const int HeaderBlockBytesMax = 32 * 1024;

    private static readonly byte[] Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray();

    private readonly Socket socket;
    private readonly SslStream tls;
    private readonly FrameReader reader;
    private readonly FrameWriter writer;
    private readonly HpackDecoder decoder = new();
    private readonly IRequestHandler handler;
    private readonly ILogger logger;
    private readonly CancellationTokenSource over = new();
    private int unacknowledgedBytes;

    public ServerConnection(int number, Socket socket, SslStream tls, int streamsMax, IRequestHandler handler, ILogger logger)
    {
        Number = number;
        this.socket = socket;
        this.tls = tls;
        reader = new FrameReader(tls);
        writer = new FrameWriter(tls);
        Streams = new ServerStreams(writer, streamsMax);
        this.handler = handler;
        this.logger = logger;
    }

    /// <summary>Counted from 1.</summary>
    public int Number { get; }

    public ServerStreams Streams { get; }

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
            await over.CancelAsync();
        }

        writer.Complete();
        await writing;
        this.socket.Dispose();
        await this.tls.DisposeAsync();
    }

    public void Flush() => writer.Flush();

    /// <summary>Sends what is gathered, then ends the connection with FIN.</summary>
    public void Close() => writer.Complete();

    /// <summary>Ends it with a TCP reset, at once.</summary>
    public void Abort()
    {
        try
        {
            this.socket.LingerState = new LingerOption(true, 0);
            this.socket.Close();
            over.Cancel();
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
            this.socket.Shutdown(SocketShutdown.Send);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException) { }
    }

    public void Dispose()
    {
        over.Dispose();
        this.tls.Dispose();
        this.socket.Dispose();
    }

    /// <summary>The peer went away, or we cut it off.</summary>
    private static bool IsOver(Exception exception) =>
        exception is IOException or SocketException or OperationCanceledException or ObjectDisposedException or InvalidOperationException;

    /// <summary>Until <see cref="FrameWriter.Complete"/>; then says goodbye, and gives the peer a second to do the same.</summary>
    private async Task WriteAsync()
    {
        try
        {
            await writer.RunAsync(over.Token);
            await this.tls.ShutdownAsync();
            this.socket.Shutdown(SocketShutdown.Send);
            over.CancelAfter(TimeSpan.FromSeconds(1));
        }
        catch (Exception exception) when (IsOver(exception))
        {
            await over.CancelAsync();
        }
    }

    private async Task ReadAsync()
    {
        var preface = new byte[Preface.Length];
        if (!await reader.ReadExactlyAsync(preface, over.Token) || !preface.AsSpan().SequenceEqual(Preface))
        {
            throw new Http2ConnectionException(Http2Error.ProtocolError, "Not HTTP/2.");
        }

        writer.WriteSettings(
            (SettingId.MaxConcurrentStreams, (uint)Streams.StreamsMax),
            (SettingId.MaxHeaderListSize, (uint)HpackDecoder.HeaderListBytesMax)
        );
        writer.Flush();
        var isFirst = true;
        while (await reader.ReadAsync(over.Token) is { } frame)
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
            if (!reader.HasFrame)
            {
                writer.Flush();
            }
        }
    }

    private async Task TakeAsync(Frame frame)
    {
        if (Streams.IsFrozen)
        {
            // Until the peer or the simulator gives up: not even the window is enlarged.
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, over.Token);
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
                Streams.Drop(frame.StreamId);
                break;
            case FrameType.Settings when frame.Has(Frame.Ack):
                Streams.Acknowledged();
                break;
            case FrameType.Settings:
                Streams.Take(frame.Payload.Span);
                break;
            case FrameType.Ping when !frame.Has(Frame.Ack):
                Demand(frame, bytes: 8);
                writer.Write(FrameType.Ping, Frame.Ack, 0, frame.Payload.Span);
                break;
            case FrameType.WindowUpdate:
                Demand(frame, bytes: 4);
                Streams.Widen(frame.StreamId, BinaryPrimitives.ReadUInt32BigEndian(frame.Payload.Span) & 0x7fff_ffff);
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
        while (await reader.ReadAsync(over.Token) is { } next)
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
        var headers = decoder.Decode(frame.Content().Span);
        if (Streams.Open(frame.StreamId, headers) is { } stream && frame.Has(FrameFlags.EndStream))
        {
            End(stream);
        }
    }

    private void TakeData(Frame frame)
    {
        // The whole frame counts, padding too, also on a stream that is gone: section 6.9.
        unacknowledgedBytes += frame.Payload.Length;
        if (unacknowledgedBytes >= WindowUpdateBytes)
        {
            writer.Write(FrameType.WindowUpdate, FrameFlags.None, 0, (uint)unacknowledgedBytes);
            unacknowledgedBytes = 0;
        }

        if (Streams.Append(frame.StreamId, frame.Content().Span) is not { } stream)
        {
            return;
        }

        if (frame.Has(FrameFlags.EndStream))
        {
            End(stream);
        }
        else if (frame.Payload.Length > 0)
        {
            writer.Write(FrameType.WindowUpdate, FrameFlags.None, frame.StreamId, (uint)frame.Payload.Length);
        }
    }

    private void End(ServerStream stream)
    {
        stream.Ended = true;
        this.handler.Handle(this, stream);
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
            writer.WriteGoAway(Streams.Highest, exception.Error, Encoding.UTF8.GetBytes(exception.Message));
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
    void Handle(ServerConnection connection, ServerStream stream);
}
