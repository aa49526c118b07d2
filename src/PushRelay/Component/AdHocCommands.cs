using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Xml.Linq;
using PushRelay.Access;
using PushRelay.Storage;
using PushRelay.Xmpp;

namespace PushRelay.Component;

/// <summary>What a command answers: a form to fill in, a result, or an error; a note tells a person what happened.</summary>
internal abstract record CommandAnswer
{
    private CommandAnswer()
    {
    }

    /// <param name="Form">An XEP-0004 form of type <c>form</c>; its submission comes with the same session.</param>
    public sealed record Ask(XElement Form) : CommandAnswer;

    /// <param name="Note">For a person.</param>
    /// <param name="Form">An XEP-0004 form of type <c>result</c>.</param>
    public sealed record Done(string Note, XElement? Form) : CommandAnswer;

    public sealed record Refuse(string Type, string Condition, string Text) : CommandAnswer;
}

/// <summary>One command that accounts can run.</summary>
/// <param name="Node">Its XEP-0050 node.</param>
/// <param name="Name">For a person.</param>
/// <param name="Run">For an account served here, with the submitted form's first values by <c>var</c>; null where no form was submitted.</param>
internal sealed record AdHocCommand(
    string Node, string Name, Func<string, IReadOnlyDictionary<string, string>?, CancellationToken, Task<CommandAnswer>> Run);

/// <summary>
/// The component's own face to XMPP: service discovery (XEP-0030) and ad-hoc commands (XEP-0050) that any client can run. Who asks is
/// known by the <c>from</c> that the XMPP server stamped. A session is no memory here: its id carries, signed, whose it is and until when.
/// </summary>
internal sealed partial class AdHocCommands(MasterKey masterKey, ServedAccounts accounts, IEnumerable<AdHocCommand> commands, TimeProvider clock, ILogger<AdHocCommands> logger)
{
    private const int AtOnceMax = 16;
    private const int FieldsMax = 50;

    private static readonly XNamespace Info = "http://jabber.org/protocol/disco#info";
    private static readonly XNamespace Items = "http://jabber.org/protocol/disco#items";
    private static readonly XNamespace Commands = "http://jabber.org/protocol/commands";
    private static readonly XNamespace Data = "jabber:x:data";
    private static readonly XNamespace Version = "jabber:iq:version";
    private static readonly TimeSpan SessionMax = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan CommandMax = TimeSpan.FromSeconds(10);

    private static readonly string[] Features =
    [
        "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "http://jabber.org/protocol/commands",
        "jabber:x:data", "jabber:iq:version", "urn:xmpp:ping", "urn:xmpp:push:0",
    ];

    private readonly Dictionary<string, AdHocCommand> byNode = commands.ToDictionary(c => c.Node, StringComparer.Ordinal);
    private int running;

    /// <summary>The names that must stay readable, whatever a peer has invented before.</summary>
    public static IReadOnlyList<XName> Names =>
    [
        Info + "query", Items + "query", Commands + "command", Version + "query", Data + "x", Data + "field", Data + "value",
        "node", "action", "sessionid", "var",
    ];

    /// <summary>Answers an IQ request that is one of these, over <paramref name="send"/>, without making the link wait for the database.</summary>
    /// <param name="stanza">As it came.</param>
    /// <param name="servers">The virtual hosts behind the link it came over.</param>
    /// <param name="send">Takes the answer; called once.</param>
    /// <param name="stoppingToken">Ends what still runs.</param>
    /// <returns>False: it is none of these.</returns>
    public async ValueTask<bool> TryAnswerAsync(XElement stanza, IReadOnlyList<string> servers, Func<XElement, Task> send, CancellationToken stoppingToken)
    {
        if (!XmppStanza.IsIqRequest(stanza) || stanza.Elements().FirstOrDefault() is not { } request)
        {
            return false;
        }

        var isGet = (string?)stanza.Attribute("type") == "get";
        if (isGet && Discover(request) is { } found)
        {
            await send(found.Name == XmppStanza.StanzaErrors + "item-not-found"
                ? XmppStanza.IqError(stanza, "cancel", "item-not-found", null)
                : XmppStanza.IqResult(stanza, found));
            return true;
        }

        if (isGet || request.Name != Commands + "command")
        {
            return false;
        }

        if (Refusal(stanza, request, servers) is { } refusal)
        {
            await send(refusal);
            return true;
        }

        if (Interlocked.Increment(ref running) > AtOnceMax)
        {
            Interlocked.Decrement(ref running);
            await send(XmppStanza.IqError(stanza, "wait", "resource-constraint", "Too many commands at once; try again."));
            return true;
        }

        _ = RunAsync(stanza, request, send, stoppingToken);
        return true;
    }

    private async Task RunAsync(XElement stanza, XElement request, Func<XElement, Task> send, CancellationToken stoppingToken)
    {
        // not on the link's own reading
        await Task.Yield();
        var command = byNode[(string)request.Attribute("node")!];
        try
        {
            using var limit = new CancellationTokenSource(CommandMax, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, stoppingToken);
            var answer = await command.Run(AccountOf(stanza)!, Submitted(request), either.Token);
            await send(Reply(stanza, command, answer));
        }
        catch (Exception exception)
        {
            if (!stoppingToken.IsCancellationRequested)
            {
                Failed(exception, command.Node);
                await send(XmppStanza.IqError(stanza, "wait", "internal-server-error", null));
            }
        }
        finally
        {
            Interlocked.Decrement(ref running);
        }
    }

    /// <summary>Null: none of ours. An <c>item-not-found</c>: ours, and there is no such node.</summary>
    private XElement? Discover(XElement request)
    {
        var node = (string?)request.Attribute("node");
        if (request.Name == Version + "query")
        {
            return new XElement(request.Name, new XElement(Version + "name", "PushRelay"), new XElement(Version + "version", typeof(AdHocCommands).Assembly.GetName().Version?.ToString(3)));
        }

        if (request.Name == Items + "query")
        {
            return node switch
            {
                null => new XElement(request.Name),
                _ when node == Commands.NamespaceName => new XElement(
                    request.Name, new XAttribute("node", node),
                    byNode.Values.Select(c => new XElement(
                        Items + "item", new XAttribute("jid", (string?)ToOf(request) ?? ""), new XAttribute("node", c.Node), new XAttribute("name", c.Name)))),
                _ when byNode.ContainsKey(node) => new XElement(request.Name, new XAttribute("node", node)),
                _ => new XElement(XmppStanza.StanzaErrors + "item-not-found"),
            };
        }

        if (request.Name != Info + "query")
        {
            return null;
        }

        return node switch
        {
            null => Describe(request, ("pubsub", "push", "PushRelay"), Features),
            _ when node == Commands.NamespaceName => Describe(request, ("automation", "command-list", "Commands"), []),
            _ when byNode.TryGetValue(node, out var command) => Describe(
                request, ("automation", "command-node", command.Name), [Commands.NamespaceName, Data.NamespaceName]),
            _ => new XElement(XmppStanza.StanzaErrors + "item-not-found"),
        };
    }

    private static XElement Describe(XElement request, (string Category, string Type, string Name) identity, IEnumerable<string> features) => new(
        request.Name, request.Attribute("node"),
        new XElement(
            Info + "identity", new XAttribute("category", identity.Category), new XAttribute("type", identity.Type), new XAttribute("name", identity.Name)),
        features.Select(feature => new XElement(Info + "feature", new XAttribute("var", feature))));

    private static XAttribute? ToOf(XElement request) => request.Parent?.Attribute("to");

    /// <summary>What stands against running it: an answer, or null.</summary>
    private XElement? Refusal(XElement stanza, XElement request, IReadOnlyList<string> servers)
    {
        if (AccountOf(stanza) is not { } account || !servers.Contains(ServedAccounts.ServerOf(account), StringComparer.Ordinal))
        {
            return XmppStanza.IqError(stanza, "auth", "forbidden", "Only accounts of the servers that this relay serves.");
        }

        if ((string?)request.Attribute("node") is not { } node || !byNode.ContainsKey(node))
        {
            return XmppStanza.IqError(stanza, "cancel", "item-not-found", null);
        }

        var session = (string?)request.Attribute("sessionid");
        if (session is not null && Check(session, stanza, node) is { } wrong)
        {
            return wrong;
        }

        return (string?)request.Attribute("action") switch
        {
            "cancel" when session is not null => XmppStanza.IqResult(
                stanza, new XElement(Commands + "command", new XAttribute("node", node), new XAttribute("sessionid", session), new XAttribute("status", "canceled"))),
            null or "" or "execute" or "complete" or "next" => null,
            "cancel" => Bad(stanza, "bad-sessionid"),
            _ => Bad(stanza, "bad-action"),
        };
    }

    private XElement Reply(XElement stanza, AdHocCommand command, CommandAnswer answer) => answer switch
    {
        CommandAnswer.Refuse refuse => XmppStanza.IqError(stanza, refuse.Type, refuse.Condition, refuse.Text),
        CommandAnswer.Ask ask => Answer(
            stanza, command, "executing", new XElement(Commands + "actions", new XAttribute("execute", "complete"), new XElement(Commands + "complete")), ask.Form),
        CommandAnswer.Done done => Answer(
            stanza, command, "completed", new XElement(Commands + "note", new XAttribute("type", "info"), done.Note), done.Form),
        _ => throw new System.Diagnostics.UnreachableException(),
    };

    private XElement Answer(XElement stanza, AdHocCommand command, string status, params XElement?[] children) => XmppStanza.IqResult(
        stanza,
        new XElement(
            Commands + "command", new XAttribute("node", command.Node), new XAttribute("sessionid", SessionOf(stanza, command.Node)), new XAttribute("status", status),
            children));

    /// <summary>Seconds since 1970 at which it ends, and a MAC of them with the asker's full address and the node.</summary>
    private string SessionOf(XElement stanza, string node)
    {
        var until = (clock.GetUtcNow() + SessionMax).ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        return $"{until}-{SessionMac(stanza, node, until)}";
    }

    private string SessionMac(XElement stanza, string node, string until) =>
        Base64Url.EncodeToString(masterKey.Mac("command session", (string?)stanza.Attribute("from") ?? "", node, until).AsSpan(0, 16));

    private XElement? Check(string session, XElement stanza, string node)
    {
        var parts = session.Split('-', 2);
        if (parts.Length != 2 || !long.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var until)
            || !CryptographicOperations.FixedTimeEquals(System.Text.Encoding.UTF8.GetBytes(SessionMac(stanza, node, parts[0])), System.Text.Encoding.UTF8.GetBytes(parts[1])))
        {
            return Bad(stanza, "bad-sessionid");
        }

        return until < clock.GetUtcNow().ToUnixTimeSeconds() ? Bad(stanza, "session-expired") : null;
    }

    // XEP-0050 section 4.4
    private static XElement Bad(XElement stanza, string what)
    {
        var error = what == "session-expired" ? XmppStanza.IqError(stanza, "cancel", "not-allowed", null) : XmppStanza.IqError(stanza, "modify", "bad-request", null);
        error.Element(XmppStanza.Component + "error")!.Add(new XElement(Commands + what));
        return error;
    }

    private string? AccountOf(XElement stanza) =>
        Jid.TryParse((string?)stanza.Attribute("from"), out var from) && accounts.TryName(from.Bare.ToString(), out var account, out _) ? account : null;

    private static Dictionary<string, string>? Submitted(XElement request) =>
        request.Element(Data + "x") is { } form && (string?)form.Attribute("type") is "submit" or null
            ? form.Elements(Data + "field").Take(FieldsMax).Where(f => f.Attribute("var") is not null)
                .GroupBy(f => (string)f.Attribute("var")!, StringComparer.Ordinal)
                .ToDictionary(g => g.Key, g => (string?)g.First().Element(Data + "value") ?? "", StringComparer.Ordinal)
            : null;

    [LoggerMessage(Level = LogLevel.Error, Message = "The command {Node} failed; who asked is told to try again")]
    private partial void Failed(Exception exception, string node);
}
