using System.Buffers;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>One request and its answer. Belongs to its connection and is touched under its lock only.</summary>
internal sealed class ServerStream(int id, List<HeaderField> headers, long sendWindow)
{
    /// <summary>More than any payload; what follows is counted, not kept.</summary>
    private const int KeptBytesMax = 16 * 1024;

    private ArrayBufferWriter<byte>? body;

    public int Id { get; } = id;

    public List<HeaderField> Headers { get; } = headers;

    public long BodyBytes { get; private set; }

    public ReadOnlyMemory<byte> Body => body?.WrittenMemory ?? default;

    /// <summary>The request is whole.</summary>
    public bool Ended { get; set; }

    public long SendWindow { get; set; } = sendWindow;

    /// <summary>Of the answer's body, what the windows have not let out yet.</summary>
    public ReadOnlyMemory<byte> Unsent { get; set; }

    public void Append(ReadOnlySpan<byte> data)
    {
        BodyBytes += data.Length;
        if (BodyBytes <= KeptBytesMax && data.Length > 0)
        {
            (body ??= new ArrayBufferWriter<byte>(Math.Max(512, data.Length))).Write(data);
        }
    }
}
