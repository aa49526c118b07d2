using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Xml.Linq;

namespace PushRelay.Interop.Servers;

/// <summary>
/// A client on a plain socket, read only when the test asks and with XEP-0198 by hand: it can be cut, left silent and resumed at will,
/// and a login costs milliseconds.
/// </summary>
internal sealed class WireClient : IAsyncDisposable
{
    private const string Sm = "urn:xmpp:sm:3";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
    private readonly byte[] buffer = new byte[64 * 1024];
    private readonly List<XElement> inbox = [];
    private Decoder decoder = Encoding.UTF8.GetDecoder();
    private XmlPieces pieces = new();
    private string resumption = "";
    private int handled;
    private int requests;

    private WireClient(string jid) => Jid = jid;

    /// <summary>With its resource.</summary>
    public string Jid { get; }

    public string Account => Jid[..Jid.IndexOf('/', StringComparison.Ordinal)];

    /// <summary>How many messages of the flood the server has acknowledged to its sender (XEP-0198).</summary>
    public int Processed { get; private set; }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Domain => Account[(Account.IndexOf('@', StringComparison.Ordinal) + 1)..];

    /// <summary>A session; available, unless said otherwise, and known to the server as that when this returns.</summary>
    /// <param name="jid">With a resource; the password is "pw".</param>
    /// <param name="port">The server's client port on the loopback.</param>
    /// <param name="presence">Children of the first presence; null: none is sent.</param>
    public static async Task<WireClient> LoginAsync(string jid, int port, string? presence = "")
    {
        var client = await AuthenticatedAsync(jid, port);
        var resource = jid[(client.Account.Length + 1)..];
        await client.AskAsync("set", $"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>", to: null);
        if (presence is not null)
        {
            await client.SendAsync($"<presence>{presence}</presence>");
        }

        await client.SyncAsync();
        return client;
    }

    /// <summary>The session of a client whose link was lost, on a new one (XEP-0198 section 5); what it had not acknowledged comes
    /// again.</summary>
    public static async Task<WireClient> ResumeAsync(WireClient lost, int port)
    {
        var client = await AuthenticatedAsync(lost.Jid, port);
        await client.SendAsync(
            string.Create(CultureInfo.InvariantCulture, $"<resume xmlns='{Sm}' previd='{lost.resumption}' h='{lost.handled}'/>")
        );
        await client.ExpectAsync("resumed");
        client.resumption = lost.resumption;
        client.handled = lost.handled;
        await client.SyncAsync();
        return client;
    }

    /// <summary>Turns XEP-0198 on, resumable for so many seconds where the server lets the client choose.</summary>
    public async Task<WireClient> EnableSmAsync(int? seconds = null)
    {
        var max = seconds is { } bound ? string.Create(CultureInfo.InvariantCulture, $" max='{bound}'") : "";
        await SendAsync($"<enable xmlns='{Sm}' resume='true'{max}/>");
        resumption = (string)(await ExpectAsync("enabled")).Attribute("id")!;
        handled = 0;
        return this;
    }

    public async Task SendAsync(string xml)
    {
        ReadOnlyMemory<byte> bytes = Encoding.UTF8.GetBytes(xml);
        while (!bytes.IsEmpty)
        {
            bytes = bytes[await socket.SendAsync(bytes, Token)..];
        }
    }

    /// <param name="to">An account or a session.</param>
    /// <param name="body">As XML text; null: none.</param>
    /// <param name="id">Its id.</param>
    /// <param name="type">As RFC 6121 section 5.2.2 has them.</param>
    /// <param name="extra">Further children.</param>
    public async Task MessageAsync(string to, string? body, string id, string type = "chat", string extra = "")
    {
        await SendAsync($"<message to='{to}' type='{type}' id='{id}'>{(body is null ? "" : $"<body>{body}</body>")}{extra}</message>");
        await SyncAsync();
    }

    /// <returns>The whole answer, also where it is an error; what came before it stays.</returns>
    public async Task<XElement> AskAsync(string type, string payload, string? to)
    {
        var id = string.Create(CultureInfo.InvariantCulture, $"ask{++requests}");
        await SendAsync($"<iq type='{type}' id='{id}'{(to is null ? "" : $" to='{to}'")}>{payload}</iq>");
        return await TakeAsync(e => e.Name.LocalName == "iq" && (string?)e.Attribute("id") == id, dropOthers: false);
    }

    /// <summary>Returns when the server has processed all that was sent before.</summary>
    public Task SyncAsync() => AskAsync("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", Domain);

    /// <summary>Says that all that came is handled (XEP-0198).</summary>
    public Task AckAsync() => SendAsync($"<a xmlns='{Sm}' h='{handled.ToString(CultureInfo.InvariantCulture)}'/>");

    /// <param name="state">active or inactive (XEP-0352); known to the server when this returns.</param>
    public async Task CsiAsync(string state)
    {
        await SendAsync($"<{state} xmlns='urn:xmpp:csi:0'/>");
        await SyncAsync();
    }

    /// <summary>Enters a room, which is made if there is none, and returns when the room says that it is done.</summary>
    public async Task JoinAsync(string room, string nick)
    {
        await SendAsync($"<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
        await ExpectAsync(e => e.Name.LocalName == "message" && e.Elements().Any(child => child.Name.LocalName == "subject"));
        await AskAsync("set", "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>", room);
    }

    /// <summary>Sends short messages, ids PREFIX0, PREFIX1, ...; each hundred of them once the server has acknowledged the one
    /// before.</summary>
    public async Task FloodAsync(string to, string prefix, int count)
    {
        await SendAsync($"<enable xmlns='{Sm}'/>");
        await ExpectAsync("enabled");
        for (var first = 0; first < count; first += 100)
        {
            var text = new StringBuilder();
            for (var n = first; n < Math.Min(first + 100, count); n++)
            {
                text.Append(
                    CultureInfo.InvariantCulture,
                    $"<message to='{to}' type='chat' id='{prefix}{n}'><body>message {n}</body></message>"
                );
            }

            await SendAsync($"{text}<r xmlns='{Sm}'/>");
            while (Processed < Math.Min(first + 100, count))
            {
                Processed = (int)(await ExpectAsync("a")).Attribute("h")!;
            }
        }
    }

    /// <summary>The next element of that local name; others before it are thrown away.</summary>
    public Task<XElement> ExpectAsync(string name) => ExpectAsync(e => e.Name.LocalName == name);

    /// <summary>The next element that is wanted; others before it are thrown away.</summary>
    public Task<XElement> ExpectAsync(Func<XElement, bool> wanted) => TakeAsync(wanted, dropOthers: true);

    /// <summary>The message with that body.</summary>
    public Task<XElement> ReceiveAsync(string body) =>
        ExpectAsync(e => e.Name.LocalName == "message" && e.Elements().Any(c => c.Name.LocalName == "body" && c.Value == body));

    /// <returns>The ids of the messages that came, up to this one.</returns>
    public async Task<HashSet<string>> ReceiveUntilAsync(string id)
    {
        var ids = new HashSet<string>();
        while (!ids.Contains(id))
        {
            ids.Add((string?)(await ExpectAsync("message")).Attribute("id") ?? "");
        }

        return ids;
    }

    /// <summary>Returns when the server has closed the link.</summary>
    public async Task WaitClosedAsync()
    {
        try
        {
            await TakeAsync(_ => false, dropOthers: true);
        }
        catch (IOException)
        {
            // what was waited for
        }
    }

    /// <summary>Closes the stream as RFC 6120 section 4.4 has it.</summary>
    public async Task LogoutAsync()
    {
        await SendAsync("<presence type='unavailable'/></stream:stream>");
        await WaitClosedAsync();
    }

    /// <summary>The link dies: a reset, without a word of XMPP.</summary>
    public void Cut() => socket.Close(0);

    public ValueTask DisposeAsync()
    {
        Cut();
        return ValueTask.CompletedTask;
    }

    private static async Task<WireClient> AuthenticatedAsync(string jid, int port)
    {
        var client = new WireClient(jid);
        await client.socket.ConnectAsync(IPAddress.Loopback, port, Token);
        await client.OpenAsync();
        var user = client.Account[..^(client.Domain.Length + 1)];
        var plain = Convert.ToBase64String(Encoding.UTF8.GetBytes($"\0{user}\0pw"));
        await client.SendAsync($"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
        await client.ExpectAsync("success");
        await client.OpenAsync();
        return client;
    }

    private async Task OpenAsync()
    {
        (pieces, decoder) = (new XmlPieces(), Encoding.UTF8.GetDecoder());
        await SendAsync($"<?xml version='1.0'?><stream:stream to='{Domain}' xmlns='jabber:client' {XmlPieces.StreamPrefix} version='1.0'>");
        await ExpectAsync("features");
    }

    private async Task<XElement> TakeAsync(Func<XElement, bool> wanted, bool dropOthers)
    {
        var seen = 0;
        while (true)
        {
            while (seen < inbox.Count)
            {
                var element = inbox[seen++];
                if (wanted(element))
                {
                    inbox.RemoveRange(dropOthers ? 0 : seen - 1, dropOthers ? seen : 1);
                    return element;
                }
            }

            var count = await socket.ReceiveAsync(buffer.AsMemory(), Token).AsTask().WaitAsync(Patience, Token);
            if (count == 0)
            {
                throw new IOException("The server closed the link.");
            }

            var text = new char[count];
            pieces.Add(new string(text, 0, decoder.GetChars(buffer, 0, count, text, 0)));
            while (pieces.Next() is { } next)
            {
                handled += next.Name.LocalName is "message" or "presence" or "iq" ? 1 : 0;
                inbox.Add(next);
            }
        }
    }
}
