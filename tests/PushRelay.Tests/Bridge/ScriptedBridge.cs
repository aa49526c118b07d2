using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Xml.Linq;

namespace PushRelay.Tests.Bridge;

/// <summary>The server's side of XEP-0114, as far as the bridge needs it.</summary>
internal sealed class ScriptedBridge : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly List<XElement> come = [];
    private TcpClient? link;
    private System.Xml.XmlReader? reader;

    public ScriptedBridge() => listener.Start();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    public async Task AcceptAsync()
    {
        come.Clear();
        link = await listener.AcceptTcpClientAsync(Token).AsTask().WaitAsync(Patience, Token);
        reader = System.Xml.XmlReader.Create(
            link.GetStream(),
            new System.Xml.XmlReaderSettings { Async = true, ConformanceLevel = System.Xml.ConformanceLevel.Fragment }
        );
        await reader.MoveToContentAsync().WaitAsync(Patience, Token);
        await WriteAsync(
            "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' "
                + "from='push.example.com' id='abc'>"
        );
        await ExpectAsync(s => s.Name.LocalName == "handshake");
        await WriteAsync("<handshake/>");
    }

    public Task DropAsync()
    {
        link!.Client.LingerState = new LingerOption(true, 0);
        link.Close();
        return Task.CompletedTask;
    }

    public Task SendAsync(string stanza, bool wrap = false) =>
        WriteAsync(wrap ? $"<message from='example.com' to='push.example.com'>{stanza}</message>" : stanza);

    public Task SendEventsAsync(string epoch, long seq, string child, bool replay) =>
        SendAsync(
            $"<events xmlns='urn:pushrelay:bridge:1' epoch='{epoch}' "
                + $"seq='{seq.ToString(CultureInfo.InvariantCulture)}'{(replay ? " replay='true'" : "")}>{child}</events>",
            wrap: true
        );

    public Task SendEventsAsync(string epoch, long seq, params string[] children) =>
        SendEventsAsync(epoch, seq, string.Concat(children), replay: false);

    /// <summary>One of the stream of that node; empty: of the whole server.</summary>
    public Task<XElement> ExpectSnapshotRequestAsync(string node) =>
        ExpectAsync(s =>
            s.Name.LocalName == "iq"
            && s.Elements().Any(e => e.Name.LocalName == "snapshot" && ((string?)e.Attribute("node") ?? "") == node)
        );

    public Task<XElement> ExpectSnapshotRequestAsync() =>
        ExpectAsync(s => s.Name.LocalName == "iq" && s.Elements().Any(e => e.Name.LocalName == "snapshot"));

    public async Task<long> ExpectAckAsync(string epoch)
    {
        var ack = (await ExpectAsync(s => s.Elements().Any(e => e.Name.LocalName == "ack"))).Elements().Single();
        Assert.Equal(epoch, (string?)ack.Attribute("epoch"));
        return (long)ack.Attribute("seq")!;
    }

    public Task SendNodeEventsAsync(string node, string epoch, long? seq, string children)
    {
        var number = seq is { } live ? $"seq='{live.ToString(CultureInfo.InvariantCulture)}'" : "snapshot='true'";
        return SendAsync($"<events xmlns='urn:pushrelay:bridge:1' node='{node}' epoch='{epoch}' {number}>{children}</events>", wrap: true);
    }

    /// <summary>Everything said before is taken when this is answered.</summary>
    public async Task SyncAsync()
    {
        await SendAsync("<iq type='get' id='sync' from='example.com' to='push.example.com'><ping xmlns='urn:xmpp:ping'/></iq>");
        await ExpectAsync(s => (string?)s.Attribute("id") == "sync");
    }

    public Task AnswerSnapshotAsync(XElement request, string epoch, long seq, string node = "") =>
        SendAsync(
            $"<iq type='result' id='{(string)request.Attribute("id")!}' from='example.com' to='push.example.com'><snapshot "
                + $"xmlns='urn:pushrelay:bridge:1'{(node.Length > 0 ? $" node='{node}'" : "")} epoch='{epoch}' "
                + $"seq='{seq.ToString(CultureInfo.InvariantCulture)}' dropped='0' server='Peer 1' module='1.0.0'/></iq>"
        );

    /// <summary>The next stanza that fits; others are kept for who expects them.</summary>
    public async Task<XElement> ExpectAsync(Func<XElement, bool> fits)
    {
        while (true)
        {
            if (come.Find(s => fits(s)) is { } found)
            {
                come.Remove(found);
                return found;
            }

            come.Add(await NextAsync().WaitAsync(Patience, Token));
        }
    }

    /// <summary>The relay closes the stream, with nothing but what <see cref="ExpectAsync"/> left before it, and no
    /// acknowledgement.</summary>
    public async Task ExpectEndAsync()
    {
        while (
            await reader!.ReadAsync().WaitAsync(Patience, Token)
            && !(reader.NodeType == System.Xml.XmlNodeType.EndElement && reader.Depth == 0)
        )
        {
            Assert.NotEqual("ack", reader.LocalName);
        }

        link!.Close();
    }

    public void Dispose()
    {
        reader?.Dispose();
        link?.Dispose();
        listener.Dispose();
    }

    private async Task<XElement> NextAsync()
    {
        while (true)
        {
            await reader!.ReadAsync();
            if (reader.NodeType == System.Xml.XmlNodeType.Element && reader.Depth == 1)
            {
                using var inner = reader.ReadSubtree();
                return await XElement.LoadAsync(inner, LoadOptions.None, Token);
            }

            Assert.False(
                reader.EOF || reader.NodeType == System.Xml.XmlNodeType.EndElement && reader.Depth == 0,
                "The relay closed the stream."
            );
        }
    }

    private async Task WriteAsync(string text) => await link!.GetStream().WriteAsync(System.Text.Encoding.UTF8.GetBytes(text), Token);
}
