using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Xml.Linq;

namespace PushRelay.Interop.Servers;

/// <summary>A real XMPP client (slixmpp) in a process of its own; each call returns when the server has processed what it sent.</summary>
internal sealed class XmppClient : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly Process process;
    private readonly Queue<JsonNode> messages = [];
    private string answer = "";

    private XmppClient(Process process) => this.process = process;

    /// <param name="jid">With a resource.</param>
    /// <param name="streamManagement">XEP-0198: a dropped link hibernates the session.</param>
    /// <param name="port">The server's client port on the loopback.</param>
    /// <param name="cancellationToken">Stops the wait.</param>
    public static async Task<XmppClient> LoginAsync(string jid, int port, bool streamManagement, CancellationToken cancellationToken)
    {
        var script = Path.Combine(AppContext.BaseDirectory, "Servers", "xmpp_client.py");
        string[] arguments =
        [
            script,
            jid,
            "pw",
            "127.0.0.1",
            port.ToString(CultureInfo.InvariantCulture),
            .. streamManagement ? (string[])["--sm"] : [],
        ];
        var process = Process.Start(
            new ProcessStartInfo("/usr/bin/python3", arguments)
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            }
        )!;
        process.ErrorDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
        var client = new XmppClient(process);
        await client.WaitForAsync("online", cancellationToken);
        return client;
    }

    public Task PresenceAsync(string? show = null, int? priority = null, string? type = null) =>
        ObeyAsync(
            new JsonObject
            {
                ["do"] = "presence",
                ["show"] = show,
                ["priority"] = priority,
                ["type"] = type,
            }
        );

    public Task InactiveAsync() => ObeyAsync(new JsonObject { ["do"] = "csi", ["state"] = "inactive" });

    public Task ActiveAsync() => ObeyAsync(new JsonObject { ["do"] = "csi", ["state"] = "active" });

    public Task SendAsync(string to, string? body, string id, string type = "chat", params string[] children) =>
        ObeyAsync(
            new JsonObject
            {
                ["do"] = "send",
                ["to"] = to,
                ["body"] = body,
                ["id"] = id,
                ["type"] = type,
                ["children"] = new JsonArray([.. children.Select(c => (JsonNode)c)]),
            }
        );

    /// <summary>Sends any request.</summary>
    /// <returns>The whole answer, also where it is an error.</returns>
    public async Task<XElement> AskAsync(string to, string type, string xml)
    {
        await ObeyAsync(
            new JsonObject
            {
                ["do"] = "iq",
                ["to"] = to,
                ["type"] = type,
                ["xml"] = xml,
            }
        );
        return XElement.Parse(answer);
    }

    /// <summary>The link dies without a word.</summary>
    public Task DropAsync() => ObeyAsync(new JsonObject { ["do"] = "drop" });

    /// <summary>The link stays and nobody reads it: the server writes into a socket that only looks alive.</summary>
    public async Task FreezeAsync(CancellationToken cancellationToken)
    {
        using var stop = Process.Start("kill", ["-STOP", process.Id.ToString(CultureInfo.InvariantCulture)]);
        await stop.WaitForExitAsync(cancellationToken);
    }

    public Task LogoutAsync() => ObeyAsync(new JsonObject { ["do"] = "logout" });

    /// <summary>The body of the next message that came.</summary>
    public async Task<string> ReceiveAsync(CancellationToken cancellationToken)
    {
        if (messages.Count == 0)
        {
            await WaitForAsync("message", cancellationToken);
        }

        return (string)messages.Dequeue()["body"]!;
    }

    public async ValueTask DisposeAsync()
    {
        if (!process.HasExited)
        {
            process.Kill();
            await process.WaitForExitAsync();
        }

        process.Dispose();
    }

    private async Task ObeyAsync(JsonObject command)
    {
        await process.StandardInput.WriteLineAsync(command.ToJsonString());
        await process.StandardInput.FlushAsync();
        await WaitForAsync("done", TestContext.Current.CancellationToken);
    }

    private async Task WaitForAsync(string kind, CancellationToken cancellationToken)
    {
        while (true)
        {
            var line =
                await process.StandardOutput.ReadLineAsync(cancellationToken).AsTask().WaitAsync(Patience, cancellationToken)
                ?? throw new InvalidOperationException("The XMPP client ended.");
            var said = JsonNode.Parse(line)!;
            var came = (string)said["event"]!;
            if (came == "message")
            {
                messages.Enqueue(said);
            }

            if (came == "answer")
            {
                answer = (string)said["xml"]!;
            }

            if (came == kind)
            {
                return;
            }
        }
    }
}
