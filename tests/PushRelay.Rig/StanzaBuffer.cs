using System.Buffers;
using System.Buffers.Text;
using System.Net.Sockets;
using System.Text;

namespace PushRelay.Rig;

/// <summary>The peer's stanzas as bytes, written without strings: a hundred thousand cost it next to nothing.</summary>
internal sealed class StanzaBuffer(int bytes)
{
    private readonly ArrayBufferWriter<byte> buffer = new(bytes * 2);

    public ReadOnlyMemory<byte> Written => buffer.WrittenMemory;

    public void Clear() => buffer.ResetWrittenCount();

    /// <summary>The answer to a request for a snapshot: nobody is connected, so every account is offline.</summary>
    public void Snapshot(string id, string epoch, long last)
    {
        Text("<iq type='result' from='"u8, Rehearsal.Server, "' to='"u8);
        Text(Rehearsal.Component, "' id='"u8, id);
        Text("'><snapshot xmlns='urn:pushrelay:bridge:1' epoch='"u8, epoch, "' seq='"u8);
        Number(last);
        buffer.Write("' dropped='0' server='Rehearsal' module='1.0.0'/></iq>"u8);
    }

    /// <summary>So many messages from <paramref name="first"/> on; a heartbeat where there are none.</summary>
    public void Events(string epoch, long seq, bool replay, int first, int count, Func<int, RehearsedEvent> plan)
    {
        Text("<message from='"u8, Rehearsal.Server, "' to='"u8);
        Text(Rehearsal.Component, "'><events xmlns='urn:pushrelay:bridge:1' epoch='"u8, epoch);
        buffer.Write("' seq='"u8);
        Number(seq);
        buffer.Write(replay ? "' replay='true'>"u8 : "'>"u8);
        for (var number = first; number < first + count; number++)
        {
            var (device, sender) = plan(number);
            buffer.Write("<message to='u"u8);
            Number(device);
            Text("@"u8, Rehearsal.Server, "' from='s"u8);
            Number(sender);
            Text("@"u8, Rehearsal.Server, "/phone' type='chat' class='text' id='m-"u8);
            Number(number);
            buffer.Write(
                "'><body>Are you coming tonight? I have kept you a seat near the window, and the bread is still warm.</body></message>"u8
            );
        }

        if (count == 0)
        {
            buffer.Write("<heartbeat interval='30'/>"u8);
        }

        buffer.Write("</events></message>"u8);
    }

    private void Text(ReadOnlySpan<byte> before, string text, ReadOnlySpan<byte> after)
    {
        buffer.Write(before);
        Encoding.UTF8.GetBytes(text, buffer);
        buffer.Write(after);
    }

    private void Text(string text, ReadOnlySpan<byte> between, string after)
    {
        Encoding.UTF8.GetBytes(text, buffer);
        buffer.Write(between);
        Encoding.UTF8.GetBytes(after, buffer);
    }

    private void Number(long number)
    {
        Utf8Formatter.TryFormat(number, buffer.GetSpan(20), out var written);
        buffer.Advance(written);
    }
}

/// <summary>What a relay says on its link, cut into stanzas; it says little, and in one known form.</summary>
internal sealed class StanzaReader(NetworkStream stream)
{
    private readonly byte[] bytes = new byte[16 * 1024];
    private string text = "";

    /// <summary>Past the opening of the stream.</summary>
    public async Task HeaderAsync(CancellationToken cancellationToken)
    {
        int at;
        while ((at = text.IndexOf("<stream:stream", StringComparison.Ordinal)) < 0 || text.IndexOf('>', at) < 0)
        {
            await MoreAsync(cancellationToken);
        }

        text = text[(text.IndexOf('>', at) + 1)..];
    }

    /// <returns>Null: the relay closed the stream.</returns>
    public async Task<string?> NextAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            text = text.TrimStart();
            if (text.StartsWith("</", StringComparison.Ordinal))
            {
                return null;
            }

            var nameEnd = text.IndexOfAny([' ', '>', '/'], Math.Min(1, text.Length));
            var tagEnd = text.IndexOf('>', StringComparison.Ordinal);
            if (nameEnd > 0 && tagEnd > 0)
            {
                var close = $"</{text[1..nameEnd]}>";
                var end =
                    text[tagEnd - 1] == '/' ? tagEnd + 1
                    : text.IndexOf(close, StringComparison.Ordinal) is >= 0 and var at ? at + close.Length
                    : -1;
                if (end > 0)
                {
                    var stanza = text[..end];
                    text = text[end..];
                    return stanza;
                }
            }

            if (!await MoreAsync(cancellationToken))
            {
                return null;
            }
        }
    }

    private async Task<bool> MoreAsync(CancellationToken cancellationToken)
    {
        var read = await stream.ReadAsync(bytes, cancellationToken);
        text += Encoding.UTF8.GetString(bytes, 0, read);
        return read > 0 ? true
            : text.Length == 0 ? false
            : throw new IOException("The relay's stream ended within a stanza.");
    }
}
